//! s15: a greenlet that is being killed cannot switch.

use std::{
    cell::{Cell, RefCell},
    panic::{self, AssertUnwindSafe},
    rc::Rc,
};

use greenlet::{Builder, Current, Greenlet, Root, SwitchError, enter};

use crate::{
    support::{
        Number,
        census::{Census, Payload, Word},
        child::child,
        log::{Log, on_drop},
        number,
        panics::{catch, heard},
        unscoped,
    },
    with_each_cargo,
};

/// Starts a greenlet that does `end` when it is killed, and kills it.
fn killed(end: impl FnOnce(&Current<()>, &Greenlet<()>) + 'static) {
    enter(|me: &Root<()>| {
        let main = me.handle();
        let g = Greenlet::new(me, move |me, ()| {
            let thrown = me.switch(&main, ()).unwrap_err();
            assert!(thrown.is_exit());
            end(me, &main);
            Err(thrown)
        });
        me.switch(&g, ()).unwrap();
        let (outcome, heard) = heard(|| me.kill(&g));
        assert_eq!(outcome, Ok(()));
        assert!(g.is_dead());
        assert_eq!(heard, 0, "a panic was heard of");
        let next = Greenlet::new(me, |_, ()| Ok(()));
        me.switch(&next, ()).unwrap();
    });
}

#[test]
fn s15_the_first_switch_is_refused_with_an_exit() {
    let log = Log::new();
    let seen = log.clone();
    killed(move |me, main| {
        assert!(me.switch(main, ()).unwrap_err().is_exit());
        seen.add("refused");
    });
    assert_eq!(log.take(), ["refused"]);
}

#[test]
fn s15_the_message_of_a_refused_switch_comes_back() {
    let census = Rc::new(Census::new());
    let log = Log::new();
    enter(|me: &Root<Word>| {
        let main = me.handle();
        let g = Greenlet::new(me, {
            let (census, log) = (Rc::clone(&census), log.clone());
            move |me, first: Word| {
                assert!(me.switch(&main, first).unwrap_err().is_exit());
                match me.try_switch(&main, Word::new(&census, 2)) {
                    Err(SwitchError::Exiting(word)) => log.add(word.value()),
                    _ => log.add(0),
                }
                Ok(Word::new(&census, 3))
            }
        });
        let first = me.switch(&g, Word::new(&census, 1)).unwrap();
        drop(g);
        assert_eq!(first.value(), 1);
    });
    assert_eq!(log.take(), [2]);
}

#[test]
fn s15_the_message_of_a_refused_switch_that_unwinds_is_dropped() {
    with_each_cargo!(drops_the_message_of_a_switch_that_unwinds);
}

fn drops_the_message_of_a_switch_that_unwinds<C: Payload>() {
    for tries in [false, true] {
        let census = Rc::new(Census::new());
        let sender = Rc::clone(&census);
        killed(move |me, _| {
            let target = Greenlet::new(me, |_, _: C| Ok(()));
            // The first one is refused, the second one unwinds.
            for number in 1.. {
                let message = C::new(&sender, number);
                if tries {
                    drop(me.try_switch(&target, message));
                } else {
                    drop(me.switch(&target, message));
                }
            }
        });
        assert_eq!((census.born(), census.alive()), (2, 0));
    }
}

#[test]
fn s15_a_throw_is_refused_as_well() {
    let log = Log::new();
    let seen = log.clone();
    killed(move |me, main| match me.try_throw(main, Number(4)) {
        Err(SwitchError::Exiting(thrown)) => seen.add(thrown.downcast::<Number>().unwrap().0),
        _ => seen.add(0),
    });
    assert_eq!(log.take(), [4]);
}

#[test]
fn s15_a_switch_to_oneself_or_to_a_new_greenlet_is_refused_as_well() {
    let log = Log::new();
    let seen = log.clone();
    killed(move |me, _| {
        assert!(me.switch(&me.handle(), ()).unwrap_err().is_exit());
        seen.add("refused");
    });
    let seen = log.clone();
    killed(move |me, _| {
        let child = Greenlet::new(me, |_, ()| unreachable!("it does not run"));
        let outcome = me.try_switch(&child, ());
        assert!(matches!(outcome, Err(SwitchError::Exiting(()))));
        seen.add("refused");
    });
    assert_eq!(log.take(), ["refused", "refused"]);
}

