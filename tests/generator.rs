//! Generators: what they yield, when they run, what they borrow, and how they end.

use std::{cell::Cell, error, fmt, mem, panic::panic_any, rc::Rc};

use greenlet::{
    Builder, Child, Current, Generator, Greenlet, KillError, Root, SwitchError, Thrown, Yielder,
    enter,
};

use crate::support::{
    Number,
    census::{Census, Token},
    log::{Log, on_drop},
    number,
    panics::{catch, quietly, text_of},
};

fn count<'e>(me: &Current<'e, ()>, to: u32) -> Generator<'e, u32> {
    Generator::new(me, move |yielder, ()| {
        (0..to).try_for_each(|n| yielder.give(n))
    })
}

#[test]
fn yields_from_any_depth_and_is_fused() {
    fn down(yielder: &Yielder<u32>, n: u32) -> Result<(), Thrown> {
        yielder.give(n)?;
        if n > 0 { down(yielder, n - 1) } else { Ok(()) }
    }
    enter(|me: &Root<()>| {
        let mut numbers = Generator::new(me, |yielder, ()| down(yielder, 2));
        let seen = [(); 5].map(|()| numbers.next());
        assert_eq!(seen, [Some(2), Some(1), Some(0), None, None]);
    });
}

#[test]
fn runs_only_when_it_is_asked() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let log = &log;
        let mut one = Generator::new(me, move |yielder, ()| {
            log.add("runs");
            yielder.give(1)
        });
        assert_eq!(log.take(), [""; 0]);
        assert_eq!(one.next(), Some(1));
        assert_eq!(log.take(), ["runs"]);
    });
}

#[test]
fn borrows_and_mutates_what_outlives_its_enter() {
    let text = String::from("to be or");
    let mut words = 0;
    enter(|me: &Root<()>| {
        let each = Generator::new(me, |yielder, ()| {
            for word in text.split(' ') {
                words += 1;
                yielder.give(word)?;
            }
            Ok(())
        });
        assert!(each.eq(["to", "be", "or"]));
    });
    assert_eq!(words, 3);
}

#[test]
fn takes_an_input_at_each_step() {
    enter(|me: &Root<()>| {
        let mut echo = Generator::new(me, |yielder, mut text: String| {
            while !text.is_empty() {
                text = yielder.give(text.len())?;
            }
            Ok(())
        });
        assert_eq!(echo.resume("four".to_string()).unwrap(), Some(4));
        assert_eq!(echo.resume("seven".to_string()).unwrap(), Some(5));
        assert_eq!(echo.resume(String::new()).unwrap(), None);
        assert_eq!(echo.resume("ignored".to_string()).unwrap(), None);
    });
}

#[test]
fn is_boxed_zipped_and_of_different_types() {
    enter(|me: &Root<()>| {
        let names: Box<dyn Iterator<Item = &str>> = Box::new(Generator::new(me, |yielder, ()| {
            ["a", "b", "c"]
                .iter()
                .try_for_each(|name| yielder.give(*name))
        }));
        let pairs: Vec<_> = names.zip(count(me, 2)).collect();
        assert_eq!(pairs, [("a", 0), ("b", 1)]);
    });
}

#[test]
fn generators_consume_each_other_from_inside() {
    fn permute(yielder: &Yielder<String>, letters: &str) -> Result<(), Thrown> {
        if letters.is_empty() {
            return yielder.give(String::new());
        }
        for (at, first) in letters.char_indices() {
            let rest = [&letters[..at], &letters[at + 1..]].concat();
            let mut orders = Generator::new(yielder, move |yielder, ()| permute(yielder, &rest));
            orders.try_for_each(|order| yielder.give(format!("{first}{order}")))?;
        }
        Ok(())
    }
    enter(|me: &Root<()>| {
        let orders: Vec<_> = Generator::new(me, |yielder, ()| permute(yielder, "abc")).collect();
        assert_eq!(orders, ["abc", "acb", "bac", "bca", "cab", "cba"]);
    });
}

#[test]
fn is_consumed_by_greenlets_of_any_inbox_type() {
    enter(|me: &Root<()>| {
        let mut numbers =
            Generator::new(me, |yielder, ()| (0..3).try_for_each(|n| yielder.give(n)));
        assert_eq!(numbers.next(), Some(0));
        let consumer = Greenlet::borrowing(me, |_, mut numbers: Generator<u32>| {
            assert_eq!(numbers.next(), Some(1));
            assert_eq!(numbers.next(), Some(2));
            Ok(())
        });
        me.switch(&consumer, numbers).unwrap();
    });
}

