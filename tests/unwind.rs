//! A backtrace of a greenlet continues in the frames of its suspended parent, and ends in those of the
//! thread's own stack.

#![cfg(not(miri))]

use std::{
    backtrace::Backtrace,
    cell::{Cell, OnceCell},
    hint::black_box,
    mem::MaybeUninit,
    rc::Rc,
};

use greenlet::{
    Child, Current, Greenlet, Root, Thrown, Unscoped, enter,
    raw::{self, Context, Departure, Message, Stack, ToolsFiber},
};

use crate::order::assert_in_order;

/// The greenlets here share handles of each other.
fn unscoped() -> Unscoped {
    // SAFETY: no greenlet here is suspended while it borrows a thread-local.
    unsafe { Unscoped::new() }
}

/// What the greenlets of a test share.
#[derive(Default)]
struct Shared {
    third: OnceCell<Greenlet<'static, ()>>,
    trace: Cell<String>,
}

/// Makes a child of the running greenlet that captures a backtrace.
fn make_third(me: &Current<'static, ()>, shared: &Rc<Shared>) {
    let captures = Rc::clone(shared);
    let third = Greenlet::new(me, move |_, ()| {
        third_captures(&captures);
        Ok(())
    });
    shared.third.set(third).expect("set once");
}

// Each of these functions has a frame of its own while it waits: it is not inlined, makes no tail call,
// and no two have the same code, which would be merged.

#[inline(never)]
fn third_captures(shared: &Shared) {
    shared.trace.set(Backtrace::force_capture().to_string());
}

#[inline(never)]
fn second_waits(me: &Current<()>, main: &Greenlet<()>) -> Result<(), Thrown> {
    black_box("second");
    black_box(me.switch(main, ()))
}

#[inline(never)]
fn first_waits(me: &Current<()>, second: &Greenlet<()>) -> Result<(), Thrown> {
    black_box("first");
    black_box(me.switch(second, ()))
}

#[inline(never)]
fn main_waits(me: &Current<()>, target: &Greenlet<()>) -> Result<(), Thrown> {
    black_box("main");
    black_box(me.switch(target, ()))
}

#[inline(never)]
fn inner_waits(me: &Current<()>, target: &Greenlet<()>) -> Result<(), Thrown> {
    black_box("inner");
    black_box(me.switch(target, ()))
}

/// Makes main, first, second, third, each the parent of the next, and returns a backtrace of third. Second is
/// suspended or, if `second_is_over`, has finished.
#[inline(never)]
fn run_tree(second_is_over: bool) -> String {
    let shared = Rc::<Shared>::default();
    unscoped().enter(|me| {
        let main = me.handle();
        let for_first = Rc::clone(&shared);
        let first = Greenlet::new(me, move |me, ()| {
            let for_second = Rc::clone(&for_first);
            let for_third = Rc::clone(&for_first);
            let second = Greenlet::new(me, move |me, ()| {
                let third = Greenlet::new(me, move |_, ()| {
                    third_captures(&for_third);
                    Ok(())
                });
                for_second.third.set(third).unwrap();
                if second_is_over {
                    Ok(())
                } else {
                    second_waits(me, &main)
                }
            });
            first_waits(me, &second)?;
            if second_is_over {
                let third = for_first.third.get().unwrap();
                first_waits(me, third)?;
            }
            Ok(())
        });
        main_waits(me, &first).unwrap();
        // Main resumes third. In its backtrace the caller is its parent, second.
        if !second_is_over {
            main_waits(me, shared.third.get().unwrap()).unwrap();
        }
    });
    shared.trace.take()
}

#[test]
fn a_backtrace_continues_in_the_parents() {
    let trace = run_tree(false);
    assert_in_order(
        &trace,
        &[
            "unwind::third_captures",
            "unwind::second_waits",
            "unwind::first_waits",
            "unwind::main_waits",
            "unwind::run_tree",
            // libtest, which called the test
            "test::",
        ],
    );
}

#[test]
fn a_backtrace_passes_through_a_dead_parent() {
    let trace = run_tree(true);
    assert_in_order(
        &trace,
        &[
            "unwind::third_captures",
            "unwind::first_waits",
            "unwind::main_waits",
            "unwind::run_tree",
            // libtest, which called the test
            "test::",
        ],
    );
    assert!(!trace.contains("unwind::second_waits"), "{trace}");
}

