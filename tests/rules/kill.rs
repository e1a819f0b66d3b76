//! s14: kills. s16: what comes out of a killed greenlet. s17: killing parent, killer, oneself.

use std::{cell::RefCell, rc::Rc};

use greenlet::{Child, Greenlet, GreenletExit, KillError, Root, WeakGreenlet, enter, local};

use crate::{
    support::{
        Number, assert_child_exit,
        census::{Census, Payload},
        is_new,
        log::{Log, OnDrop, on_drop},
        number,
        panics::heard,
        run_without_handles, suspended,
    },
    with_each_cargo,
};

#[test]
fn s14_dropping_the_last_handle_kills_a_suspended_greenlet_within_the_drop() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let main = me.handle();
        let g = Greenlet::new(me, {
            let log = log.clone();
            move |me, ()| {
                let _outer = log.at_drop("outer local");
                let _inner = log.at_drop("inner local");
                let thrown = me.switch(&main, ()).unwrap_err();
                assert!(thrown.is_exit());
                assert_eq!(thrown.downcast_ref(), Some(&GreenletExit));
                log.add("exit");
                Err(thrown)
            }
        });
        me.switch(&g, ()).unwrap();
        let clone = g.clone();
        drop(g);
        assert_eq!(log.take(), [""; 0], "a handle is left");
        drop(clone);
        log.add("the drop is over");
    });
    assert_eq!(
        log.take(),
        ["exit", "inner local", "outer local", "the drop is over"]
    );
}

#[test]
fn s14_control_comes_back_to_the_dropper_whatever_the_parent_is() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let victim = suspended(me, &log, "victim");
        let dropper = Greenlet::new(me, {
            let log = log.clone();
            move |_, ()| {
                drop(victim);
                log.add("the dropper goes on");
                Ok(())
            }
        });
        me.switch(&dropper, ()).unwrap();
        log.add("main");
    });
    assert_eq!(log.take(), ["victim", "the dropper goes on", "main"]);
}

#[test]
fn s14_the_parent_receives_nothing_when_a_child_is_killed() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let parent = suspended(me, &log, "parent");
        let victim = suspended(me, &log, "victim");
        victim.set_parent(&parent).unwrap();
        me.kill(&victim).unwrap();
        assert_eq!(log.take(), ["victim"]);
        assert!(parent.is_active() && victim.is_dead());
    });
}

#[test]
fn s14_greenlets_end_in_the_order_in_which_handles_are_dropped() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let first = suspended(me, &log, "first");
        let second = suspended(me, &log, "second");
        let third = suspended(me, &log, "third");
        drop(second);
        drop(third);
        drop(first);
    });
    assert_eq!(log.take(), ["second", "third", "first"]);
}

#[test]
fn s14_dropping_a_new_greenlet_drops_its_body_without_running_it() {
    fn check<T: Payload>() {
        let census = Census::new();
        enter(|me: &Root<()>| {
            let held = T::new(&census, 0);
            let g = Greenlet::new(me, move |_, ()| {
                drop(held);
                unreachable!("it does not run")
            });
            assert_eq!(census.alive(), 1);
            drop(g);
            assert_eq!(census.alive(), 0);
        });
    }
    with_each_cargo!(check);
}

#[test]
fn s14_dropping_a_dead_greenlet_runs_nothing() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let g = suspended(me, &log, "local");
        me.switch(&g, ()).unwrap();
        assert_eq!(log.take(), ["local"]);
        drop(g);
        assert_eq!(log.take(), [""; 0]);
    });
}

#[test]
fn s14_kill_does_the_same_while_handles_remain() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let g = suspended(me, &log, "local");
        me.kill(&g).unwrap();
        assert_eq!(log.take(), ["local"]);
        assert!(g.is_dead());
        me.kill(&g).unwrap();
        assert_eq!(log.take(), [""; 0]);
    });
}

#[test]
fn s14_kill_of_a_new_greenlet_drops_its_body_without_running_it() {
    let census = Census::new();
    enter(|me: &Root<()>| {
        let token = census.token();
        let g = Greenlet::new(me, move |_, ()| {
            drop(token);
            unreachable!("it does not run")
        });
        assert!(is_new(&g));
        me.kill(&g).unwrap();
        assert!(g.is_dead());
        assert_eq!(census.alive(), 0);
    });
}

