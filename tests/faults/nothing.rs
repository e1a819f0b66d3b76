//! Operations that cannot fail do not allocate.

use std::{cell::Cell, mem, sync::atomic::Ordering::SeqCst};

use greenlet::{Greenlet, GreenletExit, Root, Thrown, enter};

use crate::{
    ARMED, NONE, SEEN, armed, choose, nothing_allocates, one_at_a_time,
    process::in_child,
    start,
    support::{
        self, Number,
        census::{Census, Payload, Wide},
        echoes::{SMALL, echo, many_suspended},
        number, unscoped,
    },
};

#[test]
fn a_switch_allocates_nothing() {
    nothing_allocates(|| {
        let census = Census::new();
        enter(|me| {
            let greenlets = many_suspended(me, &census);
            let message = Wide::new(&census, 9);
            let message = armed(|| {
                let hop = |message, greenlet| me.switch(greenlet, message).unwrap();
                greenlets.iter().fold(message, hop)
            });
            assert_eq!(message.value(), 9);
        });
    });
}

#[test]
fn the_start_of_a_greenlet_on_a_stack_that_lies_idle_allocates_nothing() {
    nothing_allocates(|| {
        let census = Census::new();
        enter(|me| {
            drop(many_suspended(me, &census));
            let new: Vec<_> = (0..300).map(|_| echo(me, SMALL)).collect();
            new.iter().for_each(|new| start(me, &census, new));
        });
    });
}

#[test]
fn a_throw_of_an_exit_or_of_what_is_a_thrown_already_allocates_nothing() {
    nothing_allocates(|| {
        enter(|me: &Root<bool>| {
            let main = me.handle();
            let catches: Greenlet<()> = Greenlet::new(me, move |me, ()| {
                loop {
                    let caught = me.switch(&main, false).is_err();
                    let _: Result<(), Thrown> = me.switch(&main, caught);
                }
            });
            assert!(!me.switch(&catches, ()).unwrap());
            for thrown in [GreenletExit.into(), Thrown::from(Number(3))] {
                assert!(armed(|| me.throw(&catches, thrown)).unwrap());
                assert!(!me.switch(&catches, ()).unwrap());
            }
        });
    });
}

#[test]
fn the_notice_of_an_exit_allocates_nothing() {
    nothing_allocates(|| {
        enter(|me: &Root<()>| {
            let main = me.handle();
            let exits: Greenlet<()> = Greenlet::new(me, move |me, ()| me.switch(&main, ()));
            me.switch(&exits, ()).unwrap();
            let new = Greenlet::new(me, |_, ()| Ok(()));
            for target in [&exits, &new] {
                support::assert_child_exit(armed(|| me.throw(target, GreenletExit)));
                assert!(target.is_dead());
            }
        });
    });
}

#[test]
fn kills_and_drops_allocate_nothing() {
    nothing_allocates(|| {
        let census = Census::new();
        enter(|me| {
            let suspended = many_suspended(me, &census);
            armed(|| suspended.iter().for_each(|victim| me.kill(victim).unwrap()));
            armed(|| drop(suspended));

            // The pool gives back surplus stacks meanwhile.
            for idle in [0, 10, 256] {
                greenlet::set_idle_stacks(idle);
                let suspended = many_suspended(me, &census);
                armed(|| drop(suspended));
            }
            let new: Vec<_> = (0..300).map(|_| echo(me, SMALL)).collect();
            let weak: Vec<_> = new.iter().map(|new| armed(|| new.downgrade())).collect();
            armed(|| assert!(weak.iter().all(|weak| weak.upgrade().is_some())));
            armed(|| drop(new));
            armed(|| drop(weak));
        });
    });
}

#[test]
fn an_end_by_a_value_or_an_error_allocates_nothing() {
    nothing_allocates(|| {
        let census = Census::new();
        enter(|me: &Root<Wide>| {
            let value: Greenlet<Wide> = Greenlet::new(me, |_, message| Ok(message));
            let error: Greenlet<Thrown> = Greenlet::new(me, |_, thrown| Err(thrown));
            let message = Wide::new(&census, 4);
            let warm = me.switch(&Greenlet::new(me, |_, message: Wide| Ok(message)), message);
            let message = warm.unwrap();
            assert_eq!(armed(|| me.switch(&value, message)).unwrap().value(), 4);
            let thrown = Thrown::from(Number(5));
            assert_eq!(number(armed(|| me.switch(&error, thrown))), 5);
        });
    });
}

/// In a child process, because forgotten handles leak their blocks.
#[test]
fn the_end_of_an_enter_with_forgotten_members_allocates_nothing() {
    let _one = one_at_a_time();
    let ending = in_child(|| {
        choose(NONE);
        let census = &Census::new();
        enter(|me: &Root<Wide>| {
            for n in 0..300 {
                let member =
                    Greenlet::new(me, move |me, message: Wide| me.switch_to_parent(message));
                if n % 2 == 0 {
                    drop(me.switch(&member, Wide::new(census, n)).unwrap());
                }
                mem::forget(member);
            }
            // Until after the end of the `enter`.
            ARMED.set(true);
        });
        ARMED.set(false);
        assert_eq!(SEEN.load(SeqCst), 0);
    });
    assert!(ending.is_success(), "{ending:?}");
}

#[test]
fn a_handler_for_overflows_is_installed_without_an_allocation() {
    let _one = one_at_a_time();
    let ending = in_child(|| {
        choose(NONE);
        armed(greenlet::report_stack_overflow).unwrap();
        assert_eq!(SEEN.load(SeqCst), 0);
    });
    assert!(ending.is_success(), "{ending:?}");
}

#[cfg(feature = "trace")]
#[test]
fn switches_and_kills_that_are_traced_allocate_nothing() {
    nothing_allocates(|| {
        let census = Census::new();
        enter(|me| {
            let suspended = many_suspended(me, &census);
            greenlet::trace::set(Some(greenlet::trace::Tracer::new(|_| ())));
            let message = Wide::new(&census, 9);
            let message = armed(|| {
                let hop = |message, greenlet| me.switch(greenlet, message).unwrap();
                suspended.iter().fold(message, hop)
            });
            assert_eq!(message.value(), 9);
            armed(|| drop(suspended));
            greenlet::trace::set(None);
        });
    });
}

/// A kill outside every greenlet makes a root for the killer.
#[test]
fn drops_outside_every_greenlet_allocate_nothing() {
    nothing_allocates(|| {
        let census = Census::new();
        let suspended = unscoped().enter(|me| many_suspended(me, &census));
        armed(|| drop(suspended));
    });
}

/// Also after the crate's own thread-locals are destroyed.
#[test]
fn drops_at_the_end_of_a_thread_allocate_nothing() {
    struct Kept {
        suspended: Vec<Greenlet<'static, Wide>>,
        _census: Census,
    }

    impl Drop for Kept {
        fn drop(&mut self) {
            armed(|| self.suspended.clear());
        }
    }

    thread_local!(static KEPT: Cell<Option<Kept>> = const { Cell::new(None) });

    nothing_allocates(|| {
        // Before the crate has thread-locals, so that they are gone when this is dropped.
        KEPT.set(None);
        let census = Census::new();
        let suspended = unscoped().enter(|me| many_suspended(me, &census));
        KEPT.set(Some(Kept {
            suspended,
            _census: census,
        }));
    });
}
