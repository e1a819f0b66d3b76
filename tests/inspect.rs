//! Looking at greenlets from outside: where they are, how much stack they use, and what an
//! overflow says.

mod order;
mod process;

use std::{
    hint::black_box,
    mem::{self, MaybeUninit},
    ptr,
    sync::Arc,
    thread,
};

use greenlet::{
    Builder, Current, Greenlet, Snapshot, Status, Thrown, enter, report_stack_overflow,
};
use order::assert_in_order;
use process::{Ending, in_child};

const STACK: usize = 64 * 1024;

#[inline(never)]
fn innermost_wait(me: &Current<()>, main: &Greenlet<()>) -> Result<(), Thrown> {
    let outcome = me.switch(main, ());
    black_box(outcome)
}

#[inline(never)]
fn outer_wait(me: &Current<()>, main: &Greenlet<()>) -> Result<(), Thrown> {
    let outcome = innermost_wait(me, main);
    black_box(outcome)
}

/// A greenlet that waits two named calls deep.
fn waiting(me: &Current<()>, name: &str) -> Greenlet<()> {
    let main = me.handle();
    let greenlet = Builder::new()
        .name(name)
        .stack_size(STACK)
        .build(me, move |me, ()| outer_wait(me, &main))
        .unwrap();
    me.switch(&greenlet, ()).unwrap();
    greenlet
}

#[test]
fn s24_a_suspended_greenlet_shows_where_it_is_and_where_its_parent_waits() {
    #[inline(never)]
    fn where_the_parent_waits() {
        enter(|me| {
            let greenlet = waiting(me, "w");
            let backtrace = greenlet.backtrace().unwrap().to_string();
            let names = ["innermost_wait", "outer_wait", "where_the_parent_waits"];
            assert_in_order(&backtrace, &names);
        });
    }
    where_the_parent_waits();
}

#[test]
fn s24_looking_leaves_the_greenlet_as_it_was() {
    enter(|me| {
        let greenlet = waiting(me, "w");
        for _ in 0..10 {
            assert!(greenlet.backtrace().is_some());
        }
        assert!(greenlet.is_active());
        me.switch(&greenlet, ()).unwrap();
        assert!(greenlet.is_dead());
    });
}

#[test]
fn s24_new_and_dead_greenlets_have_no_backtrace() {
    enter(|me| {
        let greenlet = Greenlet::new(me, |_, ()| Ok(()));
        assert!(greenlet.backtrace().is_none());
        me.switch(&greenlet, ()).unwrap();
        assert!(greenlet.backtrace().is_none());
    });
}

/// Calls `then` where less of the stack is left than looking takes.
#[inline(never)]
fn on_a_nearly_full_stack(me: &Current<()>, then: &dyn Fn(&Current<()>)) {
    let frame = black_box([0u8; 256]);
    let usage = me.handle().stack_usage().unwrap();
    if usage.size - usage.in_use > 7 * 1024 {
        on_a_nearly_full_stack(me, then);
    } else {
        then(me);
    }
    black_box(&frame);
}

#[test]
fn s24_what_lies_on_a_nearly_full_stack_is_not_looked_at() {
    enter(|me: &Current<()>| {
        let main = me.handle();
        let full = Greenlet::new(me, move |me, ()| {
            on_a_nearly_full_stack(me, &|me| {
                let _ = me.switch(&main, ());
                enter(|root: &Current<()>| {
                    let _ = root.switch(&main, ());
                });
            });
            Ok(())
        });
        // At first the greenlet itself waits there, then one that was entered in it.
        for count in [1, 2] {
            me.switch(&full, ()).unwrap();
            let snapshot = Snapshot::take();
            let there = &snapshot.greenlets()[1..];
            assert_eq!(there.len(), count);
            for greenlet in there {
                assert!(greenlet.backtrace.is_none(), "{snapshot}");
            }
        }
    });
}

#[test]
fn s24_a_running_greenlet_can_look_at_one_that_waits_for_it() {
    enter(|me| {
        let outer = Greenlet::new(me, |_, ()| {
            enter(|inner: &Current<()>| {
                // The outer greenlet is busy: its stack is this very one.
                let snapshot = Snapshot::take();
                let busy = snapshot
                    .greenlets()
                    .iter()
                    .find(|greenlet| greenlet.status == Status::Busy)
                    .unwrap();
                assert!(busy.backtrace.is_some());
                drop(inner.handle());
            });
            Ok(())
        });
        me.switch(&outer, ()).unwrap();
    });
}

