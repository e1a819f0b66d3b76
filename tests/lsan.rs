//! With the feature `asan` LeakSanitizer finds pointers on the stacks of suspended greenlets.
//! `ci/tools.sh asan` runs this, and checks that it fails without the feature.

#![cfg(unix)] // not on Windows: there is no LeakSanitizer

// The sanitizer's functions are weak symbols of ELF.
#![cfg(all(target_os = "linux", not(miri)))]

use std::{ffi::c_int, hint::black_box};

use greenlet::{Current, Greenlet, Root, enter};

use crate::runtime::weak_function;

// From compiler-rt's `sanitizer/lsan_interface.h`.
weak_function!(check: unsafe extern "C" fn() -> c_int = "__lsan_do_recoverable_leak_check");

fn are_leaks_found() -> bool {
    let check = check().expect("this is for AddressSanitizer: ci/tools.sh asan");
    // SAFETY: no precondition.
    unsafe { check() != 0 }
}

/// Overwrites what earlier calls have left below the stack pointer.
#[inline(never)]
fn clear_stack() {
    black_box([0u8; 16 * 1024]);
}

/// Returns a suspended greenlet whose stack has the only pointer to its message. The message is allocated
/// in this function, because the sanitizer reports only leaks whose allocating frames it sees.
#[inline(never)]
fn suspend<'e>(me: &Current<'e, ()>) -> Greenlet<'e, Vec<u64>> {
    let main = me.handle();
    let greenlet = Greenlet::new(me, move |me, owned: Vec<u64>| {
        let outcome = me.switch(&main, ());
        black_box(&owned);
        outcome.map(|_: Vec<u64>| ())
    });
    me.switch(&greenlet, black_box(vec![1; 1000])).unwrap();
    greenlet
}

#[inline(never)]
fn leak() {
    black_box(Box::leak(Box::new([2u64; 1000])));
}

#[test]
#[ignore = "for AddressSanitizer"]
fn what_a_suspended_greenlet_owns_is_no_leak_and_unreachable_memory_is() {
    enter(|me: &Root<()>| {
        let suspended = suspend(me);
        clear_stack();
        assert!(!are_leaks_found(), "a suspended stack is not searched");
        me.kill(&suspended).unwrap();
        let reused = suspend(me);
        clear_stack();
        assert!(
            !are_leaks_found(),
            "a stack that is used again is not searched"
        );
        drop((suspended, reused));
        leak();
        clear_stack();
        assert!(are_leaks_found(), "nothing is looked for");
    });
}
