//! Strings that are needed again and again; made once, kept for ever.

use core::{
    ptr,
    sync::atomic::{AtomicPtr, Ordering},
};

use pyo3_ffi::{PyObject, PyUnicode_InternFromString};

static RUN: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
static SWITCH: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
static THROW: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

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
    Some(())
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