#[test]
fn s15_the_second_refused_switch_unwinds_without_the_panic_hook() {
    let log = Log::new();
    let seen = log.clone();
    killed(move |me, main| {
        let _dropped = seen.at_drop("unwound");
        assert!(me.switch(main, ()).unwrap_err().is_exit());
        let _ = me.switch(main, ());
        seen.add("goes on");
    });
    assert_eq!(log.take(), ["unwound"]);
}

#[test]
fn s15_a_loop_that_ignores_every_error_ends() {
    let log = Log::new();
    let seen = log.clone();
    killed(move |me, main| {
        let _dropped = seen.at_drop("unwound");
        loop {
            let _ = me.switch(main, ());
        }
    });
    assert_eq!(log.take(), ["unwound"]);
}

#[test]
fn s15_a_loop_that_ignores_every_error_ends_also_when_killed_in_unwinding() {
    let Some(ended) = child(|| {
        enter(|me: &Root<()>| {
            let main = me.handle();
            let g = Greenlet::new(me, move |me, ()| {
                loop {
                    let _ = me.switch(&main, ());
                }
            });
            me.switch(&g, ()).unwrap();
            let caught = catch(|| {
                let _unwound = on_drop(|| me.kill(&g).unwrap());
                panic!("unwinds")
            });
            assert!(caught.is_err() && g.is_dead());
        });
    }) else {
        return;
    };
    ended.assert_success();
}

#[test]
fn s15_what_catches_the_unwinding_is_unwound_again() {
    let log = Log::new();
    let seen = log.clone();
    killed(move |me, main| {
        for _ in 0..10 {
            let caught = panic::catch_unwind(AssertUnwindSafe(|| {
                let _ = me.switch(main, ());
                seen.add("refused");
                let _ = me.switch(main, ());
            }));
            assert!(caught.is_err());
            seen.add("caught");
        }
    });
    let events = log.take();
    assert_eq!(events[..2], ["refused", "caught"]);
    assert_eq!(events.len(), 11);
}

#[test]
fn s15_a_killed_greenlet_that_catches_every_unwinding_aborts_by_name() {
    let Some(ended) = child(|| {
        enter(|me: &Root<()>| {
            let main = me.handle();
            let build = Builder::new().name("the stubborn");
            let g = build.build(me, move |me, ()| {
                loop {
                    let _ = panic::catch_unwind(AssertUnwindSafe(|| me.switch(&main, ())));
                }
            });
            let g = g.unwrap();
            me.switch(&g, ()).unwrap();
            drop(g);
        });
    }) else {
        return;
    };
    ended.assert_aborted_with(&["the stubborn"]);
}

