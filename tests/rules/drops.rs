//! Kills from drops anywhere (s14 to s17, s19, s21), and long chains of them.

use std::{
    cell::RefCell,
    hint::black_box,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use greenlet::{Builder, Current, Greenlet, KillError, Root, enter};

use crate::{
    machine::emulated,
    support::{
        Number,
        census::Census,
        child::child,
        log::{Log, OnDrop, on_drop},
        number,
        panics::{catch, heard},
        suspended, unscoped,
    },
};

/// The most suspended greenlets at the same time, in each of the tests with many.
fn many() -> usize {
    if emulated() { 2_000 } else { 20_000 }
}

#[test]
fn s14_a_handle_that_another_greenlet_keeps_kills_when_that_ends() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let inner = suspended(me, &log, "inner");
        let main = me.handle();
        let outer = Greenlet::new(me, {
            let log = log.clone();
            move |me, ()| {
                let _last = log.at_drop("outer");
                let _kept = inner;
                me.switch(&main, ())
            }
        });
        me.switch(&outer, ()).unwrap();
        drop(outer);
        log.add("main");
    });
    assert_eq!(log.take(), ["inner", "outer", "main"]);
}

#[test]
fn s14_a_handle_in_a_message_kills_when_the_message_is_dropped() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let victim = suspended(me, &log, "victim");
        let receiver = Greenlet::borrowing(me, |_, handle: Greenlet<()>| {
            drop(handle);
            Ok(())
        });
        me.switch(&receiver, victim).unwrap();
        assert_eq!(log.take(), ["victim"]);
    });
}

#[test]
fn s14_a_handle_that_a_panic_unwinds_kills() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let victim = suspended(me, &log, "victim");
        let panics = Greenlet::new(me, move |_, ()| {
            let _unwound = victim;
            panic!("out")
        });
        let (caught, heard) = heard(|| catch(|| me.switch(&panics, ())));
        assert!(caught.is_err());
        assert_eq!(heard, 1);
        assert_eq!(log.take(), ["victim"]);
    });
}

#[test]
fn s14_a_handle_in_a_greenlet_local_kills_when_its_greenlet_ends() {
    greenlet::local! {
        static KEPT: RefCell<Vec<Greenlet<'static, ()>>> = RefCell::default();
    }
    let log = Log::new();
    unscoped().enter(|me: &Current<()>| {
        let victim = suspended(me, &log, "victim");
        let keeper = Greenlet::new(me, {
            let log = log.clone();
            move |_, ()| {
                KEPT.with(|kept| kept.borrow_mut().push(victim));
                log.add("the keeper returns");
                Ok(())
            }
        });
        me.switch(&keeper, ()).unwrap();
        log.add("main");
    });
    assert_eq!(log.take(), ["the keeper returns", "victim", "main"]);
}

#[test]
fn s14_a_handle_in_the_drop_of_a_new_greenlets_body_kills() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let victim = suspended(me, &log, "victim");
        let new = Greenlet::new(me, move |_, ()| {
            drop(victim);
            Ok(())
        });
        drop(new);
        assert_eq!(log.take(), ["victim"]);
    });
}

#[test]
fn s14_a_handle_dropped_outside_every_greenlet_kills() {
    let log = Log::new();
    let victim = unscoped().enter(|me: &Current<()>| {
        let (main, log) = (me.handle(), log.clone());
        let victim = Greenlet::new(me, move |me, ()| {
            let _dropped = log.at_drop("victim");
            assert!(me.switch(&main, ()).unwrap_err().is_exit());
            // The main greenlet under which it was made has finished.
            assert!(me.switch(&main, ()).is_err());
            Ok(())
        });
        me.switch(&victim, ()).unwrap();
        victim
    });
    assert!(victim.is_active());
    drop(victim);
    assert_eq!(log.take(), ["victim"]);
}

