use std::{cell::RefCell, sync::Arc, thread};

use greenlet::{Current, Greenlet, Root, enter, local};

use crate::{
    machine::{skip, unmeasurable},
    support::{
        census::{Census, Payload, Token},
        child::child,
        resident, unscoped,
    },
    with_each_cargo,
};

#[test]
fn arg_refs() {
    fn check<T: Payload>() {
        let census = Census::new();
        enter(|me: &Root<T>| {
            let main = me.handle();
            let g = Greenlet::new(me, move |me, mut message: T| {
                loop {
                    message = me.switch(&main, message)?;
                }
            });
            for n in 0..100 {
                assert_eq!(me.switch(&g, T::new(&census, n)).unwrap().value(), n);
                assert_eq!(census.alive(), 0);
            }
        });
    }
    with_each_cargo!(check);
}

local! {
    static HELD: RefCell<Vec<Token>> = RefCell::default();
    static ENDED: RefCell<Vec<Greenlet<'static, ()>>> = RefCell::default();
}

#[test]
fn threaded_leak() {
    let census = Arc::new(Census::new());
    for _ in 0..10 {
        let census = Arc::clone(&census);
        let thread = thread::spawn(move || {
            enter(|_: &Root<()>| HELD.with(|held| held.borrow_mut().push(census.token())));
        });
        thread.join().unwrap();
    }
    assert_eq!((census.born(), census.alive()), (10, 0));
}

#[test]
fn threaded_adv_leak() {
    let census = Arc::new(Census::new());
    for _ in 0..10 {
        let census = Arc::clone(&census);
        let thread = thread::spawn(move || {
            unscoped().enter(|me: &Current<()>| {
                HELD.with(|held| held.borrow_mut().push(census.token()));
                for _ in 0..3 {
                    let token = census.token();
                    let g = Greenlet::new(me, move |_, ()| {
                        let _held = token;
                        Ok(())
                    });
                    me.switch(&g, ()).unwrap();
                    // It and its parent own each other.
                    ENDED.with(|ended| ended.borrow_mut().push(g));
                }
            });
        });
        thread.join().unwrap();
    }
    assert_eq!((census.born(), census.alive()), (40, 0));
}

/// The most bytes by which memory may grow from one round to the next.
const SLACK: usize = 2 << 20;

#[test]
fn untracked_memory_doesnt_increase() {
    if let Some(why) = unmeasurable() {
        return skip(why);
    }
    let ended = child(|| {
        let round = || {
            enter(|me: &Root<()>| {
                for _ in 0..10_000 {
                    let g = Greenlet::new(me, |_, ()| Ok(()));
                    me.switch(&g, ()).unwrap();
                }
            });
        };
        round();
        let before = resident();
        round();
        let after = resident();
        assert!(after < before + SLACK, "{before} bytes, then {after}");
    });
    ended.expect("not emulated").assert_success();
}

#[test]
fn untracked_memory_doesnt_increase_unfinished_thread_dealloc_in_thread() {
    if let Some(why) = unmeasurable() {
        return skip(why);
    }
    let ended = child(|| {
        let round = || {
            let census = Arc::new(Census::new());
            let theirs = Arc::clone(&census);
            let thread = thread::spawn(move || {
                enter(|me: &Root<()>| {
                    let suspended = |_| {
                        let (main, token) = (me.handle(), theirs.token());
                        let g = Greenlet::new(me, move |me, ()| {
                            let _held = token;
                            let outcome = me.switch(&main, ());
                            assert!(outcome.as_ref().is_err_and(|thrown| thrown.is_exit()));
                            outcome
                        });
                        me.switch(&g, ()).unwrap();
                        g
                    };
                    let all: Vec<_> = (0..20_000).map(suspended).collect();
                    assert_eq!(theirs.alive(), 20_000);
                    drop(all);
                    assert_eq!(theirs.alive(), 0);
                });
            });
            thread.join().unwrap();
        };
        round();
        let before = resident();
        round();
        let after = resident();
        assert!(after < before + SLACK, "{before} bytes, then {after}");
    });
    ended.expect("not emulated").assert_success();
}
