//! This crate.

use std::{
    cell::OnceCell,
    future,
    hint::black_box,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    thread,
};

use greenlet::{Builder, Current, Generator, Greenlet, Root, Stackful, Thrown, enter};

use crate::{
    clock::Stopwatch,
    contender::{Contender, Outcome, STACK_SIZE, Skip},
    mxcsr::Status,
    population::Watch,
    work::{self, BATCH, Message, SmallError, time, time_warm},
    workload::FRESH,
};

pub const NAME: &str = "greenlet";
pub const NAME_WITH_FP_CONTROL: &str = "greenlet with fp-control";

pub struct Greenlets;

impl From<Thrown> for Skip {
    fn from(thrown: Thrown) -> Self {
        Self::because(thrown)
    }
}

impl Contender for Greenlets {
    fn name(&self) -> &'static str {
        NAME
    }

    fn flat(&self, ops: u64, status: Status) -> Outcome {
        enter(|me| {
            let main = me.handle();
            let adder = Greenlet::new(me, move |me, mut x: u64| {
                loop {
                    x = me.switch(&main, x + 1)?;
                }
            });
            let mut x = me.switch(&adder, 0)?;
            let elapsed =
                status.during(|| time(ops, || x = me.switch(&adder, x).expect("it answers")));
            assert_eq!(x, ops + 1);
            Ok(elapsed)
        })
    }

    fn message(&self, ops: u64) -> Outcome {
        enter(|me| {
            let main = me.handle();
            let adder = Greenlet::new(me, move |me, mut message: Message| {
                loop {
                    message[0] += 1;
                    message = me.switch(&main, message)?;
                }
            });
            let mut message = me.switch(&adder, [0; 32])?;
            let elapsed = time(ops, || {
                message = me.switch(&adder, message).expect("it answers");
            });
            assert_eq!(message[0], ops + 1);
            Ok(elapsed)
        })
    }

    fn deep(&self, frames: usize, ops: u64) -> Outcome {
        enter(|me| {
            let adder = deep_adder(me, frames)?;
            let mut x = me.switch(&adder, 0)?;
            let elapsed = time(ops, || x = me.switch(&adder, x).expect("it answers"));
            assert_eq!(x, ops + 1);
            Ok(elapsed)
        })
    }

    fn deep_on_both(&self, frames: usize, ops: u64) -> Outcome {
        enter(|me| {
            let adder = deep_adder(me, frames)?;
            let mut x = me.switch(&adder, 0)?;
            let elapsed = time(ops, || {
                x = work::deep(frames, &mut || me.switch(&adder, x)).expect("it answers");
            });
            assert_eq!(x, ops + 1);
            Ok(elapsed)
        })
    }

    fn ring(&self, size: usize, ops: u64) -> Outcome {
        enter(|me| {
            let all = Rc::new(OnceCell::<Vec<Greenlet<u64>>>::new());
            let ring = (0..size).map(|index| {
                let main = me.handle();
                let all = Rc::clone(&all);
                Greenlet::new(me, move |me, _: u64| {
                    let mut hops = me.switch(&main, 0)?;
                    let ring = all.get().expect("set before anybody is switched to again");
                    let next = &ring[(index + 1) % ring.len()];
                    loop {
                        hops = match hops.checked_sub(1) {
                            Some(left) => me.switch(next, left)?,
                            None => me.switch(&main, 0)?,
                        };
                    }
                })
            });
            let ring = all.get_or_init(|| ring.collect());
            for member in ring {
                me.switch(member, 0)?;
            }
            me.switch(&ring[0], 2 * size as u64)?;
            let elapsed = time(1, || {
                me.switch(&ring[0], ops).expect("it answers");
            });
            for member in ring {
                me.kill(member).expect("it dies");
            }
            Ok(elapsed)
        })
    }

    fn round_robin(&self, order: &[usize], frames: usize, passes: u64) -> Outcome {
        enter(|me| {
            let adders = match frames {
                0 => suspended(me, order.len())?,
                _ => order
                    .iter()
                    .map(|_| {
                        let adder = deep_adder(me, frames)?;
                        me.switch(&adder, 0)?;
                        Ok(adder)
                    })
                    .collect::<Result<Vec<_>, Skip>>()?,
            };
            let mut x = 0;
            let elapsed = time_warm(1, passes, || {
                for &index in order {
                    x = me.switch(&adders[index], x).expect("it answers");
                }
            });
            assert_eq!(x, (1 + passes) * order.len() as u64);
            Ok(elapsed)
        })
    }

    fn pooled(&self, ops: u64) -> Outcome {
        enter(|me| {
            let mut x = 0;
            let elapsed = time(ops, || {
                let adder = Greenlet::new(me, |_, x: u64| Ok(x + 1));
                x = me.switch(&adder, x).expect("it returns");
            });
            assert_eq!(x, ops);
            Ok(elapsed)
        })
    }

    /// A thread begins with an empty pool, and nobody finishes before all have started: so every
    /// stack is new. The thread's end gives them back.
    fn fresh(&self, ops: u64) -> Outcome {
        work::batches(ops, FRESH)
            .map(|batch| {
                let start = Stopwatch::start();
                thread::spawn(move || {
                    enter(|me| {
                        for adder in suspended(me, batch as usize)? {
                            me.switch(&adder, FINISH)?;
                        }
                        Ok::<(), Skip>(())
                    })
                })
                .join()
                .expect("nothing panics")?;
                Ok(start.elapsed())
            })
            .sum()
    }

    fn kill(&self, frames: usize, ops: u64) -> Outcome {
        enter(|me| {
            work::batches(ops, BATCH)
                .map(|batch| {
                    let victims = (0..batch).map(|_| {
                        let main = me.handle();
                        let victim = Greenlet::new(me, move |me, x: u64| {
                            work::owning(frames, &mut || me.switch(&main, x))
                        });
                        me.switch(&victim, 0)?;
                        Ok(victim)
                    });
                    let mut victims = victims.collect::<Result<Vec<_>, Thrown>>()?.into_iter();
                    Ok(time(batch, || {
                        let victim = victims.next().expect("one for each");
                        me.kill(&victim).expect("it dies");
                    }))
                })
                .sum()
        })
    }

    fn throw(&self, ops: u64) -> Outcome {
        enter(|me| {
            let main = me.handle();
            let catcher = Greenlet::new(me, move |me, mut x: u64| {
                loop {
                    x = match me.switch(&main, x) {
                        Ok(x) => x,
                        Err(thrown) => thrown.downcast::<SmallError>()?.0 + 1,
                    };
                }
            });
            let mut x = me.switch(&catcher, 0)?;
            let elapsed = time(ops, || {
                x = me.throw(&catcher, SmallError(x)).expect("it answers");
            });
            assert_eq!(x, ops);
            Ok(elapsed)
        })
    }

    fn panic(&self, ops: u64) -> Outcome {
        enter(|me: &Root<u64>| {
            let mut x = 0;
            let elapsed = time(ops, || {
                let thrower = Greenlet::new(me, |_, x| resume_unwind(Box::new(SmallError(x))));
                let caught = catch_unwind(AssertUnwindSafe(|| me.switch(&thrower, x)));
                let payload = caught.expect_err("it panics");
                x = payload.downcast::<SmallError>().expect("with that").0 + 1;
            });
            assert_eq!(x, ops);
            Ok(elapsed)
        })
    }

    fn enter(&self, ops: u64) -> Outcome {
        Ok(time(ops, || {
            enter(|me: &Root<u64>| {
                black_box(me);
            });
        }))
    }

    fn item(&self, ops: u64) -> Outcome {
        enter(|me: &Root<()>| {
            let mut numbers = Generator::new(me, |yielder, ()| {
                (0_u64..).try_for_each(|number| yielder.give(number))
            });
            let mut last = None;
            let elapsed = time(ops, || last = numbers.next());
            assert_eq!(last, Some(ops - 1));
            Ok(elapsed)
        })
    }

    fn poll(&self, frames: usize, ops: u64) -> Outcome {
        enter(|me: &Root<()>| {
            let waits = Stackful::new(me, move |awaiter| {
                work::deep(frames, &mut || awaiter.wait(future::pending::<()>()));
            });
            Ok(work::time_polls(ops, waits))
        })
    }

    fn populate(&self, count: usize, watch: &Watch) -> Skip {
        enter(|me| {
            let start = Stopwatch::start();
            match suspended(me, count) {
                Ok(_adders) => watch.report(start.elapsed()),
                Err(skip) => skip,
            }
        })
    }
}

fn deep_adder<'e>(me: &Current<'e, u64>, frames: usize) -> Result<Greenlet<'e, u64>, Skip> {
    let main = me.handle();
    Builder::new()
        .stack_size(STACK_SIZE)
        .build(me, move |me, mut x: u64| {
            loop {
                x = work::deep(frames, &mut || me.switch(&main, x + 1))?;
            }
        })
        .map_err(Skip::because)
}

/// Told to one of `suspended`, it returns.
const FINISH: u64 = u64::MAX;

/// That many adders, each on a stack of its own and waiting for its second number.
fn suspended<'e>(me: &Current<'e, u64>, count: usize) -> Result<Vec<Greenlet<'e, u64>>, Skip> {
    (0..count)
        .map(|_| {
            let main = me.handle();
            let adder = Builder::new()
                .stack_size(STACK_SIZE)
                .build(me, move |me, mut x: u64| {
                    while x != FINISH {
                        x = me.switch(&main, x + 1)?;
                    }
                    Ok(x)
                })
                .map_err(Skip::because)?;
            me.switch(&adder, 0)?;
            Ok(adder)
        })
        .collect()
}