#[test]
fn s14_a_busy_greenlet_is_killed_from_the_root_on_its_stack() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let main = me.handle();
        let g = Greenlet::new(me, {
            let log = log.clone();
            move |me, ()| {
                let _outer = log.at_drop("outer");
                let inner = enter(|inner: &Root<u8>| {
                    let _inner = log.at_drop("inner");
                    inner.switch(&main, ())
                });
                assert!(inner.unwrap_err().is_exit());
                assert!(me.switch(&main, ()).unwrap_err().is_exit());
                Ok(())
            }
        });
        me.switch(&g, ()).unwrap();
        assert!(g.is_active());
        drop(g);
        assert_eq!(log.take(), ["inner", "outer"]);
    });
}

#[test]
fn s14_messages_of_a_killed_greenlet_are_dropped() {
    fn check<T: Payload>() {
        let census = Census::new();
        enter(|me: &Root<T>| {
            let main = me.handle();
            let g = Greenlet::new(me, move |me, first: T| {
                let second = me.switch(&main, first)?;
                let _kept = second;
                let back = me.switch(&main, _kept)?;
                Ok(back)
            });
            let first = me.switch(&g, T::new(&census, 1)).unwrap();
            let second = me.switch(&g, T::new(&census, 2)).unwrap();
            drop(g);
            assert_eq!((first.value(), second.value()), (1, 2));
            assert_eq!(census.alive(), 2);
        });
    }
    with_each_cargo!(check);
}

#[test]
fn s16_a_value_error_or_panic_out_of_a_killed_greenlet_is_discarded() {
    fn check<T: Payload>() {
        let census = Rc::new(Census::new());
        enter(|me: &Root<Option<T>>| {
            for end in 0..3 {
                let main = me.handle();
                let census = Rc::clone(&census);
                let g = Greenlet::new(me, move |me, ()| {
                    assert!(me.switch(&main, None).unwrap_err().is_exit());
                    match end {
                        0 => Ok(Some(T::new(&census, 1))),
                        1 => Err(Number(2).into()),
                        _ => {
                            let _unwound = T::new(&census, 3);
                            panic!("discarded")
                        }
                    }
                });
                assert!(me.switch(&g, ()).unwrap().is_none());
                let ((), heard) = heard(|| drop(g));
                assert_eq!(heard, usize::from(end == 2), "what the hook heard of");
                let next = Greenlet::new(me, |_, ()| Ok(None));
                assert!(me.switch(&next, ()).unwrap().is_none());
            }
        });
    }
    with_each_cargo!(check);
}

#[test]
fn s16_a_payload_that_panics_when_it_is_dropped_is_discarded_too() {
    struct Bomb(u32);
    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 > 0 {
                std::panic::panic_any(Bomb(self.0 - 1));
            }
        }
    }
    enter(|me: &Root<()>| {
        let main = me.handle();
        let g = Greenlet::new(me, move |me, ()| {
            me.switch(&main, ()).unwrap_err();
            std::panic::panic_any(Bomb(3))
        });
        me.switch(&g, ()).unwrap();
        let (outcome, heard) = heard(|| me.kill(&g));
        assert_eq!((outcome, heard), (Ok(()), 4));
        assert!(g.is_dead());
    });
}

#[test]
fn s16_a_local_that_panics_when_it_is_dropped_in_a_kill_does_not_keep_the_others_from_it() {
    local! {
        static BOMB: RefCell<Vec<OnDrop<fn()>>> = RefCell::default();
    }
    let census = Rc::new(Census::new());
    enter(|me: &Root<()>| {
        let main = me.handle();
        let held = Rc::clone(&census);
        let g = Greenlet::new(me, move |me, ()| {
            BOMB.with(|bombs| bombs.borrow_mut().push(on_drop(|| panic!("discarded"))));
            let _first = held.token();
            let _bomb = on_drop(|| panic!("discarded"));
            let _last = held.token();
            me.switch(&main, ())
        });
        me.switch(&g, ()).unwrap();
        let (outcome, heard) = heard(|| me.kill(&g));
        assert_eq!((outcome, heard), (Ok(()), 2));
        assert!(g.is_dead());
        assert_eq!((census.born(), census.alive()), (2, 0));
        me.switch(&Greenlet::new(me, |_, ()| Ok(())), ()).unwrap();
    });
}

#[test]
fn s16_a_body_that_panics_when_it_is_dropped_does_not_disturb_the_dropper() {
    enter(|me: &Root<()>| {
        let bomb = on_drop(|| panic!("discarded"));
        let g = Greenlet::new(me, move |_, ()| {
            drop(bomb);
            Ok(())
        });
        let ((), heard) = heard(|| drop(g));
        assert_eq!(heard, 1);
        let next = Greenlet::new(me, |_, ()| Ok(()));
        me.switch(&next, ()).unwrap();
    });
}