#[test]
fn s17_two_that_kill_each_other_both_end_when_one_is_killed() {
    let Some(ended) = child(|| {
        let log = Log::new();
        enter(|me: &Root<()>| {
            let slots: Rc<RefCell<Vec<Greenlet<()>>>> = Rc::default();
            for (name, other) in [("first", 1), ("second", 0)] {
                let (log, main, slots) = (log.clone(), me.handle(), Rc::clone(&slots));
                let g = Greenlet::new(me, {
                    let slots = Rc::clone(&slots);
                    move |me, ()| {
                        let _dropped = log.at_drop(name);
                        let outcome = me.switch(&main, ());
                        let other = slots.borrow()[other].clone();
                        match me.kill(&other) {
                            Ok(()) => {}
                            Err(KillError::Later) => log.add("interrupted"),
                            Err(error) => unreachable!("{error}"),
                        }
                        outcome
                    }
                });
                me.switch(&g, ()).unwrap();
                slots.borrow_mut().push(g);
            }
            let first = slots.borrow()[0].clone();
            let _ = me.kill(&first);
            assert!(slots.borrow().iter().all(Greenlet::is_dead));
            slots.take();
        });
        let mut events = log.take();
        events.sort_unstable();
        assert_eq!(events, ["first", "interrupted", "second"]);
    }) else {
        return;
    };
    ended.assert_success();
}

#[test]
#[cfg_attr(miri, ignore = "too long a chain for Miri")]
fn s14_a_chain_of_new_greenlets_that_each_hold_the_next_is_dropped() {
    let census = Census::new();
    enter(|me: &Root<()>| {
        let mut next = None::<Greenlet<()>>;
        // The drops nest.
        for _ in 0..200 {
            let (held, token) = (next.take(), census.token());
            next = Some(Greenlet::new(me, move |_, ()| {
                drop((held, token));
                Ok(())
            }));
        }
        assert_eq!(census.alive(), 200);
        drop(next);
        assert_eq!(census.alive(), 0);
    });
}

#[test]
#[cfg_attr(miri, ignore = "too long a chain for Miri")]
fn s14_a_chain_of_suspended_greenlets_that_each_hold_the_next_is_killed() {
    let census = Rc::new(Census::new());
    enter(|me: &Root<()>| {
        let mut next = None::<Greenlet<()>>;
        for _ in 0..many() {
            let (held, token, main) = (next.take(), census.token(), me.handle());
            let build = Builder::new().stack_size(Builder::MIN_STACK_SIZE);
            let g = build.build(me, move |me, ()| {
                let _kept = (held, token);
                let outcome = me.switch(&main, ());
                assert!(outcome.as_ref().is_err_and(|thrown| thrown.is_exit()));
                outcome
            });
            let g = g.unwrap();
            me.switch(&g, ()).unwrap();
            next = Some(g);
        }
        assert_eq!(census.alive(), many());
        drop(next);
        assert_eq!(census.alive(), 0);
    });
}

/// Makes each greenlet the parent of the next. Only the last has a handle.
fn chain_of_parents<I: 'static>(chain: Vec<Greenlet<I>>) -> Greenlet<I> {
    // From the last to the first, as a new parent's ancestors are looked through.
    for pair in chain.windows(2).rev() {
        pair[1].set_parent(&pair[0]).unwrap();
    }
    chain.into_iter().next_back().unwrap()
}

#[test]
#[cfg_attr(miri, ignore = "too long a chain for Miri")]
fn s3_a_chain_of_new_parents_is_dropped_with_the_last_child() {
    let census = Census::new();
    enter(|me: &Root<()>| {
        let new = |_| {
            let token = census.token();
            Greenlet::new(me, move |_, ()| {
                drop(token);
                Ok(())
            })
        };
        let last = chain_of_parents((0..100_000).map(new).collect());
        assert_eq!(census.alive(), 100_000);
        drop(last);
        assert_eq!(census.alive(), 0);
    });
}

#[test]
#[cfg_attr(miri, ignore = "too long a chain for Miri")]
fn s3_a_chain_of_suspended_parents_is_killed_with_the_last_child() {
    let Some(ended) = child(|| {
        let census = Rc::new(Census::new());
        enter(|me: &Root<()>| {
            let suspended = |_| {
                let (token, main) = (census.token(), me.handle());
                let build = Builder::new().stack_size(Builder::MIN_STACK_SIZE);
                let g = build.build(me, move |me, ()| {
                    let _held = token;
                    me.switch(&main, ())
                });
                let g = g.unwrap();
                me.switch(&g, ()).unwrap();
                g
            };
            let last = chain_of_parents((0..many()).map(suspended).collect());
            assert_eq!(census.alive(), many());
            // On a stack of the default size.
            let dropper = Greenlet::new(me, move |_, ()| {
                drop(last);
                Ok(())
            });
            me.switch(&dropper, ()).unwrap();
            assert_eq!(census.alive(), 0);
        });
    }) else {
        return;
    };
    ended.assert_success();
}