/// std counts panics, and a panic that is raised and caught within a panic hook makes it count one
/// too few: switches would no longer be refused while that hook's panic unwinds (rule s19).
#[test]
fn s15_a_killed_greenlet_that_switches_in_a_panic_hook_aborts_by_name() {
    thread_local!(static KEPT: RefCell<Option<Greenlet<'static, ()>>> = const { RefCell::new(None) });
    let Some(ended) = child(|| {
        panic::set_hook(Box::new(|_| drop(KEPT.take())));
        unscoped().enter(|me: &Current<()>| {
            let main = me.handle();
            let build = Builder::new().name("the stubborn");
            let g = build.build(me, move |me, ()| {
                loop {
                    let _ = me.switch(&main, ());
                }
            });
            let g = g.unwrap();
            me.switch(&g, ()).unwrap();
            KEPT.set(Some(g));
            panic!("the hook kills it");
        });
    }) else {
        return;
    };
    // A newer std aborts, with its own message, before anything unwinds in a panic hook.
    let by_std = "thread panicked while processing panic";
    let words: &[&str] = if ended.stderr.contains(by_std) {
        &[by_std]
    } else {
        &["the stubborn", "in a panic hook"]
    };
    ended.assert_aborted_with(words);
}

#[test]
#[cfg(unix)] // not on Windows: it gives standard error another file
fn s15_a_killed_greenlet_aborts_also_when_standard_error_is_closed() {
    use std::os::fd::AsRawFd;

    let Some(ended) = child(|| {
        // A pipe without a reader.
        let (reader, writer) = crate::process::pipe();
        drop(reader);
        // SAFETY: both descriptors are open.
        assert!(unsafe { libc::dup2(writer.as_raw_fd(), libc::STDERR_FILENO) } != -1);
        enter(|me: &Root<()>| {
            let main = me.handle();
            let g = Greenlet::new(me, move |me, ()| {
                // More often than the crate tries to unwind it.
                for _ in 0..10_000 {
                    let _ = panic::catch_unwind(AssertUnwindSafe(|| me.switch(&main, ())));
                }
                Ok(())
            });
            me.switch(&g, ()).unwrap();
            drop(g);
        });
    }) else {
        return;
    };
    ended.assert_aborted_with(&[]);
}

#[test]
fn s15_a_dying_greenlet_may_enter_a_scope_of_its_own_and_switch_in_it() {
    let log = Log::new();
    let seen = log.clone();
    killed(move |me, main| {
        assert!(me.switch(main, ()).unwrap_err().is_exit());
        let sum = enter(|inner: &Root<u32>| {
            let root = inner.handle();
            let counts = Greenlet::new(inner, move |me, n: u32| {
                let n = me.switch(&root, n + 1)?;
                Ok(n + 1)
            });
            let n = inner.switch(&counts, 0).unwrap();
            inner.switch(&counts, n).unwrap()
        });
        seen.add(sum);
    });
    assert_eq!(log.take(), [2]);
}

#[test]
fn s15_what_a_dying_greenlet_enters_in_a_destructor_works_too() {
    let log = Log::new();
    let seen = log.clone();
    killed(move |me, main| {
        let seen = seen.clone();
        let _dropped = on_drop(move || {
            enter(|inner: &Root<u32>| {
                let g = Greenlet::new(inner, |_, n: u32| Ok(n + 1));
                seen.add(inner.switch(&g, 1).unwrap());
            });
        });
        let _ = (me, main);
    });
    assert_eq!(log.take(), [2]);
}

#[test]
fn s15_a_dying_greenlet_cannot_leave_from_the_scope_to_the_outside() {
    let log = Log::new();
    let seen = log.clone();
    killed(move |_, main| {
        enter(|inner: &Root<u8>| {
            // The killer waits for the death, so it is busy.
            match inner.try_switch(main, ()) {
                Err(SwitchError::Busy(())) => seen.add("busy"),
                _ => seen.add("left"),
            }
        });
    });
    assert_eq!(log.take(), ["busy"]);
}

/// Kills a greenlet whose destructor enters and does `then` in the root, with a suspended and a
/// new greenlet that were there before.
fn killed_amid(then: impl FnOnce(&Current<'static, ()>, [Greenlet<'static, ()>; 2]) + 'static) {
    unscoped().enter(|me: &Current<()>| {
        let main = me.handle();
        let dying = Greenlet::new(me, {
            let main = main.clone();
            move |me, others: Option<[Greenlet<'static, ()>; 2]>| {
                let _dropped = on_drop(|| unscoped().enter(|root| then(root, others.unwrap())));
                me.switch(&main, ()).map(drop)
            }
        });
        let others = [(); 2].map(|()| {
            let main = main.clone();
            Greenlet::new(me, move |me, ()| me.switch(&main, ()))
        });
        me.switch(&others[0], ()).unwrap();
        me.switch(&dying, Some(others.clone())).unwrap();
        assert_eq!(me.kill(&dying), Ok(()));
        assert!(dying.is_dead());
        // Now they can be resumed.
        for other in others {
            assert!(!other.is_dead());
            me.switch(&other, ()).unwrap();
        }
    });
}

#[test]
fn s15_a_nested_enter_in_a_kill_cannot_switch_to_greenlets_older_than_the_kill() {
    let log = Log::new();
    let seen = log.clone();
    killed_amid(move |root, others| {
        for other in &others {
            let refused = root.try_switch(other, ());
            seen.add(matches!(refused, Err(SwitchError::Busy(()))));
            let refused = root.try_throw(other, Number(1));
            seen.add(matches!(refused, Err(SwitchError::Busy(_))));
        }
    });
    assert_eq!(log.take(), [true; 4]);
}

