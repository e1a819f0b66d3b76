//! generator.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use generator::{Generator, Gn};

use super::check_mappings;
use crate::{
    clock::Stopwatch,
    contender::{Contender, Outcome, STACK_SIZE, Skip},
    mxcsr::Status,
    population::Watch,
    work::{self, BATCH, Message, Sent, SmallError, time, time_warm},
};

/// The crate counts in words.
const STACK_WORDS: usize = STACK_SIZE / size_of::<usize>();

pub struct Generators;

impl Contender for Generators {
    fn name(&self) -> &'static str {
        "generator"
    }

    fn flat(&self, ops: u64, status: Status) -> Outcome {
        let mut adder = adder();
        let mut x = send(&mut adder, 0);
        let elapsed = status.during(|| time(ops, || x = send(&mut adder, x)));
        assert_eq!(x, ops + 1);
        Ok(elapsed)
    }

    fn message(&self, ops: u64) -> Outcome {
        let mut adder: Generator<Message, Message> =
            Gn::new_scoped_opt(STACK_WORDS, |mut scope| {
                let mut message: Message = scope.get_yield().expect("it was sent one");
                loop {
                    message[0] += 1;
                    message = scope.yield_(message).expect("it was sent one");
                }
            });
        let mut message = send(&mut adder, [0; 32]);
        let elapsed = time(ops, || message = send(&mut adder, message));
        assert_eq!(message[0], ops + 1);
        Ok(elapsed)
    }

    fn deep(&self, frames: usize, ops: u64) -> Outcome {
        let mut adder = deep_adder(frames);
        let mut x = send(&mut adder, 0);
        let elapsed = time(ops, || x = send(&mut adder, x));
        assert_eq!(x, ops + 1);
        Ok(elapsed)
    }

    fn deep_on_both(&self, frames: usize, ops: u64) -> Outcome {
        let mut adder = deep_adder(frames);
        let mut x = send(&mut adder, 0);
        let elapsed = time(ops, || {
            x = work::deep(frames, &mut || send(&mut adder, x));
        });
        assert_eq!(x, ops + 1);
        Ok(elapsed)
    }

    fn ring(&self, size: usize, ops: u64) -> Outcome {
        let mut ring = suspended(size, adder)?;
        let mut x = 0;
        let mut turn = 0;
        let elapsed = time_warm(2 * size as u64, ops, || {
            x = send(&mut ring[turn], x);
            turn += 1;
            if turn == size {
                turn = 0;
            }
        });
        assert_eq!(x, 2 * size as u64 + ops);
        Ok(elapsed)
    }

    fn round_robin(&self, order: &[usize], frames: usize, passes: u64) -> Outcome {
        let mut adders = match frames {
            0 => suspended(order.len(), adder)?,
            _ => suspended(order.len(), || deep_adder(frames))?,
        };
        let mut x = 0;
        let elapsed = time_warm(1, passes, || {
            for &index in order {
                x = send(&mut adders[index], x);
            }
        });
        assert_eq!(x, (1 + passes) * order.len() as u64);
        Ok(elapsed)
    }

    fn pooled(&self, ops: u64) -> Outcome {
        let mut adder = adder_once();
        let mut x = send(&mut adder, 0);
        let elapsed = time(ops, || {
            adder.scoped_init(|mut scope| scope.get_yield().expect("it was sent one") + 1);
            x = send(&mut adder, x);
        });
        assert_eq!(x, ops + 1);
        Ok(elapsed)
    }

    fn fresh(&self, ops: u64) -> Outcome {
        let mut x = 0;
        let elapsed = time(ops, || x = send(&mut adder_once(), x));
        assert_eq!(x, ops);
        Ok(elapsed)
    }

    /// Without giving back the stack.
    fn kill(&self, frames: usize, ops: u64) -> Outcome {
        Ok(work::batches(ops, BATCH)
            .map(|batch| {
                let victims = (0..batch).map(|_| {
                    let mut victim: Generator<u64, u64> =
                        Gn::new_scoped_opt(STACK_WORDS, move |mut scope| {
                            let x = work::owning(frames, &mut || scope.yield_(0));
                            x.expect("it was sent one")
                        });
                    send(&mut victim, 0);
                    victim
                });
                let mut victims = victims.collect::<Vec<_>>();
                let mut remaining = victims.iter_mut();
                time(batch, || remaining.next().expect("one for each").cancel())
            })
            .sum())
    }

    fn throw(&self, ops: u64) -> Outcome {
        let mut catcher: Generator<Sent, u64> = Gn::new_scoped_opt(STACK_WORDS, |mut scope| {
            let mut sent: Sent = scope.get_yield().expect("it was sent one");
            loop {
                sent = scope.yield_(work::caught(sent)).expect("it was sent one");
            }
        });
        let mut x = send(&mut catcher, Ok(0));
        let elapsed = time(ops, || x = send(&mut catcher, Err(Box::new(SmallError(x)))));
        assert_eq!(x, ops);
        Ok(elapsed)
    }

    fn panic(&self, ops: u64) -> Outcome {
        let mut thrower = adder_once();
        let mut x = send(&mut thrower, 0);
        let elapsed = time(ops, || {
            thrower.scoped_init(|mut scope| {
                let x = scope.get_yield().expect("it was sent one");
                resume_unwind(Box::new(SmallError(x)))
            });
            let caught = catch_unwind(AssertUnwindSafe(|| thrower.raw_send(Some(x))));
            let payload = caught.expect_err("it panics");
            x = payload.downcast::<SmallError>().expect("with that").0 + 1;
        });
        assert_eq!(x, ops + 1);
        Ok(elapsed)
    }

    fn item(&self, ops: u64) -> Outcome {
        let mut numbers: Generator<(), u64> = Gn::new_scoped_opt(STACK_WORDS, |mut scope| {
            for number in 0.. {
                scope.yield_with(number);
            }
            generator::done!();
        });
        let mut last = None;
        let elapsed = time(ops, || last = numbers.next());
        assert_eq!(last, Some(ops - 1));
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

/// As `Generator::send`, which is not inlined.
#[inline(always)]
fn send<A, T>(generator: &mut Generator<'_, A, T>, value: A) -> T {
    generator.raw_send(Some(value)).expect("it yields")
}

fn adder() -> Generator<'static, u64, u64> {
    Gn::new_scoped_opt(STACK_WORDS, |mut scope| {
        let mut x = scope.get_yield().expect("it was sent one");
        loop {
            x = scope.yield_(x + 1).expect("it was sent one");
        }
    })
}

fn deep_adder(frames: usize) -> Generator<'static, u64, u64> {
    Gn::new_scoped_opt(STACK_WORDS, move |mut scope| {
        let mut x = scope.get_yield().expect("it was sent one");
        loop {
            x = work::deep(frames, &mut || scope.yield_(x + 1)).expect("it was sent one");
        }
    })
}

fn adder_once() -> Generator<'static, u64, u64> {
    Gn::new_scoped_opt(STACK_WORDS, |mut scope| {
        scope.get_yield().expect("it was sent one") + 1
    })
}

/// That many adders, each waiting for its second number.
fn suspended(
    count: usize,
    adder: impl Fn() -> Generator<'static, u64, u64>,
) -> Result<Vec<Generator<'static, u64, u64>>, Skip> {
    check_mappings(count)?;
    Ok((0..count)
        .map(|_| {
            let mut adder = adder();
            send(&mut adder, 0);
            adder
        })
        .collect())
}
