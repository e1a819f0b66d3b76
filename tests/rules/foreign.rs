//! s28: native exceptions and forced unwinds.

use std::{
    env,
    ffi::{CString, c_char, c_int, c_void},
    fs,
    process::Command,
    ptr,
};

use greenlet::{Builder, Current, Greenlet, Root, enter};

use crate::{
    machine::{emulated, skip, skip_for_want_of},
    support::{child::child, log::Log},
};

/// The head of an exception object, and room for the unwinder's fields.
#[repr(C, align(16))]
struct Exception {
    class: [u8; 8],
    cleanup: Option<extern "C" fn(c_int, *mut Exception)>,
    private: [usize; 32],
}

unsafe extern "C-unwind" {
    fn _Unwind_RaiseException(exception: *mut c_void) -> c_int;
    #[cfg(target_env = "gnu")]
    fn pthread_exit(value: *mut c_void) -> !;
}

/// Throws an exception of neither Rust nor C++.
fn throw_foreign() {
    let exception = Box::leak(Box::new(Exception {
        class: *b"TESTFRGN",
        cleanup: None,
        private: [0; 32],
    }));
    // SAFETY: the object is there for ever, with room for every unwinder's part.
    let code = unsafe { _Unwind_RaiseException(ptr::from_mut(exception).cast()) };
    panic!("nobody would have caught it: {code}");
}

fn in_a_named_greenlet(end: fn()) {
    enter(|me: &Root<()>| {
        let build = Builder::new().name("native");
        let g = build.build(me, move |_, ()| {
            end();
            Ok(())
        });
        let _ = me.switch(&g.unwrap(), ());
        eprintln!("it crossed into another greenlet");
    });
}

#[test]
fn s28_a_foreign_exception_that_reaches_the_base_aborts_with_a_message() {
    let Some(ended) = child(|| in_a_named_greenlet(throw_foreign)) else {
        return;
    };
    ended.assert_aborted_with(&["exception"]);
    assert!(!ended.stderr.contains("it crossed"));
}

#[test]
#[cfg(target_env = "gnu")]
fn s28_a_forced_unwind_that_reaches_the_base_aborts_with_a_message() {
    let Some(ended) = child(|| {
        // SAFETY: what it would leave behind does not matter, as the process aborts.
        in_a_named_greenlet(|| unsafe { pthread_exit(std::ptr::null_mut()) });
    }) else {
        return;
    };
    ended.assert_aborted_with(&["exception"]);
    assert!(!ended.stderr.contains("it crossed"));
}

const CATCHES: &str = r#"
#include <stdexcept>
#include <string>

// Calls back in a `try`, and throws there.
extern "C" int throw_and_catch(int (*call_back)(void *), void *context) {
    try {
        std::string local("alive");
        int value = call_back(context);
        throw std::runtime_error(local + std::to_string(value));
    } catch (const std::runtime_error &error) {
        return std::string(error.what()) == "alive7" ? call_back(context) : -1;
    }
}
"#;

type ThrowAndCatch = extern "C" fn(extern "C" fn(*mut c_void) -> c_int, *mut c_void) -> c_int;

/// Compiles the function above. Returns `None` and skips the test if that is impossible.
fn throw_and_catch() -> Option<ThrowAndCatch> {
    if emulated() {
        skip("the C++ compiler here is not one for the emulated machine");
        return None;
    }
    if cfg!(target_feature = "crt-static") {
        skip("a static program cannot load what is compiled");
        return None;
    }
    let directory = env!("CARGO_TARGET_TMPDIR");
    let (source, library) = (
        format!("{directory}/catches.cc"),
        format!("{directory}/catches.so"),
    );
    fs::write(&source, CATCHES).expect("Cargo's directory for this");
    let compiler = env::var("CXX").unwrap_or_else(|_| "c++".into());
    let compiled = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-o", &library, &source])
        .status();
    if !compiled.as_ref().is_ok_and(|status| status.success()) {
        skip_for_want_of(format_args!("a C++ compiler ({compiler}: {compiled:?})"));
        return None;
    }
    let path = CString::new(library).expect("a path");
    let name: *const c_char = c"throw_and_catch".as_ptr();
    // SAFETY: valid texts; the symbol is a function of this type.
    unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        assert!(!library.is_null(), "the library that was just built");
        let symbol = libc::dlsym(library, name);
        assert!(!symbol.is_null());
        Some(std::mem::transmute::<*mut c_void, ThrowAndCatch>(symbol))
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri runs no C++")]
fn s28_inside_one_greenlet_a_native_exception_passes_as_usual_also_across_switches() {
    struct Side<'a, 'e> {
        me: &'a Current<'e, c_int>,
        main: &'a Greenlet<'e, c_int>,
    }
    extern "C" fn switch_to_main(side: *mut c_void) -> c_int {
        // SAFETY: the address of a side, which is borrowed meanwhile.
        let side = unsafe { &*side.cast_const().cast::<Side<'_, '_>>() };
        side.me.switch(side.main, 0).unwrap()
    }

    let Some(throw_and_catch) = throw_and_catch() else {
        return;
    };
    let log = Log::new();
    enter(|me: &Root<c_int>| {
        let both = [(); 2].map(|()| {
            let (main, log) = (me.handle(), log.clone());
            Greenlet::new(me, move |me, _: c_int| {
                let side = Side { me, main: &main };
                let side = (&raw const side).cast_mut().cast();
                log.add(throw_and_catch(switch_to_main, side));
                Ok(0)
            })
        });
        // Both are within their `try`, then both in their `catch`.
        for message in [1, 7, 9] {
            for g in &both {
                assert_eq!(me.switch(g, message).unwrap(), 0);
            }
        }
        assert!(both.iter().all(Greenlet::is_dead));
    });
    assert_eq!(log.take(), [9, 9]);
}