#[test]
fn s17_a_greenlet_can_kill_its_parent() {
    let log = Log::new();
    enter(|me: &Root<u32>| {
        let slot = Rc::new(RefCell::new(None::<Greenlet<u32>>));
        let parent = Greenlet::new(me, {
            let (slot, log) = (Rc::clone(&slot), log.clone());
            move |me: &Child<u32, _>, n: u32| {
                let _dropped = log.at_drop("parent");
                let child = Greenlet::new(me, {
                    let log = log.clone();
                    move |me, n: u32| {
                        me.kill(slot.borrow().as_ref().unwrap()).unwrap();
                        log.add("child goes on");
                        Ok(n + 1)
                    }
                });
                me.switch(&child, n)
            }
        });
        slot.replace(Some(parent.clone()));
        // The value goes to the first live ancestor.
        assert_eq!(me.switch(&parent, 1).unwrap(), 2);
        assert!(parent.is_dead());
        assert_eq!(log.take(), ["parent", "child goes on"]);
        slot.take();
    });
}

#[test]
fn s17_a_greenlet_that_is_being_killed_can_kill_its_killer() {
    let log = Log::new();
    enter(|me: &Root<u32>| {
        let slot = Rc::new(RefCell::new(None::<Greenlet<()>>));
        let main = me.handle();
        let victim = Greenlet::new(me, {
            let (slot, log) = (Rc::clone(&slot), log.clone());
            move |me, ()| {
                let _dropped = log.at_drop("victim");
                assert!(me.switch(&main, 1).unwrap_err().is_exit());
                me.kill(slot.borrow().as_ref().unwrap()).unwrap();
                log.add("the killer is dead");
                Ok(7)
            }
        });
        assert_eq!(me.switch(&victim, ()).unwrap(), 1);
        let killer = Greenlet::new(me, {
            let (victim, log) = (victim.clone(), log.clone());
            let main = me.handle();
            move |me, ()| {
                let _dropped = log.at_drop("killer");
                assert_eq!(me.kill(&victim), Err(KillError::Later));
                log.add("the kill is interrupted");
                assert!(me.switch(&main, 2).unwrap_err().is_exit());
                Err(Number(3).into())
            }
        });
        slot.replace(Some(killer.clone()));
        // No kill waits for the victim any more, so its result goes to its parent as usual.
        assert_eq!(me.switch(&killer, ()).unwrap(), 7);
        assert!(killer.is_dead() && victim.is_dead());
        slot.take();
    });
    assert_eq!(
        log.take(),
        [
            "the kill is interrupted",
            "killer",
            "the killer is dead",
            "victim"
        ]
    );
}

#[test]
fn s17_killing_oneself_is_an_error_and_ends_at_the_bodys_return() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let main = me.handle();
        let g = Greenlet::new(me, {
            let log = log.clone();
            move |me, ()| {
                let _dropped = log.at_drop("local");
                assert_eq!(me.kill(&me.handle()), Err(KillError::Itself));
                assert!(me.handle().is_active());
                log.add("goes on");
                let thrown = me.switch(&main, ()).unwrap_err();
                assert!(thrown.is_exit());
                Err(thrown)
            }
        });
        assert_child_exit(me.switch(&g, ()));
        assert!(g.is_dead());
    });
    assert_eq!(log.take(), ["goes on", "local"]);
}

#[test]
fn s17_killing_the_greenlet_that_one_is_a_root_on_tells_both() {
    enter(|me: &Root<()>| {
        let main = me.handle();
        let g = Greenlet::new(me, move |me, ()| {
            let outer = me.handle();
            enter(|inner: &Root<u8>| {
                assert_eq!(inner.kill(&outer), Err(KillError::Later));
                assert!(inner.switch(&main, ()).unwrap_err().is_exit());
            });
            let thrown = me.switch(&main, ()).unwrap_err();
            assert!(thrown.is_exit());
            Err(thrown)
        });
        assert_child_exit(me.switch(&g, ()));
    });
}

#[test]
fn s17_the_running_greenlet_without_a_handle_is_freed_when_it_is_left() {
    let census = Rc::new(Census::new());
    let log = Log::new();
    enter(|me: &Root<()>| {
        let main = me.handle();
        let outcome = run_without_handles(me, {
            let (census, log) = (Rc::clone(&census), log.clone());
            move |me| {
                let _held = census.token();
                let _dropped = log.at_drop("killed");
                log.add("still runs");
                let thrown = me.switch(&main, ()).unwrap_err();
                assert!(thrown.is_exit());
                Err(thrown)
            }
        });
        log.add("main goes on");
        outcome.unwrap();
        assert_eq!(census.alive(), 0);
    });
    assert_eq!(log.take(), ["still runs", "killed", "main goes on"]);
}