#[test]
fn its_locals_are_dropped_with_it() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let log = &log;
        let make = || {
            Generator::new(me, move |yielder, ()| {
                let _dropped = log.at_drop("a local");
                yielder.give(1)?;
                unreachable!("nobody asks")
            })
        };
        let mut dropped = make();
        dropped.next();
        drop(dropped);
        assert_eq!(log.take(), ["a local"]);
        let mut forgotten = make();
        forgotten.next();
        mem::forget(forgotten);
        drop(make());
        assert_eq!(log.take(), [""; 0]);
    });
    assert_eq!(log.take(), ["a local"], "the end of the `enter`");
}

#[test]
fn a_generator_that_ignores_its_kill_is_unwound() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let log = &log;
        let mut stubborn = Generator::new(me, move |yielder, ()| {
            let _dropped = log.at_drop("unwound");
            loop {
                let _ignored = yielder.give(1);
            }
        });
        assert_eq!(stubborn.next(), Some(1));
        drop(stubborn);
        assert_eq!(log.take(), ["unwound"]);
    });
}

#[test]
fn does_not_keep_the_greenlet_that_owns_it() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let log = &log;
        let owner = Greenlet::new(me, move |me, ()| {
            let _dropped = log.at_drop("owner");
            let mut numbers = Generator::new(me, move |yielder, ()| {
                let _dropped = log.at_drop("generator");
                yielder.give(1)
            });
            numbers.next();
            me.switch_to_parent(())
        });
        me.switch(&owner, ()).unwrap();
        drop(owner);
        assert_eq!(log.take(), ["generator", "owner"]);
    });
}

#[test]
fn an_error_comes_out_of_resume_and_a_panic_of_both() {
    enter(|me: &Root<()>| {
        let fails = || Generator::<u32>::new(me, |_, ()| Err(Number(1).into()));
        let mut failed = fails();
        assert_eq!(number(failed.resume(())), 1);
        assert_eq!(failed.next(), None);
        let text = catch(|| fails().next()).unwrap_err();
        assert_eq!(text_of(&*text), "a generator failed: number 1");

        let mut panics = Generator::<u32>::new(me, |_, ()| panic!("in a generator"));
        assert_eq!(
            text_of(&*catch(|| panics.next()).unwrap_err()),
            "in a generator"
        );
        assert_eq!(panics.next(), None);
    });
}

#[test]
fn the_consumer_is_busy_during_a_resume() {
    enter(|me: &Root<()>| {
        let main = me.handle();
        let mut tries = Generator::new(me, move |yielder, ()| {
            let refused = yielder.try_switch(&main, ());
            yielder.give(matches!(refused, Err(greenlet::SwitchError::Busy(()))))
        });
        assert_eq!(tries.next(), Some(true));
    });
}

#[test]
fn a_consumer_that_is_killed_while_the_generator_runs_ends_with_it() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let (main, log) = (me.handle(), &log);
        let consumer = Greenlet::new(me, move |me, ()| {
            let _dropped = log.at_drop("consumer");
            let mut leaves = Generator::new(me, move |yielder, ()| {
                let _dropped = log.at_drop("generator");
                // Away from the middle of `next`.
                yielder.switch(&main, ())?;
                yielder.give(1)
            });
            assert_eq!(leaves.next(), None);
            me.switch_to_parent(())
        });
        me.switch(&consumer, ()).unwrap();
        me.kill(&consumer).unwrap();
        let mut ended = log.take();
        ended.sort_unstable();
        assert_eq!(ended, ["consumer", "generator"]);
    });
}

#[test]
fn a_consumer_that_has_killed_itself_has_items_but_may_not_switch() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let log = &log;
        let consumer = Greenlet::new(me, move |me, ()| {
            let mut numbers = count(me, 2);
            assert_eq!(me.kill(&me.handle()), Err(KillError::Itself));
            log.add((
                numbers.next(),
                me.switch_to_parent(()).is_err(),
                numbers.next(),
            ));
            Ok(())
        });
        me.switch(&consumer, ()).unwrap();
        assert!(consumer.is_dead());
    });
    assert_eq!(log.take(), [(Some(0), true, Some(1))]);
}

