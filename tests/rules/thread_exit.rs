//! s21: the end of a thread, and of the process.

use std::{
    cell::{Cell, RefCell},
    mem, process,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use greenlet::{Builder, Current, Greenlet, Root, enter};

use crate::support::{census::Census, child::child, log::on_drop, unscoped};
#[cfg(target_os = "linux")]
use crate::{
    machine::{emulated, skip},
    support::address_space,
};

/// Runs `body` in a thread, and waits until its thread-locals are destroyed, too.
fn in_thread(body: impl FnOnce() + Send + 'static) {
    thread::spawn(body).join().expect("no panic");
}

thread_local! {
    static KEPT: RefCell<Vec<Greenlet<'static, ()>>> = const { RefCell::new(Vec::new()) };
}

#[test]
fn s21_a_greenlet_in_a_thread_local_is_killed_normally_when_the_thread_ends() {
    let census = Arc::new(Census::new());
    let exits = Arc::new(AtomicUsize::new(0));
    in_thread({
        let (census, exits) = (Arc::clone(&census), Arc::clone(&exits));
        move || {
            unscoped().enter(|me: &Current<()>| {
                for _ in 0..3 {
                    let (main, exits) = (me.handle(), Arc::clone(&exits));
                    let token = census.token();
                    let g = Greenlet::new(me, move |me, ()| {
                        let _held = token;
                        let outcome = me.switch(&main, ());
                        assert!(outcome.as_ref().is_err_and(|thrown| thrown.is_exit()));
                        exits.fetch_add(1, SeqCst);
                        outcome
                    });
                    me.switch(&g, ()).unwrap();
                    KEPT.with_borrow_mut(|kept| kept.push(g));
                }
            });
            assert_eq!(exits.load(SeqCst), 0);
        }
    });
    assert_eq!(exits.load(SeqCst), 3);
    assert_eq!(census.alive(), 0);
}

#[test]
fn s21_new_and_dead_ones_in_a_thread_local_are_dropped() {
    let census = Arc::new(Census::new());
    in_thread({
        let census = Arc::clone(&census);
        move || {
            unscoped().enter(|me: &Current<()>| {
                let token = census.token();
                let new = Greenlet::new(me, move |_, ()| {
                    drop(token);
                    unreachable!("it does not run")
                });
                let dead = Greenlet::new(me, |_, ()| Ok(()));
                me.switch(&dead, ()).unwrap();
                KEPT.set(vec![new, dead]);
            });
        }
    });
    assert_eq!(census.alive(), 0);
}

#[test]
fn s21_a_greenlet_that_is_killed_by_a_thread_local_may_itself_kill_enter_and_switch() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    in_thread({
        let seen = Arc::clone(&seen);
        move || {
            unscoped().enter(|me: &Current<()>| {
                let suspended = |end: Box<dyn FnOnce()>| {
                    let main = me.handle();
                    let g = Greenlet::new(me, move |me, ()| {
                        let _end = on_drop(end);
                        me.switch(&main, ())
                    });
                    me.switch(&g, ()).unwrap();
                    g
                };
                let log = Arc::clone(&seen);
                let inner = suspended(Box::new(move || log.lock().unwrap().push("inner")));
                let log = Arc::clone(&seen);
                let outer = suspended(Box::new(move || {
                    drop(inner);
                    enter(|me: &Root<&str>| {
                        let g = Greenlet::new(me, |_, ()| Ok("entered"));
                        log.lock().unwrap().push(me.switch(&g, ()).unwrap());
                    });
                }));
                KEPT.set(vec![outer]);
            });
        }
    });
    assert_eq!(*seen.lock().unwrap(), ["inner", "entered"]);
}

#[test]
fn s21_a_thread_locals_destructor_may_make_and_run_greenlets() {
    thread_local!(static LAST: Cell<Option<Runs>> = const { Cell::new(None) });
    struct Runs(Arc<AtomicUsize>);
    impl Drop for Runs {
        fn drop(&mut self) {
            let sum = enter(|me: &Root<usize>| {
                let main = me.handle();
                let g = Greenlet::new(me, move |me, n: usize| {
                    let n = me.switch(&main, n + 1)?;
                    Ok(n + 1)
                });
                let n = me.switch(&g, 0).unwrap();
                me.switch(&g, n).unwrap()
            });
            self.0.fetch_add(sum, SeqCst);
        }
    }
    let sum = Arc::new(AtomicUsize::new(0));
    in_thread({
        let sum = Arc::clone(&sum);
        move || {
            LAST.set(Some(Runs(Arc::clone(&sum))));
            // The crate's thread-locals are initialized after the one above, so they are destroyed before
            // it.
            drop(Runs(sum));
        }
    });
    assert_eq!(sum.load(SeqCst), 4);
}

#[test]
fn s21_an_unreachable_greenlet_never_runs_again_and_keeps_its_stack() {
    let census = Arc::new(Census::new());
    let where_it_lies = Arc::new(AtomicUsize::new(0));
    in_thread({
        let (census, where_it_lies) = (Arc::clone(&census), Arc::clone(&where_it_lies));
        move || {
            unscoped().enter(|me: &Current<()>| {
                let main = me.handle();
                let build = Builder::new().stack_size(64 * 1024);
                let g = build.build(me, move |me, ()| {
                    let _held = census.token();
                    let local = [0x5a_u8; 64];
                    where_it_lies.store((&raw const local).expose_provenance(), SeqCst);
                    me.switch(&main, ())?;
                    unreachable!("{local:?}")
                });
                let g = g.unwrap();
                me.switch(&g, ()).unwrap();
                mem::forget(g);
            });
        }
    });
    assert_eq!(census.alive(), 1);
    let local = std::ptr::with_exposed_provenance::<u8>(where_it_lies.load(SeqCst));
    // Its locals still exist, because something may point to them.
    // SAFETY: that is what the rule says, and if it is broken this faults.
    assert_eq!(unsafe { local.add(63).read_volatile() }, 0x5a);
    mem::forget(census);
}