#[test]
fn s17_the_running_greenlet_without_a_handle_can_end_as_usual() {
    let log = Log::new();
    enter(|me: &Root<u32>| {
        assert_eq!(run_without_handles(me, |_| Ok(3)).unwrap(), 3);
        assert_eq!(
            number(run_without_handles(me, |_| Err(Number(4).into()))),
            4
        );
        let log = log.clone();
        let outcome = run_without_handles(me, move |me| {
            let _dropped = log.at_drop("ends");
            // A handle that is made and dropped does not end it either.
            drop(me.handle());
            Ok(5)
        });
        assert_eq!(outcome.unwrap(), 5);
    });
    assert_eq!(log.take(), ["ends"]);
}

#[test]
fn s17_the_running_greenlet_that_drops_its_own_last_handle_can_still_send() {
    let log = Log::new();
    enter(|me: &Root<u32>| {
        let (main, log) = (me.handle(), log.clone());
        let outcome = run_without_handles(me, move |me| {
            let _dropped = log.at_drop("killed");
            drop(me.handle());
            let thrown = me.switch(&main, 6).unwrap_err();
            assert!(thrown.is_exit());
            Err(thrown)
        });
        assert_eq!(outcome.unwrap(), 6);
    });
    assert_eq!(log.take(), ["killed"]);
}

#[test]
fn s17_a_greenlet_that_a_killer_must_also_wait_for_is_freed() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let parent = suspended(me, &log, "parent of the second");
        let slot = Rc::new(RefCell::new(None::<WeakGreenlet<()>>));
        let second = Greenlet::new(me, {
            let (slot, log, main) = (Rc::clone(&slot), log.clone(), me.handle());
            move |me, ()| {
                let _dropped = log.at_drop("second");
                let outcome = me.switch(&main, ());
                let first = slot.take().unwrap().upgrade().unwrap();
                me.kill(&first).unwrap();
                outcome
            }
        });
        me.switch(&second, ()).unwrap();
        second.set_parent(&parent).unwrap();
        drop(parent);
        let main = me.handle();
        let first = Greenlet::new(me, {
            let log = log.clone();
            move |me, ()| {
                let _dropped = log.at_drop("first");
                let outcome = me.switch(&main, ());
                // Its only handle.
                let second = second;
                assert_eq!(me.kill(&second), Err(KillError::Later));
                outcome
            }
        });
        me.switch(&first, ()).unwrap();
        slot.replace(Some(first.downgrade()));
        me.kill(&first).unwrap();
        assert!(first.is_dead());
        assert_eq!(log.take(), ["first", "second", "parent of the second"]);
    });
}

#[test]
fn s17_a_killer_whose_last_handle_goes_in_the_kill_is_freed_when_it_is_left() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let slot = Rc::new(RefCell::new(None::<Greenlet<()>>));
        let main = me.handle();
        let victim = Greenlet::new(me, {
            let (slot, log) = (Rc::clone(&slot), log.clone());
            move |me, ()| {
                let _dropped = log.at_drop("victim");
                me.switch(&main, ()).unwrap_err();
                let holder = slot.take().unwrap();
                me.kill(&holder).unwrap();
                log.add("the killer has no handle");
                Ok(())
            }
        });
        me.switch(&victim, ()).unwrap();
        let main = me.handle();
        // Main switches to a holder, which owns the only handle to the killer and switches to it.
        let killer = Greenlet::new(me, {
            let log = log.clone();
            move |me, ()| {
                let _dropped = log.at_drop("killer");
                me.kill(&victim).unwrap();
                log.add("the killer goes on");
                me.switch(&main, ())
            }
        });
        let holder = Greenlet::new(me, move |me, ()| {
            me.switch(&killer, ())
                .map(|()| unreachable!("it is killed"))
        });
        slot.replace(Some(holder.clone()));
        me.switch(&holder, ()).unwrap();
        log.add("main goes on");
    });
    assert_eq!(
        log.take(),
        [
            "the killer has no handle",
            "victim",
            "the killer goes on",
            "killer",
            "main goes on"
        ]
    );
}

#[test]
fn s17_a_chain_of_kills_ends_from_its_far_end() {
    // Each holds the one before it, and so kills it when it is killed itself.
    let log = Log::new();
    enter(|me: &Root<()>| {
        let mut before = None::<Greenlet<()>>;
        for name in ["first", "second", "third"] {
            let (log, main) = (log.clone(), me.handle());
            let held = before.take();
            let g = Greenlet::new(me, move |me, ()| {
                let _dropped = log.at_drop(name);
                let _held = held;
                me.switch(&main, ())
            });
            me.switch(&g, ()).unwrap();
            before = Some(g);
        }
        drop(before);
    });
    assert_eq!(log.take(), ["first", "second", "third"]);
}
