//! corosensei, on its own stacks and on the slab.

use std::{
    future::{self, Future},
    io,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::{Pin, pin},
    ptr,
    task::{Context, Poll},
};

use corosensei::{
    Coroutine, CoroutineResult, Yielder,
    stack::{DefaultStack, Stack, StackPointer},
};

use super::check_mappings;
use crate::{
    clock::Stopwatch,
    contender::{Contender, Outcome, STACK_SIZE, Skip},
    mxcsr::Status,
    population::Watch,
    slab,
    work::{self, BATCH, Message, Sent, SmallError, time, time_warm},
};

pub const NAME: &str = "corosensei";
pub const NAME_ON_SLAB: &str = "corosensei on a slab";

pub struct Corosensei<M>(PhantomData<M>);

impl<M> Corosensei<M> {
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

/// Where the stacks come from.
pub trait Memory {
    type Stack: Stack + 'static;
    const NAME: &str;
    /// Are fresh stacks a matter of its own, measured with it?
    const FRESH: bool;

    fn check(count: usize) -> Result<(), Skip>;

    fn take() -> io::Result<Self::Stack>;

    /// The stack of a finished coroutine, to be used again; at once if nothing is returned.
    fn again<I, Y, R>(coroutine: Coroutine<I, Y, R, Self::Stack>) -> Option<Self::Stack>;
}

/// corosensei's own: two mappings each.
pub struct Mapped;

impl Memory for Mapped {
    type Stack = DefaultStack;
    const NAME: &str = NAME;
    const FRESH: bool = true;

    fn check(count: usize) -> Result<(), Skip> {
        check_mappings(count)
    }

    fn take() -> io::Result<DefaultStack> {
        DefaultStack::new(STACK_SIZE)
    }

    #[inline(always)]
    fn again<I, Y, R>(coroutine: Coroutine<I, Y, R, DefaultStack>) -> Option<DefaultStack> {
        Some(coroutine.into_stack())
    }
}

pub struct OnSlab;

pub struct SlabStack(slab::Stack);

impl Drop for SlabStack {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

// SAFETY: the slab's stacks have a guard page and are large enough.
unsafe impl Stack for SlabStack {
    fn base(&self) -> StackPointer {
        StackPointer::new(self.0.top()).expect("a stack is not at zero")
    }

    fn limit(&self) -> StackPointer {
        StackPointer::new(self.0.bottom()).expect("a stack is not at zero")
    }
}

impl Memory for OnSlab {
    type Stack = SlabStack;
    const NAME: &str = NAME_ON_SLAB;
    const FRESH: bool = false;

    fn check(_: usize) -> Result<(), Skip> {
        Ok(())
    }

    fn take() -> io::Result<SlabStack> {
        slab::Stack::take().map(SlabStack)
    }

    #[inline(always)]
    fn again<I, Y, R>(coroutine: Coroutine<I, Y, R, SlabStack>) -> Option<SlabStack> {
        drop(coroutine);
        None
    }
}

impl<M: Memory> Contender for Corosensei<M> {
    fn name(&self) -> &'static str {
        M::NAME
    }

    fn flat(&self, ops: u64, status: Status) -> Outcome {
        let mut adder =
            Coroutine::<u64, u64, (), _>::with_stack(M::take()?, move |other, mut x| {
                loop {
                    x = other.suspend(x + 1);
                }
            });
        let mut x = yielded(adder.resume(0));
        let elapsed = status.during(|| time(ops, || x = yielded(adder.resume(x))));
        assert_eq!(x, ops + 1);
        Ok(elapsed)
    }

    fn message(&self, ops: u64) -> Outcome {
        let mut adder =
            Coroutine::<Message, Message, (), _>::with_stack(M::take()?, |other, mut message| {
                loop {
                    message[0] += 1;
                    message = other.suspend(message);
                }
            });
        let mut message = yielded(adder.resume([0; 32]));
        let elapsed = time(ops, || message = yielded(adder.resume(message)));
        assert_eq!(message[0], ops + 1);
        Ok(elapsed)
    }

    fn deep(&self, frames: usize, ops: u64) -> Outcome {
        let mut adder = deep_adder::<M>(frames)?;
        let mut x = yielded(adder.resume(0));
        let elapsed = time(ops, || x = yielded(adder.resume(x)));
        assert_eq!(x, ops + 1);
        Ok(elapsed)
    }