#[test]
fn s24_a_snapshot_prints_the_tree_with_the_innermost_frames() {
    enter(|me| {
        let _first = waiting(me, "first");
        let _second = waiting(me, "second");
        let new = Builder::new().name("third").build(me, |_, ()| Ok(()));
        let snapshot = Snapshot::take();
        let names: Vec<_> = snapshot
            .greenlets()
            .iter()
            .map(|it| it.name.as_deref())
            .collect();
        assert_eq!(names, [None, Some("first"), Some("second"), Some("third")]);
        let text = snapshot.to_string();
        assert_in_order(
            &text,
            &[
                "main current",
                "\"first\" suspended",
                "innermost_wait",
                "\"second\" suspended",
                "outer_wait",
                "\"third\" pending",
            ],
        );
        drop(new);
    });
}

#[test]
fn s24_a_snapshot_prints_all_frames_of_a_greenlets_own_stack_if_asked() {
    #[inline(never)]
    fn descend(me: &Current<()>, main: &Greenlet<()>, depth: u32) -> Result<(), Thrown> {
        let outcome = if depth == 0 {
            me.switch(main, ())
        } else {
            descend(me, main, depth - 1)
        };
        black_box(outcome)
    }
    enter(|me: &Current<()>| {
        let main = me.handle();
        let deep = Greenlet::new(me, move |me, ()| descend(me, &main, 20));
        me.switch(&deep, ()).unwrap();
        let snapshot = Snapshot::take();
        let (few, all) = (format!("{snapshot}"), format!("{snapshot:#}"));
        let frames = |text: &str| text.matches("descend").count();
        assert_eq!((frames(&few), frames(&all)), (3, 21), "{few}{all}");
        // Without debug information nobody knows where they are.
        if cfg!(debug_assertions) {
            assert!(
                all.contains("descend at ") && !few.contains(" at ./"),
                "{few}{all}"
            );
        }
    });
}

#[test]
fn s24_a_snapshot_prints_children_below_their_parents_whatever_their_order() {
    enter(|me: &Current<()>| {
        let make = |name: &str| {
            let build = Builder::new().name(name);
            build.build(me, |_: &Current<()>, ()| Ok(())).unwrap()
        };
        let [a, b, c, d] = ["a", "b", "c", "d"].map(make);
        // Under main: a and c; under c: b and d.
        b.set_parent(&c).unwrap();
        d.set_parent(&c).unwrap();
        let text = Snapshot::take().to_string();
        let lines = text.lines().filter(|line| line.contains("pending"));
        let lines: Vec<_> = lines.collect();
        let expected = [
            "  #2 \"a\" pending",
            "  #4 \"c\" pending",
            "    #3 \"b\" pending",
            "    #5 \"d\" pending",
        ];
        assert_eq!(lines, expected, "{text}");
        drop(a);
    });
}

#[test]
fn s24_those_that_wait_at_the_same_place_share_their_backtrace() {
    enter(|me| {
        let _same = [waiting(me, "first"), waiting(me, "second")];
        let main = me.handle();
        let other = Greenlet::new(me, move |me, ()| innermost_wait(me, &main));
        me.switch(&other, ()).unwrap();
        let snapshot = Snapshot::take();
        let backtraces: Vec<_> = snapshot.greenlets()[1..]
            .iter()
            .map(|greenlet| greenlet.backtrace.as_ref().unwrap())
            .collect();
        let [first, second, other] = backtraces[..] else {
            panic!("{backtraces:?}");
        };
        assert!(Arc::ptr_eq(first, second));
        let text = other.to_string();
        assert!(
            text.contains("innermost_wait") && !text.contains("outer_wait"),
            "{text}"
        );
    });
}

#[test]
fn s24_a_snapshot_sees_the_greenlets_of_a_scope() {
    enter(|me: &Current<()>| {
        me.scope(|s| {
            let _scoped = s.greenlet(me, |_, ()| Ok(()));
            assert_eq!(Snapshot::take().greenlets().len(), 2);
        });
        assert_eq!(Snapshot::take().greenlets().len(), 1);
    });
}

#[test]
fn s25_stack_use_is_what_the_frames_take_and_the_peak_stays() {
    #[inline(never)]
    fn use_stack() {
        let mut array = [0u8; 20_000];
        black_box(&mut array).fill(1);
        black_box(&array);
    }
    enter(|me| {
        let main = me.handle();
        let greenlet = Builder::new()
            .stack_size(STACK)
            .build(me, move |me, ()| {
                me.switch(&main, ())?;
                use_stack();
                me.switch(&main, ())
            })
            .unwrap();
        assert_eq!(greenlet.stack_usage(), None);
        me.switch(&greenlet, ()).unwrap();
        let before = greenlet.stack_usage().unwrap();
        me.switch(&greenlet, ()).unwrap();
        let after = greenlet.stack_usage().unwrap();
        assert!(before.size >= STACK);
        assert!(before.in_use > 0 && before.in_use < 16_000, "{before:?}");
        assert!(before.peak >= before.in_use && after.in_use < 16_000);
        assert!(after.peak >= 20_000 && after.peak < after.size, "{after:?}");
    });
}

