//! The host of programs with `std`.

use core::{any::Any, fmt};
use std::{
    io::{self, Write as _},
    panic::{self, AssertUnwindSafe},
    process, thread,
};

/// The payload of a caught panic.
pub(crate) type Panic = Box<dyn Any + Send>;

/// The payload that unwinds a greenlet that keeps switching after it was killed.
struct ExitUnwind;

/// Runs `run` and catches its panic.
#[inline]
pub(crate) fn catch<R>(run: impl FnOnce() -> R) -> Result<R, Panic> {
    panic::catch_unwind(AssertUnwindSafe(run))
}

/// Runs destructors and discards their panics, which the panic hook has reported.
pub(crate) fn contain(run: impl FnOnce()) {
    let mut outcome = catch(run);
    // The payload may have a destructor of its own that panics, with a payload …
    while let Err(payload) = outcome {
        outcome = catch(|| drop(payload));
    }
}

/// Resumes a caught panic.
pub(crate) fn resume(panic: Panic) -> ! {
    panic::resume_unwind(panic)
}

/// Returns `true` if this thread unwinds a panic.
#[inline(always)]
pub(crate) fn is_unwinding() -> bool {
    #[cfg(miri)]
    if super::carried::others_unwind() {
        return true;
    }
    thread::panicking()
}

/// Returns `false` in a panic hook: there std does not count a panic that is raised, and uncounts one
/// when it is caught. What was counted is lost then, and the process must end.
pub(crate) fn counts_panics() -> bool {
    if cfg!(panic = "unwind") && is_unwinding() {
        let _ = catch(|| panic::resume_unwind(Box::new(ExitUnwind)));
        return is_unwinding();
    }
    true
}

/// Unwinds the running greenlet, without the panic hook. Returns where panics abort.
pub(crate) fn unwind_to_exit() {
    if cfg!(panic = "unwind") {
        panic::resume_unwind(Box::new(ExitUnwind));
    }
}

/// Returns `true` if [`unwind_to_exit`] has raised this panic.
pub(crate) fn was_exit(panic: &Panic) -> bool {
    panic.is::<ExitUnwind>()
}

/// Prints why on standard error and aborts the process.
#[cold]
pub(crate) fn abort(why: fmt::Arguments<'_>) -> ! {
    // `eprintln!` panics if standard error is closed, and the greenlet might catch that.
    let _ = writeln!(io::stderr(), "{why}; aborting");
    process::abort()
}

/// Declares statics of which each thread has its own. If the value has no destructor, reading it
/// is a plain load and it stays usable while the thread ends.
#[cfg(not(any(miri, tls_keys)))]
macro_rules! per_thread {
    ($($(#[$attribute:meta])* static $name:ident: $type:ty = $value:expr;)+) => {
        std::thread_local! {
            $($(#[$attribute])* static $name: $type = const { $value };)+
        }
    };
}
#[cfg(not(any(miri, tls_keys)))]
pub(crate) use per_thread;