    fn deep_on_both(&self, frames: usize, ops: u64) -> Outcome {
        let mut adder = deep_adder::<M>(frames)?;
        let mut x = yielded(adder.resume(0));
        let elapsed = time(ops, || {
            x = work::deep(frames, &mut || yielded(adder.resume(x)));
        });
        assert_eq!(x, ops + 1);
        Ok(elapsed)
    }

    fn ring(&self, size: usize, ops: u64) -> Outcome {
        let mut ring = suspended::<M>(size)?;
        let mut x = 0;
        let mut turn = 0;
        let elapsed = time_warm(2 * size as u64, ops, || {
            x = yielded(ring[turn].resume(x));
            turn += 1;
            if turn == size {
                turn = 0;
            }
        });
        assert_eq!(x, 2 * size as u64 + ops);
        reset(&mut ring);
        Ok(elapsed)
    }

    fn round_robin(&self, order: &[usize], frames: usize, passes: u64) -> Outcome {
        let mut adders = match frames {
            0 => suspended::<M>(order.len())?,
            _ => {
                M::check(order.len())?;
                order
                    .iter()
                    .map(|_| {
                        let mut adder = deep_adder::<M>(frames)?;
                        yielded(adder.resume(0));
                        Ok(adder)
                    })
                    .collect::<Result<Vec<_>, Skip>>()?
            }
        };
        let mut x = 0;
        let elapsed = time_warm(1, passes, || {
            for &index in order {
                x = yielded(adders[index].resume(x));
            }
        });
        assert_eq!(x, (1 + passes) * order.len() as u64);
        reset(&mut adders);
        Ok(elapsed)
    }

    fn pooled(&self, ops: u64) -> Outcome {
        let mut kept = Some(M::take()?);
        let mut x = 0;
        let elapsed = time(ops, || {
            let stack = kept.take().unwrap_or_else(|| M::take().expect("it was"));
            let mut adder = Coroutine::<u64, (), u64, _>::with_stack(stack, |_, x| x + 1);
            x = adder.resume(x).as_return().expect("it returns");
            kept = M::again(adder);
        });
        assert_eq!(x, ops);
        Ok(elapsed)
    }

    fn fresh(&self, ops: u64) -> Outcome {
        if !M::FRESH {
            return Err(Skip::NotOffered);
        }
        let mut x = 0;
        let elapsed = time(ops, || {
            let stack = M::take().expect("there is memory");
            let mut adder = Coroutine::<u64, (), u64, _>::with_stack(stack, |_, x| x + 1);
            x = adder.resume(x).as_return().expect("it returns");
        });
        assert_eq!(x, ops);
        Ok(elapsed)
    }

    /// The forced unwinding that a drop begins with, without giving back the stack.
    fn kill(&self, frames: usize, ops: u64) -> Outcome {
        let mut stacks = Vec::new();
        work::batches(ops, BATCH)
            .map(|batch| {
                let victims = (0..batch).map(|_| {
                    let stack = stacks.pop().map_or_else(M::take, Ok)?;
                    let mut victim =
                        Coroutine::<u64, u64, u64, _>::with_stack(stack, move |other, x| {
                            work::owning(frames, &mut || other.suspend(x))
                        });
                    yielded(victim.resume(0));
                    Ok(victim)
                });
                let mut victims = victims.collect::<Result<Vec<_>, Skip>>()?;
                let mut remaining = victims.iter_mut();
                let elapsed = time(batch, || {
                    remaining.next().expect("one for each").force_unwind();
                });
                stacks.extend(victims.into_iter().filter_map(M::again));
                Ok(elapsed)
            })
            .sum()
    }

    fn throw(&self, ops: u64) -> Outcome {
        let mut catcher =
            Coroutine::<Sent, u64, (), _>::with_stack(M::take()?, |other, mut sent| {
                loop {
                    sent = other.suspend(work::caught(sent));
                }
            });
        let mut x = yielded(catcher.resume(Ok(0)));
        let elapsed = time(ops, || {
            x = yielded(catcher.resume(Err(Box::new(SmallError(x)))));
        });
        assert_eq!(x, ops);
        Ok(elapsed)
    }