#[test]
fn s15_a_greenlet_made_during_a_kill_cannot_switch_to_older_ones_and_its_result_comes_back() {
    let log = Log::new();
    let seen = log.clone();
    killed_amid(move |root, others| {
        let helper = Greenlet::new(root, {
            let seen = seen.clone();
            move |me, ()| {
                let refused = me.try_switch(&others[0], ());
                seen.add(matches!(refused, Err(SwitchError::Busy(()))));
                me.handle().set_parent(&others[0]).unwrap();
                Err(Number(1).into())
            }
        });
        seen.add(number(root.switch(&helper, ())) == 1);
    });
    assert_eq!(log.take(), [true; 2]);
}

#[test]
fn s15_after_a_kill_within_a_kill_greenlets_made_between_can_go_on() {
    let log = Log::new();
    let seen = log.clone();
    killed_amid(move |root, _| {
        let (home, helper) = {
            let home = root.handle();
            let waits = home.clone();
            (
                home,
                Greenlet::new(root, move |me, ()| me.switch(&waits, ())),
            )
        };
        root.switch(&helper, ()).unwrap();
        let inner = Greenlet::new(root, {
            let (seen, helper) = (seen.clone(), helper.clone());
            move |me, ()| {
                let _dropped = on_drop(|| {
                    enter(|root: &Root<()>| {
                        let refused = root.try_switch(&helper, ());
                        seen.add(matches!(refused, Err(SwitchError::Busy(()))));
                    });
                });
                me.switch(&home, ())
            }
        });
        root.switch(&inner, ()).unwrap();
        drop(inner);
        seen.add(root.switch(&helper, ()).is_ok());
    });
    assert_eq!(log.take(), [true; 2]);
}

#[test]
fn s15_a_dying_greenlet_can_kill_others() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let main = me.handle();
        let other = Greenlet::new(me, {
            let (log, main) = (log.clone(), main.clone());
            move |me, ()| {
                let _dropped = log.at_drop("other");
                me.switch(&main, ())
            }
        });
        let dying = Greenlet::new(me, {
            let (log, other) = (log.clone(), other.clone());
            move |me, ()| {
                let thrown = me.switch(&main, ()).unwrap_err();
                assert!(me.switch(&main, ()).is_err());
                me.kill(&other).unwrap();
                log.add("dying");
                Err(thrown)
            }
        });
        me.switch(&other, ()).unwrap();
        me.switch(&dying, ()).unwrap();
        me.kill(&dying).unwrap();
        assert!(other.is_dead());
    });
    assert_eq!(log.take(), ["other", "dying"]);
}

#[test]
fn s15_a_greenlet_that_kills_itself_cannot_switch_either() {
    let refused = Rc::new(Cell::new(false));
    let census = Rc::new(Census::new());
    enter(|me: &Root<()>| {
        let main = me.handle();
        let g = Greenlet::new(me, {
            let (refused, census) = (Rc::clone(&refused), Rc::clone(&census));
            move |me, ()| {
                let _held = census.token();
                assert!(me.kill(&me.handle()).is_err());
                let outcome = me.try_switch(&main, ());
                refused.set(matches!(outcome, Err(SwitchError::Exiting(()))));
                loop {
                    let _ = me.switch(&main, ());
                }
            }
        });
        let notice = me.switch(&g, ()).unwrap_err();
        assert!(notice.is_child_exit());
        assert_eq!(census.alive(), 0);
    });
    assert!(refused.get());
}

#[test]
fn s15_a_killed_greenlet_cannot_be_resurrected() {
    // A handle that a dying greenlet leaves behind is one to a dead greenlet.
    let left = Rc::new(RefCell::new(None));
    unscoped().enter(|me: &Current<()>| {
        let main = me.handle();
        let g = Greenlet::new(me, {
            let left = Rc::clone(&left);
            move |me, ()| {
                let outcome = me.switch(&main, ());
                left.replace(Some(me.handle()));
                outcome
            }
        });
        me.switch(&g, ()).unwrap();
        drop(g);
        let left = left.take().unwrap();
        assert!(left.is_dead());
        // A message to it goes to its parent, the sender.
        me.switch(&left, ()).unwrap();
    });
}
