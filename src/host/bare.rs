//! Without an operating system: one thread, and panics that do not unwind.
//!
//! If a panic unwinds all the same, the process aborts before it passes a frame on which the crate
//! relies.

use core::{fmt, mem};

/// The payload of a caught panic. Panics are not caught here, so there is none.
pub(crate) enum Panic {}

#[inline]
pub(crate) fn catch<R>(run: impl FnOnce() -> R) -> Result<R, Panic> {
    Ok(run())
}

/// Runs destructors. A panic of theirs ends the program, because it must not unwind past the caller.
pub(crate) fn contain(run: impl FnOnce()) {
    let end = EndOfUnwinding;
    run();
    mem::forget(end);
}

/// Ends the program when a panic unwinds past it: a panic in a destructor during unwinding aborts.
struct EndOfUnwinding;

impl Drop for EndOfUnwinding {
    fn drop(&mut self) {
        panic!("greenlet: without `std`, no panic may unwind from here");
    }
}

pub(crate) fn resume(panic: Panic) -> ! {
    match panic {}
}

pub(crate) const fn is_unwinding() -> bool {
    false
}

pub(crate) const fn counts_panics() -> bool {
    true
}

pub(crate) const fn unwind_to_exit() {}

pub(crate) const fn was_exit(panic: &Panic) -> bool {
    match *panic {}
}

/// Panics with the message; the panic handler of the board decides how the program ends.
#[cold]
pub(crate) fn abort(why: fmt::Arguments<'_>) -> ! {
    let _end = EndOfUnwinding;
    panic!("{why}")
}

/// Declares a static of the only thread of execution. The caller of [`enter`](crate::enter) promises that there is
/// only one.
macro_rules! per_thread {
    (static $name:ident: $type:ty = $value:expr;) => {
        static $name: $crate::host::OnlyThread<$type> = $crate::host::OnlyThread($value);
    };
}
pub(crate) use per_thread;

/// A value that only one thread uses.
pub(crate) struct OnlyThread<T>(pub(crate) T);

// SAFETY: one thread of execution uses this crate (contract of `enter`). Before the first `enter` other threads
// only read, because nothing is written without a greenlet.
unsafe impl<T> Sync for OnlyThread<T> {}

impl<T> OnlyThread<T> {
    pub(crate) fn with<R>(&self, use_it: impl FnOnce(&T) -> R) -> R {
        use_it(&self.0)
    }
}