#[test]
#[cfg(feature = "trace")]
fn arrivals_in_the_consumer_find_its_values() {
    use greenlet::trace;
    greenlet::local! {
        static RESUMES: std::cell::Cell<u32> = std::cell::Cell::new(0);
    }
    let log = Log::new();
    let seen = log.clone();
    trace::set(Some(trace::Tracer::new(move |_| {
        RESUMES.with(|arrivals| {
            arrivals.set(arrivals.get() + 1);
            seen.add(arrivals.get());
        });
    })));
    enter(|me: &Root<()>| assert!(count(me, 2).eq([0, 1])));
    trace::set(None);
    // The function counts on, to the kill that ends it, and so does the consumer. Last
    // comes the one that killed.
    assert_eq!(log.take(), [1, 1, 2, 2, 3, 3, 4, 4]);
}

#[test]
fn a_child_of_the_function_that_ends_later_does_no_harm() {
    enter(|me: &Root<()>| {
        let children = std::cell::RefCell::new(Vec::new());
        let children = &*Box::leak(Box::new(children));
        let mut numbers = Generator::new(me, |yielder, ()| {
            children
                .borrow_mut()
                .push(Greenlet::new(yielder, |_, ()| Ok(())));
            yielder.give(1)?;
            yielder.give(2)
        });
        assert_eq!(numbers.next(), Some(1));
        // It ends in its parent, the generator, which nobody has asked for an item.
        let child = children.borrow_mut().pop().unwrap();
        let _ = catch(|| me.switch(&child, ()));
        let _ = catch(|| numbers.next());
    });
}

#[test]
fn a_builder_gives_it_name_and_stack() {
    enter(|me: &Root<()>| {
        let builder = Builder::new().name("numbers").stack_size(64 * 1024);
        let mut names = Generator::build(builder, me, |yielder, ()| {
            yielder.give(yielder.handle().name().map(ToString::to_string))
        })
        .unwrap();
        assert_eq!(names.next().unwrap().as_deref(), Some("numbers"));
        let bad = Builder::new().name("\0");
        assert!(Generator::<()>::build(bad, me, |_, ()| Ok(())).is_err());
    });
}

#[test]
fn is_dropped_while_the_thread_unwinds() {
    let log = Log::new();
    let caught = catch(|| {
        enter(|me: &Root<()>| {
            let log = &log;
            let mut numbers = Generator::new(me, move |yielder, ()| {
                let _dropped = on_drop(|| log.add("dropped"));
                yielder.give(1)
            });
            numbers.next();
            panic!("out");
        })
    });
    assert!(caught.is_err());
    assert_eq!(log.take(), ["dropped"]);
}

/// A handle to a generator's own greenlet, which the function gives away.
type Handle<'e, I> = std::cell::RefCell<Option<Greenlet<'e, I>>>;

#[test]
fn a_generator_that_another_greenlet_switches_to_yields_to_the_greenlet_that_waits_or_to_none() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let (log, handle) = (&log, &*Box::leak(Box::new(Handle::<()>::default())));
        let main = me.handle();
        let consumer = Greenlet::new(me, move |me, ()| {
            let mut numbers = Generator::new(me, move |yielder, ()| {
                handle.replace(Some(yielder.handle()));
                yielder.switch(&main, ())?;
                yielder.give(1)?;
                // Nobody waits for this one.
                log.add(yielder.give(2).unwrap_err().to_string());
                log.add(yielder.give(3).is_err().to_string());
                Ok(())
            });
            log.add(format!("{:?}", numbers.next()));
            me.switch_to_parent(())?;
            log.add(format!("{:?}", catch(|| numbers.next()).is_err()));
            Ok(())
        });
        me.switch(&consumer, ()).unwrap();
        let generator = handle.take().unwrap();
        assert!(generator.is_active() && consumer.status() == greenlet::Status::Busy);
        me.switch(&generator, ()).unwrap();
        assert_eq!(consumer.status(), greenlet::Status::Suspended);
        // It ends in its parent, the root.
        let lost = me.switch(&generator, ()).unwrap_err();
        assert!(lost.to_string().contains("is dead"), "{lost}");
        me.switch(&consumer, ()).unwrap();
    });
    let gone = "cannot switch: the greenlet is dead";
    assert_eq!(log.take(), ["Some(1)", gone, "true", "false"]);
}

#[test]
fn a_consumer_that_its_generator_kills_ends_first() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let log = &log;
        let consumer = Greenlet::new(me, move |me, ()| {
            let _dropped = log.at_drop("consumer");
            let consumer = me.handle();
            let mut numbers = Generator::new(me, move |yielder, ()| {
                let _dropped = log.at_drop("generator");
                yielder.kill(&consumer).unwrap();
                log.add("killed");
                yielder.give(1)
            });
            assert_eq!(numbers.next(), None);
            assert!(me.is_exiting());
            me.switch_to_parent(())
        });
        let _lost = me.switch(&consumer, ());
        assert!(consumer.is_dead());
    });
    assert_eq!(log.take(), ["consumer", "killed", "generator"]);
}