    fn panic(&self, ops: u64) -> Outcome {
        let mut kept = Some(M::take()?);
        let mut x = 0;
        let elapsed = time(ops, || {
            let stack = kept.take().unwrap_or_else(|| M::take().expect("it was"));
            let mut thrower = Coroutine::<u64, (), u64, _>::with_stack(stack, |_, x| {
                resume_unwind(Box::new(SmallError(x)))
            });
            let caught = catch_unwind(AssertUnwindSafe(|| thrower.resume(x)));
            let payload = caught.expect_err("it panics");
            x = payload.downcast::<SmallError>().expect("with that").0 + 1;
            kept = M::again(thrower);
        });
        assert_eq!(x, ops);
        Ok(elapsed)
    }

    fn item(&self, ops: u64) -> Outcome {
        let coroutine = Coroutine::<(), u64, (), _>::with_stack(M::take()?, |other, ()| {
            for number in 0.. {
                other.suspend(number);
            }
        });
        let mut numbers = Items(coroutine);
        let mut last = None;
        let elapsed = time(ops, || last = numbers.next());
        assert_eq!(last, Some(ops - 1));
        Ok(elapsed)
    }

    fn poll(&self, frames: usize, ops: u64) -> Outcome {
        let coroutine = Polled::<M>::with_stack(M::take()?, move |other, context| {
            work::deep(frames, &mut || {
                wait(other, context, future::pending::<()>())
            });
        });
        Ok(work::time_polls(ops, Waits::<M>(coroutine)))
    }

    fn populate(&self, count: usize, watch: &Watch) -> Skip {
        let start = Stopwatch::start();
        match suspended::<M>(count) {
            Ok(_adders) => watch.report(start.elapsed()),
            Err(skip) => skip,
        }
    }
}

/// A coroutine as an iterator.
struct Items<T, S: Stack>(Coroutine<(), T, (), S>);

impl<T, S: Stack> Iterator for Items<T, S> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        if self.0.done() {
            return None;
        }
        self.0.resume(()).as_yield()
    }
}

/// Resumed with the address of the context that it is polled with.
type Polled<M> = Coroutine<usize, (), (), <M as Memory>::Stack>;

/// A coroutine as a future. Nothing is pinned in it.
struct Waits<M: Memory>(Polled<M>);

impl<M: Memory> Unpin for Waits<M> {}

impl<M: Memory> Future for Waits<M> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let context = ptr::from_mut(context).expose_provenance();
        match self.0.resume(context) {
            CoroutineResult::Yield(()) => Poll::Pending,
            CoroutineResult::Return(()) => Poll::Ready(()),
        }
    }
}

/// Waits for `future` in a coroutine that was resumed with `context`.
fn wait<F: Future>(other: &Yielder<usize, ()>, mut context: usize, future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        // SAFETY: the one of the poll that has resumed this coroutine, and waits.
        let polled_with = unsafe { &mut *ptr::with_exposed_provenance_mut(context) };
        match future.as_mut().poll(polled_with) {
            Poll::Ready(output) => return output,
            Poll::Pending => context = other.suspend(()),
        }
    }
}

type Adder<M> = Coroutine<u64, u64, (), <M as Memory>::Stack>;

#[inline(always)]
fn yielded<Y, R>(result: CoroutineResult<Y, R>) -> Y {
    result.as_yield().expect("it yields")
}

fn deep_adder<M: Memory>(frames: usize) -> Result<Adder<M>, Skip> {
    Ok(Adder::<M>::with_stack(M::take()?, move |other, mut x| {
        loop {
            x = work::deep(frames, &mut || other.suspend(x + 1));
        }
    }))
}

/// That many adders, each waiting for its second number.
fn suspended<M: Memory>(count: usize) -> Result<Vec<Adder<M>>, Skip> {
    M::check(count)?;
    (0..count)
        .map(|_| {
            let mut adder = Adder::<M>::with_stack(M::take()?, move |other, mut x| {
                loop {
                    x = other.suspend(x + 1);
                }
            });
            yielded(adder.resume(0));
            Ok(adder)
        })
        .collect()
}

/// Ends them without unwinding, which would take longer than all the rest.
fn reset<S: Stack>(adders: &mut [Coroutine<u64, u64, (), S>]) {
    for adder in adders {
        // SAFETY: nothing on an adder's stack needs to be dropped.
        unsafe { adder.force_reset() };
    }
}
