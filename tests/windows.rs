//! Tests for Windows: the message of a stack overflow (rule s26), and the fields of the thread environment
//! block.

#![cfg(windows)]

use std::{arch::asm, cell::Cell, fmt, hint::black_box, mem::MaybeUninit, ptr};

use greenlet::{
    Builder, Child, Root, enter,
    raw::{Context, Departure, Message, Stack, StackLimits, set_overflow_hook},
    report_stack_overflow,
};

use crate::support::{child::child, panics::catch};

/// STATUS_STACK_OVERFLOW.
const OVERFLOW: i32 = 0xc000_00fd_u32 as i32;

#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if depth == u64::MAX {
        return 0;
    }
    recurse(black_box(depth + 1)) + black_box(frame)[7]
}

fn overflow(name: &'static str) {
    enter(|me: &Root<u64>| {
        let greedy = Builder::new()
            .name(name)
            .stack_size(64 * 1024)
            .build(me, |_, ()| Ok(recurse(0)))
            .unwrap();
        let _ = me.switch(&greedy, ());
    });
}

#[test]
fn s26_an_overflow_names_the_greenlet_and_aborts() {
    let Some(ended) = child(|| {
        report_stack_overflow().unwrap();
        overflow("greedy");
    }) else {
        return;
    };
    ended.assert_aborted_with(&[
        "greenlet \"greedy\"",
        "has overflowed its stack of ",
        "stack_size",
        "fatal runtime error: stack overflow, aborting",
    ]);
}

#[test]
fn s26_without_the_report_an_overflow_is_the_systems_exception() {
    let Some(ended) = child(|| overflow("greedy")) else {
        return;
    };
    assert_eq!(ended.status.code(), Some(OVERFLOW), "{}", ended.stderr);
    assert!(!ended.stderr.contains("greedy"), "{}", ended.stderr);
}

thread_local! {
    static MAIN: Context = const { Context::new() };
    static LIMITS: Cell<Option<StackLimits>> = const { Cell::new(None) };
}

unsafe extern "C" fn recurse_at_once(
    _: *mut (),
    _: MaybeUninit<usize>,
    _: usize,
    _: *mut Departure,
) {
    black_box(recurse(0));
}

/// The fields of the thread environment block for this stack are found from the address of its top.
#[test]
fn s26_a_hook_names_the_stack_of_a_raw_context() {
    fn name(address: *const u8, report: &mut dyn fmt::Write) -> bool {
        let known = LIMITS.get().is_some_and(|it| it.is_guard(address));
        known && writeln!(report, "the raw context has overflowed").is_ok()
    }
    let Some(ended) = child(|| {
        report_stack_overflow().unwrap();
        let stack = Stack::map(64 * 1024, 4096).unwrap();
        LIMITS.set(Some(stack.limits()));
        let greedy = Context::new();
        // SAFETY: the hook reads a thread-local without a destructor; the context stays here, on a
        // stack of its own, and is switched to once.
        unsafe {
            set_overflow_hook(Some(name));
            MAIN.with(|main| {
                greedy.set_parent(main);
                greedy.prepare(stack.top(), recurse_at_once, ptr::null_mut());
                let message = Message {
                    word: MaybeUninit::uninit(),
                    kind: 0,
                };
                main.switch(&greedy, message);
            });
        }
    }) else {
        return;
    };
    ended.assert_aborted_with(&["the raw context has overflowed"]);
}

/// The fields of the thread environment block that describe the running stack.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Words {
    base: usize,
    limit: usize,
    deallocation: usize,
    guaranteed: u32,
}

impl Words {
    #[inline(never)]
    fn now() -> Self {
        let (base, limit, deallocation, guaranteed);
        // SAFETY: reads words of this thread.
        unsafe {
            asm!(
                "mov {base}, gs:[0x8]",
                "mov {limit}, gs:[0x10]",
                "mov {deallocation}, gs:[0x1478]",
                "mov {guaranteed:e}, gs:[0x1748]",
                base = out(reg) base,
                limit = out(reg) limit,
                deallocation = out(reg) deallocation,
                guaranteed = out(reg) guaranteed,
                options(nostack, preserves_flags, readonly),
            );
        }
        let words = Self {
            base,
            limit,
            deallocation,
            guaranteed,
        };
        let here = ptr::from_ref(&words).addr();
        assert!(
            deallocation < limit && limit <= here && here < base,
            "{here:#x} in {words:#x?}"
        );
        words
    }
}

#[test]
fn the_words_of_the_thread_are_those_of_the_running_stack() {
    let of_thread = Words::now();
    enter(|me: &Root<Words>| {
        let new = || {
            let body = |me: &Child<(), _>, ()| {
                me.switch_to_parent(Words::now())?;
                Ok(Words::now())
            };
            Builder::new()
                .stack_size(64 * 1024)
                .build(me, body)
                .unwrap()
        };
        let greenlets = [new(), new()];
        let first = greenlets.each_ref().map(|it| {
            let words = me.switch(it, ()).unwrap();
            let usage = it.stack_usage().unwrap();
            assert_eq!(words.base - words.limit, usage.size);
            assert_eq!(words.guaranteed, 32 * 1024);
            words
        });
        assert_ne!(first[0], first[1]);
        let again = greenlets.each_ref().map(|it| me.switch(it, ()).unwrap());
        assert_eq!(again, first);
    });
    // StackLimit decreases while the stack grows.
    let limit = Words::now().limit;
    assert_eq!(Words::now(), Words { limit, ..of_thread });
}

/// The system searches handlers within StackLimit and StackBase.
#[test]
fn s11_a_panic_is_caught_deep_down() {
    #[inline(never)]
    fn deep(depth: u32) -> u32 {
        let frame = black_box([depth; 200]);
        if depth == 0 {
            return catch(|| panic!("at the bottom")).is_err().into();
        }
        deep(depth - 1) + black_box(frame)[0] - depth
    }
    enter(|me: &Root<u32>| {
        for _ in 0..2 {
            let greenlet = Builder::new()
                .stack_size(512 * 1024)
                .build(me, |_, ()| Ok(deep(50)))
                .unwrap();
            assert_eq!(me.switch(&greenlet, ()).unwrap(), 1);
        }
    });
}
