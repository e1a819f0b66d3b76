//! Without an operating system: one thread, and panics that do not unwind.
//!
//! If a panic unwinds all the same, the process aborts before it passes a frame on which the crate
//! relies.

use core::{fmt, mem};

/// Panics are not caught here, so there is none to carry.
pub(crate) enum Panic {}

#[inline]
pub(crate) fn catch<R>(run: impl FnOnce() -> R) -> Result<R, Panic> {
    Ok(run())
}

/// Runs destructors. What their panic would unwind past is left undone, so that is the end.
pub(crate) fn contain(run: impl FnOnce()) {
    let end = EndOfUnwinding;
    run();
    mem::forget(end);
}

/// Not to be unwound past, in a program in which panics do unwind: one that comes out of a
/// destructor meanwhile ends it.
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

pub(crate) const fn unwind_to_exit() -> bool {
    false
}

pub(crate) const fn was_exit(panic: &Panic) -> bool {
    match *panic {}
}

/// The board's panic handler has the last word.
#[cold]
pub(crate) fn abort(why: fmt::Arguments<'_>) -> ! {
    let _end = EndOfUnwinding;
    panic!("{why}")
}

/// A static of the one thread of execution: [`enter`](crate::enter) has its caller promise that
/// there is only one.
macro_rules! per_thread {
    (static $name:ident: $type:ty = $value:expr;) => {
        static $name: $crate::host::OnlyThread<$type> = $crate::host::OnlyThread($value);
    };
}
pub(crate) use per_thread;

/// What only the one thread uses.
pub(crate) struct OnlyThread<T>(pub(crate) T);

// SAFETY: one thread of execution uses this crate (contract of `enter`). Whoever finds it before
// the first `enter` only reads: nothing of what is written is reached without a greenlet.
unsafe impl<T> Sync for OnlyThread<T> {}

impl<T> OnlyThread<T> {
    pub(crate) fn with<R>(&self, use_it: impl FnOnce(&T) -> R) -> R {
        use_it(&self.0)
    }
}
