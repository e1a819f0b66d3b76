//! Inspections of greenlets (rules s24, s25): backtraces and stack usage.

use std::{hint::black_box, mem::MaybeUninit, sync::Arc};

use greenlet::{
    Builder, Child, Current, Greenlet, Root, Snapshot, Status, Thrown, UnguardedStack, enter,
};

use crate::machine::skip;
use crate::order::assert_in_order;

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
fn waiting<'e>(me: &Current<'e, ()>, name: &str) -> Greenlet<'e, ()> {
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
#[cfg_attr(miri, ignore = "under Miri a backtrace is of one thread")]
fn s24_a_backtrace_of_a_suspended_greenlet_has_its_frames_and_those_of_its_parent() {
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
fn s24_an_inspection_leaves_the_greenlet_as_it_was() {
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

#[test]
#[cfg_attr(miri, ignore = "under Miri a backtrace is of one thread")]
fn s24_nothing_runs_on_a_stack_that_is_inspected() {
    const SIZE: usize = 256 * 1024;
    const PAINT: u8 = 0xa5;

    let memory = Box::into_raw(vec![MaybeUninit::new(PAINT); SIZE].into_boxed_slice());
    let first = memory.cast::<u8>();
    let never_used = || {
        let bytes = (0..SIZE).map(|offset| {
            // SAFETY: within the memory, which is there for ever; the greenlet is suspended.
            unsafe { first.add(offset).read_volatile() }
        });
        bytes.take_while(|&byte| byte == PAINT).count()
    };
    // SAFETY: there for ever; used only here, and what runs on it fits.
    let stack = unsafe { UnguardedStack::new(&mut *memory) };
    enter(|me: &Root<()>| {
        let main = me.handle();
        let build = Builder::new().stack(stack);
        let waits = build.build(me, move |me, ()| {
            me.switch(&main, ())?;
            enter(|root: &Root<()>| root.switch(&main, ()))
        });
        let waits = waits.unwrap();
        // First the greenlet itself is suspended on the stack, then a root that it entered.
        for count in [1, 2] {
            me.switch(&waits, ()).unwrap();
            let before = never_used();
            let snapshot = Snapshot::take();
            assert!(waits.backtrace().is_some());
            assert_eq!(never_used(), before);
            let there = &snapshot.greenlets()[1..];
            assert_eq!(there.len(), count);
            for greenlet in there {
                let backtrace = greenlet.backtrace.as_ref().unwrap().to_string();
                assert!(backtrace.contains("nothing_runs_on_a_stack"), "{backtrace}");
            }
        }
    });
}

#[test]
fn s24_a_running_greenlet_can_inspect_one_that_waits_for_it() {
    enter(|me| {
        let outer = Greenlet::new(me, |_, ()| {
            enter(|inner: &Root<()>| {
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
#[cfg_attr(miri, ignore = "under Miri a backtrace is of one thread")]
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
#[cfg_attr(miri, ignore = "under Miri a backtrace is of one thread")]
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
    enter(|me: &Root<()>| {
        let main = me.handle();
        let deep = Greenlet::new(me, move |me, ()| descend(me, &main, 20));
        me.switch(&deep, ()).unwrap();
        let snapshot = Snapshot::take();
        let (few, all) = (format!("{snapshot}"), format!("{snapshot:#}"));
        let frames = |text: &str| text.matches("descend").count();
        assert_eq!((frames(&few), frames(&all)), (3, 21), "{few}{all}");
        // Without debug information, frames have no file and line.
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
    enter(|me: &Root<()>| {
        let make = |name: &str| {
            let build = Builder::new().name(name);
            build.build(me, |_: &Child<(), _>, ()| Ok(())).unwrap()
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
#[cfg_attr(miri, ignore = "under Miri a backtrace is of one thread")]
fn s24_greenlets_suspended_at_the_same_place_share_their_backtrace() {
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
fn s24_a_snapshot_sees_the_greenlets_of_every_enter() {
    enter(|_: &Root<()>| {
        enter(|inner: &Root<()>| {
            let _scoped = Greenlet::new(inner, |_, ()| Ok(()));
            assert_eq!(Snapshot::take().greenlets().len(), 3);
        });
        assert_eq!(Snapshot::take().greenlets().len(), 1);
    });
}

#[test]
#[cfg_attr(miri, ignore = "under Miri locals are not on the stack")]
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
        if cfg!(windows) {
            return skip("Windows is not asked which pages of a stack were used");
        }
        assert!(after.peak >= 20_000 && after.peak < after.size, "{after:?}");
    });
}

#[test]
#[cfg_attr(miri, ignore = "under Miri locals are not on the stack")]
#[cfg_attr(
    any(feature = "asan", feature = "tsan"),
    ignore = "an instrumented frame is larger"
)]
fn s25_each_call_that_switches_keeps_less_than_256_bytes_of_stack() {
    #[inline(never)]
    fn wait_under(me: &Current<()>, main: &Greenlet<()>, calls: usize) -> Result<(), Thrown> {
        let outcome = match calls {
            0 => me.switch(main, ()),
            _ => wait_under(me, main, calls - 1),
        };
        black_box(outcome)
    }
    fn in_use(calls: usize) -> usize {
        enter(|me| {
            let main = me.handle();
            let greenlet = Greenlet::new(me, move |me, ()| wait_under(me, &main, calls));
            me.switch(&greenlet, ()).unwrap();
            greenlet.stack_usage().unwrap().in_use
        })
    }
    let each = (in_use(26) - in_use(10)) / 16;
    // In Windows' ABI ten vector registers are callee-saved, so a function that switches saves them.
    let vector_registers = if cfg!(windows) { 10 * 16 } else { 0 };
    assert!(each < 256 + vector_registers, "{each} bytes");
}
