//! Wasmtime's fiber crate, which calls itself internal.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use wasmtime_internal_fiber::{Fiber, FiberStack, Suspend};

use super::check_mappings;
use crate::{
    clock::Stopwatch,
    contender::{Contender, Outcome, STACK_SIZE, Skip},
    mxcsr::Status,
    population::Watch,
    work::{self, Message, Sent, SmallError, time, time_warm},
};

pub struct Fibers;

impl Contender for Fibers {
    fn name(&self) -> &'static str {
        "wasmtime fiber"
    }

    fn flat(&self, ops: u64, status: Status) -> Outcome {
        let adder = adder()?;
        let mut x = yielded(adder.resume(0));
        let elapsed = status.during(|| time(ops, || x = yielded(adder.resume(x))));
        assert_eq!(x, ops + 1);
        finish(adder);
        Ok(elapsed)
    }

    fn message(&self, ops: u64) -> Outcome {
        let adder = fiber(
            stack()?,
            |mut message, other: &mut Suspend<Message, Message, Message>| {
                while message[0] != FINISH {
                    message[0] += 1;
                    message = other.suspend(message);
                }
                message
            },
        )?;
        let mut message = yielded(adder.resume([0; 32]));
        let elapsed = time(ops, || message = yielded(adder.resume(message)));
        assert_eq!(message[0], ops + 1);
        adder.resume([FINISH; 32]).expect("it returns");
        Ok(elapsed)
    }

    fn deep(&self, frames: usize, ops: u64) -> Outcome {
        let adder = deep_adder(frames)?;
        let mut x = yielded(adder.resume(0));
        let elapsed = time(ops, || x = yielded(adder.resume(x)));
        assert_eq!(x, ops + 1);
        finish(adder);
        Ok(elapsed)
    }

    fn deep_on_both(&self, frames: usize, ops: u64) -> Outcome {
        let adder = deep_adder(frames)?;
        let mut x = yielded(adder.resume(0));
        let elapsed = time(ops, || {
            x = work::deep(frames, &mut || yielded(adder.resume(x)));
        });
        assert_eq!(x, ops + 1);
        finish(adder);
        Ok(elapsed)
    }

    fn ring(&self, size: usize, ops: u64) -> Outcome {
        let ring = suspended(size, adder)?;
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
        ring.into_iter().for_each(finish);
        Ok(elapsed)
    }

    fn round_robin(&self, order: &[usize], frames: usize, passes: u64) -> Outcome {
        let adders = match frames {
            0 => suspended(order.len(), adder)?,
            _ => suspended(order.len(), || deep_adder(frames))?,
        };
        let mut x = 0;
        let elapsed = time_warm(1, passes, || {
            for &index in order {
                x = yielded(adders[index].resume(x));
            }
        });
        assert_eq!(x, (1 + passes) * order.len() as u64);
        adders.into_iter().for_each(finish);
        Ok(elapsed)
    }

    fn pooled(&self, ops: u64) -> Outcome {
        let mut kept = Some(stack()?);
        let mut x = 0;
        let elapsed = time(ops, || {
            let stack = kept.take().expect("it was put back");
            let adder = adder_once(stack).expect("there is memory");
            x = adder.resume(x).expect("it returns");
            kept = Some(adder.into_stack());
        });
        assert_eq!(x, ops);
        Ok(elapsed)
    }

    fn fresh(&self, ops: u64) -> Outcome {
        let mut x = 0;
        let elapsed = time(ops, || {
            let adder = stack().and_then(adder_once).expect("there is memory");
            x = adder.resume(x).expect("it returns");
        });
        assert_eq!(x, ops);
        Ok(elapsed)
    }

    fn throw(&self, ops: u64) -> Outcome {
        let catcher = fiber(stack()?, |mut sent, other: &mut Suspend<Sent, u64, u64>| {
            while !matches!(sent, Ok(FINISH)) {
                sent = other.suspend(work::caught(sent));
            }
            FINISH
        })?;
        let mut x = yielded(catcher.resume(Ok(0)));
        let elapsed = time(ops, || {
            x = yielded(catcher.resume(Err(Box::new(SmallError(x)))));
        });
        assert_eq!(x, ops);
        catcher.resume(Ok(FINISH)).expect("it returns");
        Ok(elapsed)
    }

    fn panic(&self, ops: u64) -> Outcome {
        let mut kept = Some(stack()?);
        let mut x = 0;
        let elapsed = time(ops, || {
            let stack = kept.take().expect("it was put back");
            let thrower = fiber(stack, |x, _: &mut Suspend<u64, u64, u64>| {
                resume_unwind(Box::new(SmallError(x)))
            });
            let thrower = thrower.expect("there is memory");
            let caught = catch_unwind(AssertUnwindSafe(|| thrower.resume(x)));
            let payload = caught.expect_err("it panics");
            x = payload.downcast::<SmallError>().expect("with that").0 + 1;
            kept = Some(thrower.into_stack());
        });
        assert_eq!(x, ops);
        Ok(elapsed)
    }

    fn populate(&self, count: usize, watch: &Watch) -> Skip {
        let start = Stopwatch::start();
        match suspended(count, adder) {
            Ok(_adders) => watch.report(start.elapsed()),
            Err(skip) => skip,
        }
    }
}

/// A fiber must have finished when it is dropped; told this, it does.
const FINISH: u64 = u64::MAX;

type Adder = Fiber<'static, u64, u64, u64>;

fn finish(adder: Adder) {
    adder.resume(FINISH).expect("it returns");
}

#[inline(always)]
fn yielded<R, Y>(result: Result<R, Y>) -> Y {
    result.err().expect("it yields")
}

fn stack() -> Result<FiberStack, Skip> {
    FiberStack::new(STACK_SIZE, false).map_err(Skip::because)
}

fn fiber<I, Y, R>(
    stack: FiberStack,
    body: impl FnOnce(I, &mut Suspend<I, Y, R>) -> R + 'static,
) -> Result<Fiber<'static, I, Y, R>, Skip> {
    Fiber::new(stack, body).map_err(|(error, _)| Skip::because(error))
}

fn adder() -> Result<Adder, Skip> {
    fiber(stack()?, |mut x, other| {
        while x != FINISH {
            x = other.suspend(x + 1);
        }
        x
    })
}

fn deep_adder(frames: usize) -> Result<Adder, Skip> {
    fiber(stack()?, move |mut x, other| {
        while x != FINISH {
            x = work::deep(frames, &mut || other.suspend(x + 1));
        }
        x
    })
}

fn adder_once(stack: FiberStack) -> Result<Adder, Skip> {
    fiber(stack, |x, _| x + 1)
}

/// That many adders, each waiting for its second number.
fn suspended(count: usize, adder: impl Fn() -> Result<Adder, Skip>) -> Result<Vec<Adder>, Skip> {
    check_mappings(count)?;
    (0..count)
        .map(|_| {
            let adder = adder()?;
            yielded(adder.resume(0));
            Ok(adder)
        })
        .collect()
}
