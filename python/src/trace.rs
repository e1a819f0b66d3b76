//! The callback of `settrace`, called after a switch by the greenlet that was resumed.

use core::ptr;

use pyo3_ffi::{Py_DECREF, PyObject, PyObject_CallFunction};

use crate::{
    exceptions::{self, Exception},
    names,
    refs::Owned,
    shim,
    thread::Thread,
};

/// Reports that `origin` has switched to `target` with `result`, or with the pending exception if
/// that is null. Returns `result`, or null if the callback has raised an exception, which takes the
/// place of both.
#[inline(never)]
pub(crate) unsafe fn report(
    thread: &Thread,
    origin: *mut PyObject,
    target: *mut PyObject,
    result: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the contract.
    unsafe {
        if !thread.trace.get().is_null()
            && !report_start(thread, origin, target, result.is_null())
            && !result.is_null()
        {
            Py_DECREF(result);
            return ptr::null_mut();
        }
        result
    }
}

/// The same for one that is resumed for the first time. Returns `false` if the callback has
/// raised an exception.
pub(crate) unsafe fn report_start(
    thread: &Thread,
    origin: *mut PyObject,
    target: *mut PyObject,
    thrown: bool,
) -> bool {
    let Some(callback) = thread.trace.to_owned() else {
        return true;
    };
    // SAFETY: the contract.
    unsafe {
        let pending = Exception::take();
        let event = if thrown {
            names::throw()
        } else {
            names::switch()
        };
        let called = shim::without_tracing(|| {
            Owned::from_new(PyObject_CallFunction(
                callback.as_ptr(),
                c"O(OO)".as_ptr(),
                event,
                origin,
                target,
            ))
        });
        if called.is_none() {
            // It is not called again.
            drop(pending);
            let raised = Exception::take();
            thread.trace.set(None);
            raised.restore();
            return false;
        }
        drop(called);
        pending.restore();
        debug_assert_eq!(exceptions::is_pending(), thrown);
        true
    }
}