#[test]
#[cfg_attr(miri, ignore = "too long a chain for Miri")]
fn s7_a_value_skips_a_long_chain_of_dead_parents() {
    enter(|me: &Root<u32>| {
        let new = |_| Greenlet::new(me, |_, n: u32| Ok(n));
        let all: Vec<_> = (0..100_000).map(new).collect();
        let parents = all.clone();
        let last = chain_of_parents(all);
        for parent in &parents[..parents.len() - 1] {
            me.kill(parent).unwrap();
        }
        assert_eq!(me.switch(&last, 7).unwrap(), 7);
    });
}

#[test]
#[cfg_attr(miri, ignore = "too long a chain for Miri")]
fn s12_a_throw_skips_a_long_chain_of_new_parents() {
    enter(|me: &Root<u32>| {
        let new = |_| Greenlet::new(me, |_, n: u32| Ok(n));
        let last = chain_of_parents((0..100_000).map(new).collect());
        assert_eq!(number(me.throw(&last, Number(3))), 3);
        assert!(last.is_dead());
    });
}

#[test]
#[cfg_attr(miri, ignore = "too many greenlets for Miri")]
fn s14_many_suspended_greenlets_end_with_the_thread_that_keeps_them() {
    thread_local!(static KEPT: RefCell<Vec<Greenlet<'static, ()>>> = const { RefCell::new(Vec::new()) });
    let ends = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&ends);
    let thread = thread::spawn(move || {
        unscoped().enter(|me: &Current<()>| {
            for _ in 0..1000 {
                let (main, ends) = (me.handle(), Arc::clone(&counted));
                let g = Greenlet::new(me, move |me, ()| {
                    let _counted = on_drop(|| {
                        ends.fetch_add(1, SeqCst);
                    });
                    me.switch(&main, ())
                });
                me.switch(&g, ()).unwrap();
                KEPT.with_borrow_mut(|kept| kept.push(g));
            }
        });
    });
    thread.join().unwrap();
    assert_eq!(ends.load(SeqCst), 1000);
}

/// What a value's destructor does.
type AtDrop = OnDrop<Box<dyn FnOnce()>>;

#[test]
fn s7_a_root_may_end_while_a_value_that_it_did_not_take_is_dropped() {
    let library = unscoped();
    let log = Log::new();
    let kept: Rc<RefCell<Vec<Greenlet<()>>>> = Rc::default();
    // A greenlet whose only live ancestor is the root of a drop. That takes no such value, and the value's
    // destructor resumes `waiting`. So the drop ends, and its root, while the destructor is suspended.
    let dies_late = {
        let (kept, log) = (Rc::clone(&kept), log.clone());
        move |waiting: Greenlet<'static, ()>| {
            let destructor = Rc::clone(&kept);
            let value: AtDrop = on_drop(Box::new(move || {
                library.enter(|me: &Current<()>| {
                    destructor.borrow_mut().push(me.handle());
                    me.switch(&waiting, ()).unwrap();
                    log.add("the destructor goes on");
                });
            }));
            let greenlet = library
                .enter(|parent: &Current<AtDrop>| Greenlet::borrowing(parent, |_, ()| Ok(value)));
            kept.borrow_mut().push(greenlet.clone());
            greenlet
        }
    };
    let victim = library.enter(|me: &Current<()>| {
        let (main, log) = (me.handle(), log.clone());
        let victim = Greenlet::new(me, move |me, ()| {
            let _dropped = on_drop(move || {
                library.enter(|me: &Current<()>| me.switch(&dies_late(me.handle()), ()).unwrap());
                log.add("the victim ends");
            });
            me.switch(&main, ())
        });
        me.switch(&victim, ()).unwrap();
        victim
    });
    drop(victim);
    // The memory of the drop's root is in use again.
    black_box([usize::MAX; 512]);
    let thrown = library.enter(|me: &Current<()>| {
        let destructor = kept.borrow_mut().pop().unwrap();
        me.switch(&destructor, ()).unwrap_err()
    });
    let said = thrown.to_string();
    assert!(
        said.starts_with("a greenlet returned a value that its parent could not take"),
        "{said}"
    );
    assert_eq!(log.take(), ["the victim ends", "the destructor goes on"]);
}