#[inline(never)]
fn recurse(n: u64) -> u64 {
    let frame = black_box([n; 64]);
    if n == u64::MAX {
        return 0;
    }
    recurse(n + 1) + frame[3]
}

/// Overflows the stack of a greenlet with a name.
fn overflow() {
    enter(|me| {
        let deep = Builder::new()
            .name("deep")
            .stack_size(16 * 1024)
            .build(me, |_, ()| {
                black_box(recurse(0));
                Ok(())
            })
            .unwrap();
        let _ = me.switch(&deep, ());
    });
}

/// Takes the thread's signal stack away: handlers run on the thread's own then.
fn take_signal_stack() {
    let none = libc::stack_t {
        ss_sp: ptr::null_mut(),
        ss_flags: libc::SS_DISABLE,
        ss_size: 0,
    };
    // SAFETY: no handler runs.
    assert_eq!(unsafe { libc::sigaltstack(&none, ptr::null_mut()) }, 0);
}

fn has_signal_stack() -> bool {
    let mut there = MaybeUninit::<libc::stack_t>::zeroed();
    // SAFETY: asks only.
    assert_eq!(
        unsafe { libc::sigaltstack(ptr::null(), there.as_mut_ptr()) },
        0
    );
    // SAFETY: written by the call.
    unsafe { there.assume_init() }.ss_flags & libc::SS_DISABLE == 0
}

#[track_caller]
fn assert_overflow_is_reported(child: &Ending) {
    assert!(child.is_abort(), "{child:?}");
    assert_in_order(
        &child.stderr,
        &[
            "greenlet \"deep\"",
            "overflowed its stack of",
            "Builder::stack_size",
        ],
    );
}

#[test]
fn s26_an_overflow_names_the_greenlet_and_its_stack() {
    assert_overflow_is_reported(&in_child(|| {
        report_stack_overflow().unwrap();
        overflow();
    }));
}

#[test]
fn s26_so_it_does_on_a_thread_that_has_no_signal_stack() {
    assert_overflow_is_reported(&in_child(|| {
        take_signal_stack();
        report_stack_overflow().unwrap();
        overflow();
    }));
}

#[test]
fn s26_a_thread_that_ends_is_given_no_signal_stack_that_would_go_before_it() {
    struct AtEnd(fn());
    impl Drop for AtEnd {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    // What a thread touches first it drops last, and between these two goes the signal stack.
    thread_local! {
        static LAST: AtEnd = const { AtEnd(|| {
            assert!(!has_signal_stack());
            assert!(report_stack_overflow().is_err());
            assert!(!has_signal_stack());
        }) };
        static FIRST: AtEnd = const { AtEnd(|| {
            take_signal_stack();
            report_stack_overflow().unwrap();
            assert!(has_signal_stack());
        }) };
    }
    let child = in_child(|| {
        let ends = thread::spawn(|| {
            LAST.with(|_| ());
            FIRST.with(|_| ());
        });
        ends.join().unwrap();
    });
    assert!(child.is_success(), "{child:?}");
}

#[test]
fn s26_what_is_no_overflow_goes_on_to_the_handler_that_was_installed_before() {
    extern "C" fn plain(_: libc::c_int) {
        // SAFETY: ends the process.
        unsafe { libc::_exit(7) }
    }
    extern "C" fn informed(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the information is there; ends the process.
        unsafe { libc::_exit((*info).si_signo) }
    }
    let handlers = [
        (plain as *const (), 0, 7),
        (informed as *const (), libc::SA_SIGINFO, libc::SIGSEGV),
    ];
    for (handler, flags, code) in handlers {
        let child = in_child(|| {
            // SAFETY: the handler fits the flags.
            unsafe {
                let mut action: libc::sigaction = mem::zeroed();
                action.sa_sigaction = handler as usize;
                action.sa_flags = flags;
                assert_eq!(libc::sigaction(libc::SIGSEGV, &action, ptr::null_mut()), 0);
            }
            report_stack_overflow().unwrap();
            // SAFETY: the handler ends the process.
            unsafe { libc::raise(libc::SIGSEGV) };
        });
        assert_eq!(child.status.code(), Some(code), "{child:?}");
    }
}