#[test]
fn a_backtrace_passes_through_a_parent_that_has_entered_again() {
    for outer_has_switched in [false, true] {
        let shared = Rc::<Shared>::default();
        enter(|outer| {
            let child = {
                let shared = Rc::clone(&shared);
                Greenlet::new(outer, move |_, ()| {
                    third_captures(&shared);
                    Ok(())
                })
            };
            if outer_has_switched {
                main_waits(outer, &Greenlet::new(outer, |_, ()| Ok(()))).unwrap();
            }
            // The child's value arrives in a greenlet that does not expect it.
            enter(|inner| inner_waits(inner, &child)).unwrap_err();
        });
        let trace = shared.trace.take();
        assert_in_order(
            &trace,
            &[
                "unwind::third_captures",
                "unwind::inner_waits",
                "unwind::a_backtrace_passes_through_a_parent_that_has_entered_again",
                // libtest, which called the test
                "test::",
            ],
        );
        assert!(!trace.contains("unwind::main_waits"), "{trace}");
    }
}

#[test]
fn a_backtrace_passes_through_a_dead_parent_that_had_entered_again() {
    let shared = Rc::<Shared>::default();
    unscoped().enter(|main| {
        let parent = Greenlet::new(main, {
            let shared = Rc::clone(&shared);
            move |me: &Child<(), _>, ()| {
                enter(|_: &Root<()>| {});
                make_third(me, &shared);
                Ok(())
            }
        });
        first_waits(main, &parent).unwrap();
        main_waits(main, shared.third.get().unwrap()).unwrap();
    });
    let trace = shared.trace.take();
    assert_in_order(
        &trace,
        &[
            "unwind::third_captures",
            "unwind::main_waits",
            "unwind::a_backtrace_passes_through_a_dead_parent_that_had_entered_again",
        ],
    );
}

/// What the raw contexts of a test share.
#[derive(Default)]
struct Pair {
    main: Context,
    child: Context,
    main_fiber: ToolsFiber,
    child_fiber: ToolsFiber,
    trace: Cell<String>,
}

const NOTHING: Message = Message {
    word: MaybeUninit::uninit(),
    kind: 0,
};

unsafe extern "C" fn raw_child_captures(
    pair: *mut (),
    _: MaybeUninit<usize>,
    _: usize,
    departure: *mut Departure,
) {
    // SAFETY: `raw_main_waits` passed the pair, and is suspended.
    let pair = unsafe { &*pair.cast::<Pair>() };
    // SAFETY: main has switched to this context.
    unsafe { pair.child_fiber.arrive_at_bottom() };
    pair.trace.set(Backtrace::force_capture().to_string());
    // SAFETY: `entry` lends the departure, and this function returns.
    unsafe {
        pair.child_fiber.leave_for_ever(&pair.main_fiber);
        departure.write(Departure {
            to: MaybeUninit::new(&raw const pair.main),
            message: MaybeUninit::new(NOTHING),
        });
    }
}

/// Runs a raw child whose parent is this context or, without one, its caller. Returns its backtrace.
#[inline(never)]
fn raw_main_waits(parent: Option<*const Context>) -> String {
    let stack = Stack::map(256 * 1024, 4096).unwrap();
    let pair = Pair::default();
    // SAFETY: the two and the stack live until the child is over, which it is when the switch
    // returns.
    unsafe {
        pair.child
            .set_parent(parent.unwrap_or(&raw const pair.main));
        pair.child.prepare(
            stack.top(),
            raw_child_captures,
            (&raw const pair).cast_mut().cast(),
        );
        pair.child_fiber.prepare(stack.limits());
        pair.main_fiber.leave(&pair.child_fiber);
        black_box(pair.main.switch(&pair.child, NOTHING));
        pair.main_fiber.arrive();
    }
    pair.trace.take()
}

#[test]
fn a_backtrace_of_a_raw_context_continues_in_its_parent() {
    assert_in_order(
        &raw_main_waits(None),
        &[
            "unwind::raw_child_captures",
            "unwind::raw_main_waits",
            "test::",
        ],
    );
}

#[test]
fn a_backtrace_of_a_raw_context_under_end_ends() {
    let trace = raw_main_waits(Some(raw::END));
    let rest = assert_in_order(&trace, &["unwind::raw_child_captures"]);
    assert!(!rest.contains("unwind::raw_main_waits"), "{trace}");
    assert!(!rest.contains("test::"), "{trace}");
}
