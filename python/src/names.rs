//! Objects that are needed again and again: made once, kept for ever.

use core::{
    ptr,
    sync::atomic::{AtomicPtr, Ordering},
};

use pyo3_ffi::{PyObject, PyTuple_New, PyUnicode_InternFromString};

use crate::refs::Owned;

static RUN: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
static SWITCH: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
static THROW: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
static EMPTY_TUPLE: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// Makes them. `None`: with an exception.
pub(crate) unsafe fn make() -> Option<()> {
    for (place, name) in [(&RUN, c"run"), (&SWITCH, c"switch"), (&THROW, c"throw")] {
        // SAFETY: the GIL is held.
        let made = unsafe { PyUnicode_InternFromString(name.as_ptr()) };
        if made.is_null() {
            return None;
        }
        place.store(made, Ordering::Relaxed);
    }
    // SAFETY: the GIL is held. CPython has one empty tuple, which it keeps itself as well.
    let made = unsafe { PyTuple_New(0) };
    EMPTY_TUPLE.store(made, Ordering::Relaxed);
    (!made.is_null()).then_some(())
}

pub(crate) fn run() -> *mut PyObject {
    RUN.load(Ordering::Relaxed)
}

pub(crate) fn switch() -> *mut PyObject {
    SWITCH.load(Ordering::Relaxed)
}

pub(crate) fn throw() -> *mut PyObject {
    THROW.load(Ordering::Relaxed)
}

/// The empty tuple.
#[inline(always)]
pub(crate) fn empty_tuple() -> Owned {
    // SAFETY: it is kept for ever, and who asks holds the GIL.
    unsafe { Owned::from_borrowed(EMPTY_TUPLE.load(Ordering::Relaxed)) }
}