#[test]
fn an_error_for_its_consumer_ends_the_wait_and_the_generator() {
    let log = Log::new();
    enter(|me: &Root<u32>| {
        let log = &log;
        let consumer = Greenlet::new(me, move |me: &Child<u32, u32>, _| {
            let child = Greenlet::new(me, |_, ()| Err(Number(7).into()));
            let mut numbers = Generator::new(me, move |yielder, ()| {
                let _dropped = log.at_drop("generator");
                // It ends, and its parent, the consumer, waits for an item.
                yielder.with_inbox(|me: &Current<()>| me.switch(&child, ()))?;
                yielder.give(1_u64)
            });
            let error = numbers.resume(()).unwrap_err();
            assert_eq!(number(Err::<(), _>(error)), 7);
            assert_eq!(numbers.next(), None);
            Ok(1)
        });
        assert_eq!(me.switch(&consumer, 0).unwrap(), 1);
    });
    assert_eq!(log.take(), ["generator"]);
}

#[test]
fn items_and_inputs_may_be_large_and_are_dropped_once() {
    let census = Census::new();
    enter(|me: &Root<()>| {
        let token = || (census.token(), [7_u64; 100]);
        let mut echoes = Generator::new(me, |yielder, mut input| {
            loop {
                input = yielder.give(input)?;
            }
        });
        for _ in 0..3 {
            let (_token, numbers) = echoes.resume(token()).unwrap().unwrap();
            assert_eq!(numbers, [7; 100]);
        }
        drop(echoes);
        let mut refused = Generator::new(me, move |yielder, _| yielder.give(token()).map(drop));
        refused.resume(token()).unwrap();
        refused.resume(token()).unwrap();
        assert!(refused.resume(token()).unwrap().is_none());
    });
    assert_eq!(census.alive(), 0);
}

#[test]
fn an_error_for_its_consumer_arrives_also_if_the_killed_generator_panics_twice() {
    #[derive(Debug)]
    struct Counted(#[expect(dead_code, reason = "it counts")] Token);

    impl fmt::Display for Counted {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("counted")
        }
    }

    impl error::Error for Counted {}

    let census = Census::new();
    let token = census.token();
    enter(|me: &Root<()>| {
        let fails = Greenlet::new(me, |_, ()| Err(Counted(token).into()));
        let mut generator = Generator::<u8>::new(me, move |yielder, ()| {
            // The error goes to the root, which stops waiting and kills the generator.
            let _exit = yielder.switch(&fails, ());
            panic_any(on_drop(|| panic!("the payload")))
        });
        let arrived = quietly(|| generator.resume(())).unwrap_err();
        assert!(arrived.downcast_ref::<Counted>().is_some());
    });
    assert_eq!(census.alive(), 0);
}

#[test]
fn a_generator_whose_greenlet_was_killed_has_finished() {
    let census = Census::new();
    let token = || (census.token(), [7_u64; 4]);
    enter(|me: &Root<(Token, [u64; 4])>| {
        let own = Rc::new(Cell::new(None));
        let theirs = Rc::clone(&own);
        let mut killed = Generator::new(me, move |yielder, first: (Token, [u64; 4])| {
            theirs.set(Some(yielder.handle()));
            yielder.give(first.1[0]).map(drop)
        });
        assert_eq!(killed.resume(token()).unwrap(), Some(7));
        assert_eq!(me.kill(&own.take().unwrap()), Ok(()));
        assert!(killed.resume(token()).unwrap_err().is_exit());
        assert!(killed.resume(token()).unwrap().is_none());
    });
    assert_eq!(census.alive(), 0);
}

#[test]
fn a_generator_that_kills_itself_ends_in_its_consumer() {
    enter(|me: &Root<u32>| {
        let consumer = Greenlet::new(me, |me: &Child<(), u32>, ()| {
            let mut returns = Generator::new(me, |yielder, ()| {
                yielder.give(1)?;
                assert_eq!(yielder.kill(&yielder.handle()), Err(KillError::Itself));
                Ok(())
            });
            assert!(returns.by_ref().eq([1]));
            let mut goes_on = Generator::<u32>::new(me, |yielder, ()| {
                assert_eq!(yielder.kill(&yielder.handle()), Err(KillError::Itself));
                loop {
                    let _refused = yielder.give(2);
                }
            });
            assert!(goes_on.resume(()).unwrap_err().is_exit());
            assert!(goes_on.resume(()).unwrap().is_none());
            Ok(3)
        });
        assert_eq!(me.switch(&consumer, ()).unwrap(), 3);
    });
}