#[test]
fn s21_a_greenlet_that_holds_its_own_handle_never_runs_again_and_keeps_its_stack() {
    let census = Arc::new(Census::new());
    in_thread({
        let census = Arc::clone(&census);
        move || {
            unscoped().enter(|me: &Current<()>| {
                let main = me.handle();
                let g = Greenlet::new(me, move |me, ()| {
                    let _itself = me.handle();
                    let _held = census.token();
                    me.switch(&main, ())?;
                    unreachable!()
                });
                me.switch(&g, ()).unwrap();
            });
        }
    });
    assert_eq!(census.alive(), 1);
    mem::forget(census);
}

#[test]
fn s21_the_process_can_exit_with_suspended_greenlets() {
    let Some(ended) = child(|| {
        enter(|me: &Root<()>| {
            let main = me.handle();
            let g = Greenlet::new(me, move |me, ()| {
                let _dropped = on_drop(|| eprintln!("it ran"));
                me.switch(&main, ())
            });
            me.switch(&g, ()).unwrap();
            process::exit(0);
        })
    }) else {
        return;
    };
    ended.assert_success();
    assert!(!ended.stderr.contains("it ran"));
}

#[test]
fn s21_the_process_can_exit_from_within_a_greenlet() {
    let Some(ended) = child(|| {
        enter(|me: &Root<()>| {
            let g = Greenlet::new(me, |_, ()| process::exit(0));
            me.switch(&g, ()).unwrap();
            panic!("came back");
        })
    }) else {
        return;
    };
    ended.assert_success();
}

#[cfg(target_os = "linux")]
#[test]
fn s21_the_stacks_of_a_thread_go_with_it() {
    // One that has finished before the end of the thread, and one that the end kills.
    let ended = child(|| {
        assert_threads_leave_nothing(|| {
            // Initialized before the crate's thread-locals, so destroyed after them.
            KEPT.with_borrow_mut(Vec::clear);
            unscoped().enter(|me: &Current<()>| {
                let main = me.handle();
                let suspended = Greenlet::new(me, move |me, ()| me.switch(&main, ()));
                me.switch(&suspended, ()).unwrap();
                KEPT.with_borrow_mut(|kept| kept.push(suspended));
                run_one(me);
            });
        });
    });
    if let Some(ended) = ended {
        ended.assert_success();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn s21_a_thread_that_ends_keeps_no_stacks_whatever_it_then_asks_for() {
    thread_local! {
        static ASKS: RefCell<Option<Box<dyn std::any::Any>>> = const { RefCell::new(None) };
    }

    let ended = child(|| {
        assert_threads_leave_nothing(|| {
            // Initialized first, so destroyed last.
            ASKS.set(Some(Box::new(on_drop(|| {
                greenlet::set_idle_stacks(100);
                enter(|me: &Root<()>| run_one(me));
            }))));
            enter(|me: &Root<()>| run_one(me));
        });
    });
    if let Some(ended) = ended {
        ended.assert_success();
    }
}

#[cfg(target_os = "linux")]
fn run_one(me: &Current<()>) {
    let over = Greenlet::new(me, |_, ()| Ok(()));
    me.switch(&over, ()).unwrap();
}

/// Runs `body` in many threads, and compares the address space of the process.
#[cfg(target_os = "linux")]
#[track_caller]
fn assert_threads_leave_nothing(body: impl Fn() + Copy + Send + 'static) {
    /// More than threads leave behind, and less than the stacks of all.
    const SLACK: usize = THREADS << 20;
    const THREADS: usize = 50;

    if emulated() {
        return skip("the emulator's own memory would be measured");
    }
    in_thread(body);
    let before = address_space();
    (0..THREADS).for_each(|_| in_thread(body));
    let after = address_space();
    assert!(after < before + SLACK, "{before} bytes, then {after}");
}

/// As plain code does: `thread::scope` in `with` returns before the value can be dropped.
#[test]
#[cfg_attr(miri, ignore = "under Miri a greenlet has thread-locals of its own")]
fn s20_a_forgotten_greenlet_that_waits_for_a_thread_inside_with_ends_before_its_thread() {
    struct Value(Mutex<Option<Arc<Mutex<Vec<&'static str>>>>>);
    impl Value {
        fn log(&self, event: &'static str) {
            let log = self.0.lock().unwrap().clone();
            log.expect("it is set").lock().unwrap().push(event);
        }
    }
    impl Drop for Value {
        fn drop(&mut self) {
            self.log("dropped");
        }
    }
    thread_local!(static VALUE: Value = const { Value(Mutex::new(None)) });

    let events = Arc::new(Mutex::new(Vec::new()));
    in_thread({
        let events = Arc::clone(&events);
        move || {
            VALUE.with(|value| *value.0.lock().unwrap() = Some(events));
            let ends = AtomicBool::new(false);
            enter(|me: &Root<()>| {
                let ends = &ends;
                let waits = Greenlet::new(me, move |me, ()| {
                    VALUE.with(|value| {
                        thread::scope(|threads| {
                            threads.spawn(move || {
                                while !ends.load(SeqCst) {
                                    thread::yield_now();
                                }
                                value.log("read");
                            });
                            let outcome = me.switch_to_parent(());
                            ends.store(true, SeqCst);
                            outcome
                        })
                    })
                });
                me.switch(&waits, ()).unwrap();
                mem::forget(waits);
            });
        }
    });
    assert_eq!(*events.lock().unwrap(), ["read", "dropped"]);
}
