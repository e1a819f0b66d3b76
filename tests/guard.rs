//! A write into the guard below a stack faults, so an overflow does not change the stack below it (rule s26).
//! The writes are made in forked children.

#![cfg(unix)] // not on Windows: it faults in forked children; windows.rs has the like

use std::{
    cell::Cell,
    hint::black_box,
    io,
    mem::{self, MaybeUninit},
    ptr,
    rc::Rc,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicPtr, Ordering},
    },
};

use greenlet::{Builder, Greenlet, Root, enter, raw::Stack};

use crate::machine::page_size;
use crate::process::{self, in_child};
use crate::support::child::child;

/// Larger than a page, and smaller than the guard of targets without stack probes.
const LARGE_FRAME: usize = 32 * 1024;

/// The size of stacks. A large frame that steps over the guard ends in the stack below, not in the next
/// guard, where it would fault after all.
const STACK: usize = 2 * LARGE_FRAME;

/// The default size of guards, bytes.
const GUARD: usize = if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
    4096
} else {
    64 * 1024
};

/// The bytes of stack that a deep recursion leaves for the function that it calls last.
const RESERVE: usize = 3 * 1024;

/// The address of a forked child's first fault, in memory that is shared with the child.
struct Fault {
    address: *mut usize,
}

impl Fault {
    fn new() -> Self {
        // SAFETY: a new mapping.
        let page = unsafe {
            libc::mmap(
                ptr::null_mut(),
                page_size(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(
            page,
            libc::MAP_FAILED,
            "mmap: {}",
            io::Error::last_os_error()
        );
        FAULT.store(page.cast(), Ordering::Relaxed);
        Self {
            address: page.cast(),
        }
    }

    /// Called in the child: records the next fault, which then ends the child.
    fn watch() {
        extern "C" fn on_fault(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
            // SAFETY: the system fills in the address; the word is writable.
            unsafe {
                FAULT
                    .load(Ordering::Relaxed)
                    .write((*info).si_addr().addr())
            };
        }
        let memory = Stack::map(64 * 1024, 4096).unwrap();
        for signal in [libc::SIGSEGV, libc::SIGBUS] {
            // SAFETY: the stack is leaked; the handler writes a word.
            unsafe {
                let stack = libc::stack_t {
                    ss_sp: memory.bottom().cast(),
                    ss_flags: 0,
                    ss_size: memory.size(),
                };
                assert_eq!(libc::sigaltstack(&stack, ptr::null_mut()), 0);
                let mut action: libc::sigaction = mem::zeroed();
                action.sa_sigaction = on_fault as *const () as usize;
                // The instruction faults again, with the default action.
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND;
                assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0);
            }
        }
        mem::forget(memory);
    }

    /// Bytes from the fault up to `bottom`.
    fn below(&self, bottom: *mut u8) -> usize {
        // SAFETY: the word is there; the child that wrote it has ended.
        bottom
            .addr()
            .wrapping_sub(unsafe { self.address.read_volatile() })
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        // SAFETY: a mapping of our own, to which nothing refers.
        unsafe { libc::munmap(self.address.cast(), page_size()) };
    }
}

/// The word to which the handler writes.
static FAULT: AtomicPtr<usize> = AtomicPtr::new(ptr::null_mut());

/// One test at a time uses [`FAULT`].
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Returns an address on the caller's stack.
#[inline(always)]
fn here() -> *mut u8 {
    let mut local = 0u8;
    black_box(&raw mut local)
}

/// The kind of stack that a test is about.
#[derive(Clone, Copy)]
enum Stacks {
    Fresh,
    /// Used by another greenlet before.
    Reused,
    /// Built with `guard_size(0)`.
    OverLeastGuard,
}

/// Runs `act` in a greenlet with such a stack, in a forked child. Passes it the lowest address of the stack
/// as requested; the stack may be a little larger. Returns how the child ended, and whether a fault was in
/// the guard. Below the guard lies another greenlet's stack, where a write would not fault.
fn at_the_bottom(stacks: Stacks, act: fn(bottom: *mut u8)) -> (process::Ending, bool) {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let fault = Fault::new();
    let size = STACK.next_multiple_of(page_size());
    let builder = || match stacks {
        Stacks::OverLeastGuard => Builder::new().stack_size(STACK).guard_size(0),
        _ => Builder::new().stack_size(STACK),
    };
    let (ending, below) = enter(|me: &Root<()>| {
        let main = me.handle();
        let waiting = |act: Option<fn(*mut u8)>| {
            let (main, bottom) = (main.clone(), Rc::new(Cell::new(ptr::null_mut())));
            let told = Rc::clone(&bottom);
            let greenlet: Greenlet<()> = builder()
                .build(me, move |me, ()| {
                    told.set(top().wrapping_sub(size));
                    // In the parent process this returns the error of a kill.
                    me.switch(&main, ())?;
                    if let Some(act) = act {
                        Fault::watch();
                        act(told.get());
                    }
                    Ok(())
                })
                .unwrap();
            me.switch(&greenlet, ()).unwrap();
            (greenlet, bottom.get())
        };
        let (_neighbour, neighbours_bottom) = waiting(None);
        if let Stacks::Reused = stacks {
            // It dies, and its stack is reused next.
            drop(waiting(None));
        }
        let (greenlet, bottom) = waiting(Some(act));
        let apart = bottom.addr() - neighbours_bottom.addr();
        assert!(apart <= size + GUARD + 2 * page_size(), "no neighbour");
        let ending = in_child(|| me.switch(&greenlet, ()).unwrap());
        (ending, fault.below(bottom))
    });
    (ending, (1..=GUARD + 2 * page_size()).contains(&below))
}

/// Returns the end of the topmost page of a stack, if called in one of its first frames.
#[inline(always)]
fn top() -> *mut u8 {
    here().map_addr(|address| address.next_multiple_of(page_size()))
}

/// Recurses as deep as the stack allows, and calls `then` there.
#[inline(never)]
fn when_the_stack_is_nearly_used_up(bottom: *mut u8, then: fn()) {
    let mut frame = [0u8; 64];
    black_box(&mut frame);
    if here().addr() - bottom.addr() > RESERVE {
        when_the_stack_is_nearly_used_up(bottom, then);
    } else {
        then();
    }
    black_box(&mut frame);
}

/// Writes only to the low end of its frame, like a function that fills an array from its beginning.
#[inline(never)]
fn large_frame() {
    let mut frame = MaybeUninit::<[u8; LARGE_FRAME]>::uninit();
    let low_end = black_box(&raw mut frame).cast::<u8>();
    // SAFETY: within the frame.
    unsafe { low_end.write_volatile(1) };
    black_box(&mut frame);
}

#[inline(never)]
fn small_frame() {
    black_box(&mut [0u8; 16]);
}

#[inline(never)]
fn recurse_without_end(depth: usize) -> usize {
    let mut frame = [depth; 8];
    black_box(&mut frame);
    if black_box(depth) == usize::MAX {
        return 0;
    }
    recurse_without_end(depth + 1) + frame[depth % 8]
}

#[test]
fn a_stack_is_writable_to_its_ends_and_its_guard_nowhere() {
    for guard_size in [1, page_size(), 64 * 1024] {
        let stack = Stack::map(Builder::MIN_STACK_SIZE, guard_size).unwrap();
        assert!(stack.guard_size() >= guard_size && stack.size() >= Builder::MIN_STACK_SIZE);
        let write = |at: *mut u8| in_child(|| unsafe { at.write_volatile(1) });
        for at in [stack.bottom(), stack.top().wrapping_sub(1)] {
            let ending = write(at);
            assert!(ending.is_success(), "{at:p} of {stack:?}: {ending:?}");
        }
        let end = stack.bottom().wrapping_sub(stack.guard_size());
        for at in [stack.bottom().wrapping_sub(1), end] {
            let ending = write(at);
            assert!(ending.is_fault(), "{at:p} of {stack:?}: {ending:?}");
        }
    }
}

#[test]
fn a_stack_without_a_guard_is_writable_to_its_ends() {
    // In a fresh process: its first stack tells whether the system can guard pages.
    let Some(ended) = child(|| {
        let stack = Stack::map(Builder::MIN_STACK_SIZE, 0).unwrap();
        assert_eq!(stack.guard_size(), 0);
        for at in [stack.bottom(), stack.top().wrapping_sub(1)] {
            // SAFETY: nobody else uses the stack.
            unsafe { at.write_volatile(1) };
        }
    }) else {
        return;
    };
    ended.assert_success();
}

#[test]
fn s26_recursion_without_end_faults() {
    let (ending, in_guard) = at_the_bottom(Stacks::Fresh, |_| {
        black_box(recurse_without_end(0));
    });
    assert!(ending.is_fault(), "{ending:?}");
    assert!(in_guard);
}

#[test]
fn s26_a_frame_larger_than_a_page_does_not_step_over_the_guard() {
    // The recursion leaves enough stack for a small frame, so the fault afterwards is that of the large
    // frame.
    let (ending, _) = at_the_bottom(Stacks::Fresh, |bottom| {
        when_the_stack_is_nearly_used_up(bottom, small_frame);
    });
    assert!(ending.is_success(), "{ending:?}");

    let (ending, in_guard) = at_the_bottom(Stacks::Fresh, |bottom| {
        when_the_stack_is_nearly_used_up(bottom, large_frame);
    });
    assert!(ending.is_fault(), "{ending:?}");
    assert!(in_guard);
}

#[test]
fn s26_a_stack_that_is_used_again_has_its_guard_still() {
    // Once with the pages that it had, once without: both ways in which a pool reuses a stack.
    for idle in [1_000, 0] {
        greenlet::set_idle_stacks(idle);
        let (ending, in_guard) = at_the_bottom(Stacks::Reused, |_| {
            black_box(recurse_without_end(0));
        });
        assert!(ending.is_fault() && in_guard, "{ending:?}");
    }
}

#[test]
fn s26_a_guard_of_no_size_is_rounded_up_to_a_page() {
    let (ending, in_guard) = at_the_bottom(Stacks::OverLeastGuard, |_| {
        black_box(recurse_without_end(0));
    });
    assert!(ending.is_fault() && in_guard, "{ending:?}");
}