#[test]
fn a_generator_that_has_ended_takes_no_message() {
    enter(|me: &Root<u32>| {
        for kills_itself in [true, false] {
            let given = &*Box::leak(Box::new(Cell::new(None)));
            let mut ends = Generator::<(), u32>::new(me, move |yielder, _| {
                let child = Greenlet::new(yielder, |_, ()| Ok(5));
                given.set(Some((yielder.handle(), child)));
                if kills_itself {
                    assert_eq!(yielder.kill(&yielder.handle()), Err(KillError::Itself));
                }
                Ok(())
            });
            assert!(ends.resume(0).unwrap().is_none());
            let (generator, child) = given.take().unwrap();
            assert_eq!(
                me.try_switch(&generator, 6).unwrap_err(),
                SwitchError::Busy(6)
            );
            // Nor a value, which goes on in an error.
            let value = me.switch(&child, ()).unwrap_err().into_value::<u32>();
            assert_eq!(value.unwrap(), 5);
            assert!(generator.is_dead());
        }
    });
}

#[test]
fn an_error_for_its_consumer_arrives_also_if_the_generator_was_killed_meanwhile() {
    enter(|me: &Root<u32>| {
        let main = me.handle();
        let given = &*Box::leak(Box::new(Cell::new(None)));
        let consumer = Greenlet::new(me, move |me: &Child<u32, u32>, _| {
            let fails = Greenlet::new(me, |_, ()| Err(Number(7).into()));
            let mut killed = Generator::<u64>::new(me, move |yielder, ()| {
                given.set(Some((yielder.handle(), fails)));
                yielder.switch(&main, 0)
            });
            assert_eq!(number(killed.resume(())), 7);
            Ok(1)
        });
        assert_eq!(me.switch(&consumer, 0).unwrap(), 0);
        let (generator, fails) = given.take().unwrap();
        me.kill(&generator).unwrap();
        assert_eq!(me.switch(&fails, ()).unwrap(), 1);
    });
}

#[test]
fn a_generator_that_resumes_itself_is_busy() {
    let census = Census::new();
    let token = || (census.token(), [7_u64; 4]);
    enter(|me: &Root<()>| {
        let (own, handle) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(None)));
        let (its_own, its_handle) = (Rc::clone(&own), Rc::clone(&handle));
        let mut selfish = Generator::new(me, move |yielder, _: (Token, [u64; 4])| {
            its_handle.set(Some(yielder.handle()));
            drop(yielder.give("first")?);
            // Switched to, not resumed.
            let mut generator: Generator<&str, _> = its_own.take().unwrap();
            let refusal = generator.resume(token()).unwrap_err();
            assert_eq!(refusal.to_string(), SwitchError::Busy(()).to_string());
            Ok(())
        });
        assert_eq!(selfish.resume(token()).unwrap(), Some("first"));
        own.set(Some(selfish));
        let generator = handle.take().unwrap();
        me.switch(&generator, token()).unwrap_err();
        assert!(generator.is_dead());
    });
    assert_eq!(census.alive(), 0);
}

#[test]
fn items_that_a_killed_generator_cannot_give_are_dropped() {
    let census = Census::new();
    enter(|me: &Root<()>| {
        let token = || census.token();
        let mut stubborn = Generator::new(me, move |yielder, ()| {
            loop {
                let _refused = yielder.give(token());
            }
        });
        assert!(stubborn.next().is_some());
        // The first refusal is an error, the second unwinds.
        drop(stubborn);
    });
    assert_eq!(census.alive(), 0);
}

#[test]
fn a_yielder_yields_in_its_own_greenlet_only() {
    enter(|me: &Root<()>| {
        let mut numbers = Generator::new(me, |yielder: &Yielder<u32>, ()| {
            enter(|inner: &Root<()>| {
                assert!(yielder.give(1).is_err());
                let other = Greenlet::new(inner, |_, ()| {
                    assert!(yielder.give(2).is_err());
                    Ok(())
                });
                inner.switch(&other, ())
            })?;
            yielder.give(3)
        });
        assert!(numbers.by_ref().eq([3]));
    });
}

#[test]
fn is_consumed_outside_every_greenlet() {
    let unscoped = crate::support::unscoped();
    let mut numbers = unscoped.enter(|me: &Current<()>| count(me, 3));
    assert_eq!(numbers.next(), Some(0));
    enter(|_: &Root<()>| assert_eq!(numbers.next(), Some(1)));
    assert!(numbers.eq([2]));
}
