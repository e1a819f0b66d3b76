//! A stack overflow ends the process with a message; other faults and signals have their usual effect (rule
//! s26).

#![cfg(unix)] // not on Windows: it looks at signals and their handlers; windows.rs has the like

use std::{
    fmt,
    hint::black_box,
    mem::{self, MaybeUninit},
    ptr,
    sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed},
    thread,
};

use greenlet::{
    Builder, enter,
    raw::{Pool, StackLimits, set_overflow_hook},
    report_stack_overflow,
};

use crate::order::assert_in_order;
use crate::process::{Ending, in_child};

#[inline(never)]
fn recurse(n: u64) -> u64 {
    let frame = black_box([n; 64]);
    if n == u64::MAX {
        return 0;
    }
    recurse(n + 1) + frame[3]
}

fn overflow() {
    overflow_of("deep");
}

/// Overflows the stack of a greenlet with this name.
fn overflow_of(name: &str) {
    enter(|me| {
        let deep = Builder::new()
            .name(name)
            .stack_size(16 * 1024)
            .build(me, |_, ()| {
                black_box(recurse(0));
                Ok(())
            })
            .unwrap();
        let _ = me.switch(&deep, ());
    });
}

/// Disables the thread's alternate signal stack, so handlers run on the interrupted stack.
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
fn s26_an_overflow_names_the_greenlet_on_a_thread_without_a_signal_stack() {
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
    // A thread drops thread-locals in reverse order of their first use. The signal stack goes between these
    // two.
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
fn s26_other_faults_go_to_the_handler_that_was_installed_before() {
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

/// Sets a signal stack with room for the frame of a signal and nothing else, like that of std on a
/// processor with the largest state.
fn set_small_signal_stack() {
    #[cfg(target_os = "linux")]
    let frame = {
        // From Linux's include/uapi/linux/auxvec.h.
        const AT_MINSIGSTKSZ: libc::c_ulong = 51;
        // SAFETY: no precondition.
        unsafe { libc::getauxval(AT_MINSIGSTKSZ) as usize }
    };
    #[cfg(not(target_os = "linux"))]
    let frame = 0;
    let memory = greenlet::raw::Stack::map(64 * 1024, 4096).unwrap();
    let stack = libc::stack_t {
        ss_sp: memory.bottom().cast(),
        ss_flags: 0,
        ss_size: frame.max(libc::MINSIGSTKSZ),
    };
    mem::forget(memory);
    // SAFETY: the memory is leaked.
    assert_eq!(unsafe { libc::sigaltstack(&stack, ptr::null_mut()) }, 0);
}

fn signal_stack_size() -> usize {
    let mut there = MaybeUninit::<libc::stack_t>::zeroed();
    // SAFETY: asks only.
    unsafe {
        libc::sigaltstack(ptr::null(), there.as_mut_ptr());
        there.assume_init().ss_size
    }
}

#[test]
fn s26_a_signal_stack_that_has_room_for_a_signals_frame_only_is_replaced() {
    assert_overflow_is_reported(&in_child(|| {
        set_small_signal_stack();
        report_stack_overflow().unwrap();
        assert!(signal_stack_size() > 16 * 1024);
        overflow();
    }));
}

#[test]
fn s26_a_small_signal_stack_is_replaced_on_each_thread_that_enters_afterwards() {
    assert_overflow_is_reported(&in_child(|| {
        report_stack_overflow().unwrap();
        let enters = thread::spawn(|| {
            set_small_signal_stack();
            overflow();
        });
        enters.join().unwrap();
    }));
}

#[test]
fn s26_a_signal_stack_that_was_set_later_stays_when_the_thread_ends() {
    struct AtEnd(fn());
    impl Drop for AtEnd {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    // std removes its own signal stack before either is dropped.
    thread_local! {
        static LAST: AtEnd = const { AtEnd(|| assert!(has_signal_stack())) };
        static FIRST: AtEnd = const { AtEnd(set_small_signal_stack) };
    }
    let child = in_child(|| {
        let ends = thread::spawn(|| {
            LAST.with(|_| ());
            take_signal_stack();
            report_stack_overflow().unwrap();
            FIRST.with(|_| ());
        });
        ends.join().unwrap();
    });
    assert!(child.is_success(), "{child:?}");
}

fn set_action(handler: usize, flags: libc::c_int) {
    // SAFETY: the handler fits the flags, by all callers.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(libc::SIGSEGV, &action, ptr::null_mut()), 0);
    }
}

fn send_sigsegv() {
    // SAFETY: what it does is what the tests are about.
    assert_eq!(unsafe { libc::raise(libc::SIGSEGV) }, 0);
}

#[test]
fn s26_a_signal_that_was_sent_ends_a_process_that_has_no_other_handler() {
    let default: fn() = || set_action(libc::SIG_DFL, 0);
    // std's handler restores the default action and returns, as for a fault, which would happen again.
    let stds: fn() = || ();
    for action_before in [default, stds] {
        let child = in_child(|| {
            action_before();
            report_stack_overflow().unwrap();
            send_sigsegv();
        });
        assert!(child.is_fault(), "{child:?}");
        assert!(!child.stderr.contains("overflow"), "{child:?}");
    }
}

#[test]
fn s26_a_signal_that_was_sent_goes_to_a_handler_and_the_report_stays() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn counts(_: libc::c_int) {
        CALLS.fetch_add(1, Relaxed);
    }
    for (handler, calls) in [(libc::SIG_IGN, 0), (counts as *const () as usize, 3)] {
        assert_overflow_is_reported(&in_child(|| {
            set_action(handler, 0);
            report_stack_overflow().unwrap();
            (0..3).for_each(|_| send_sigsegv());
            assert_eq!(CALLS.load(Relaxed), calls);
            overflow();
        }));
    }
}

#[test]
fn s26_a_handler_that_was_to_be_called_once_is_called_once() {
    extern "C" fn says(_: libc::c_int) {
        // SAFETY: async-signal-safe.
        unsafe { libc::write(2, c"once ".as_ptr().cast(), 5) };
    }
    let child = in_child(|| {
        set_action(says as *const () as usize, libc::SA_RESETHAND);
        report_stack_overflow().unwrap();
        send_sigsegv();
        send_sigsegv();
    });
    assert!(child.is_fault(), "{child:?}");
    // An emulator adds a message of its own.
    assert_eq!(child.stderr.matches("once ").count(), 1, "{child:?}");
}

#[test]
fn s26_a_fault_in_no_guard_ends_a_process_that_ignores_the_signal() {
    let child = in_child(|| {
        set_action(libc::SIG_IGN, 0);
        report_stack_overflow().unwrap();
        let nowhere = black_box(ptr::without_provenance_mut::<u8>(16));
        // SAFETY: the child faults.
        unsafe { nowhere.write_volatile(1) };
    });
    assert!(child.is_fault(), "{child:?}");
}

#[test]
fn s26_names_of_any_length_are_reported() {
    let odd = "\u{1b}[31m\n\r\t\"\\\u{202e}\u{7f}";
    let names = [
        String::new(),
        odd.to_owned(),
        "\u{10ffff}".repeat(30),
        "n".repeat(600),
        "\u{e9}".repeat(1 << 20),
    ];
    for name in names {
        let child = in_child(|| {
            report_stack_overflow().unwrap();
            overflow_of(&name);
        });
        assert!(child.is_abort(), "{child:?}");
        let begin = name
            .char_indices()
            .nth(200)
            .map_or(&*name, |(end, _)| &name[..end]);
        let cut = if begin.len() < name.len() { "..." } else { "" };
        let named = format!("greenlet {begin:?}{cut} (#");
        let words = [
            &named,
            "overflowed its stack of",
            "stack overflow, aborting",
        ];
        assert_in_order(&child.stderr, &words);
    }
}

/// The bottom of the pool's stack whose guard a test touches.
static BOTTOM: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

fn name_in_guard(address: *const u8, report: &mut dyn fmt::Write) -> bool {
    let below = BOTTOM.load(Relaxed).addr().wrapping_sub(address.addr());
    let is_ours = (1..=4096).contains(&below);
    if is_ours {
        // Longer than the report's buffer.
        for task in 0..100 {
            let _ = writeln!(report, "task {task} of somebody's runtime");
        }
    }
    is_ours
}

/// Writes to a stack of a pool, or to its guard, in a child with the hook [`name_in_guard`].
fn touch(at: impl FnOnce(StackLimits) -> *mut u8) -> Ending {
    in_child(|| {
        report_stack_overflow().unwrap();
        // SAFETY: it reads a static, and writes.
        assert!(unsafe { set_overflow_hook(Some(name_in_guard)) }.is_none());
        let limits = Pool::new().take(64 * 1024, 4096).unwrap().limits();
        BOTTOM.store(limits.bottom(), Relaxed);
        // SAFETY: nobody else uses the stack.
        unsafe { at(limits).write_volatile(1) };
    })
}

#[test]
fn a_runtime_on_the_raw_layer_says_whose_the_stack_was() {
    let child = touch(|limits| limits.bottom().wrapping_sub(8));
    assert!(child.is_abort(), "{child:?}");
    let words = ["task 0 of", "task 99 of", "stack overflow, aborting"];
    assert_in_order(&child.stderr, &words);

    let child = touch(|limits| limits.bottom());
    assert!(child.is_success(), "{child:?}");
    let child = touch(|_| ptr::without_provenance_mut(16));
    assert!(
        child.is_fault() && !child.stderr.contains("task"),
        "{child:?}"
    );
}
