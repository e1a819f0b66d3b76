//! Exceptions: greenlet's two types, the pending one, and the checks of what is thrown.

#![allow(
    deprecated,
    reason = "PyErr_Fetch and its family are deprecated since 3.12, and all that there is before"
)]

use core::{
    ffi::CStr,
    mem, ptr,
    sync::atomic::{AtomicPtr, Ordering},
};

use pyo3_ffi::{
    self as ffi, Py_TYPE, PyErr_ExceptionMatches, PyErr_Fetch, PyErr_NewException,
    PyErr_NormalizeException, PyErr_Occurred, PyErr_Restore, PyErr_SetString, PyExc_BaseException,
    PyExc_TypeError, PyExceptionClass_Check, PyExceptionInstance_Check, PyObject,
};

use crate::{refs::Owned, shim};

static ERROR: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
static EXIT: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// Makes the two types. They stay for ever. `None`: with an exception.
pub(crate) unsafe fn make_types() -> Option<()> {
    for (place, name, base) in [
        (&ERROR, c"greenlet.error", ptr::null_mut()),
        // SAFETY: the interpreter runs.
        (&EXIT, c"greenlet.GreenletExit", unsafe {
            PyExc_BaseException
        }),
    ] {
        // SAFETY: the GIL is held; a type or null is returned.
        let made = unsafe { PyErr_NewException(name.as_ptr(), base, ptr::null_mut()) };
        if made.is_null() {
            return None;
        }
        place.store(made, Ordering::Relaxed);
    }
    Some(())
}

/// `greenlet.error`, borrowed.
pub(crate) fn error() -> *mut PyObject {
    ERROR.load(Ordering::Relaxed)
}

/// `greenlet.GreenletExit`, borrowed.
pub(crate) fn exit() -> *mut PyObject {
    EXIT.load(Ordering::Relaxed)
}

/// Sets the pending exception.
pub(crate) unsafe fn raise(kind: *mut PyObject, text: &CStr) {
    // SAFETY: the GIL is held (contract), and `kind` is an exception type.
    unsafe { PyErr_SetString(kind, text.as_ptr()) }
}

/// Returns whether an exception is pending.
pub(crate) fn is_pending() -> bool {
    // SAFETY: whoever calls anything in here holds the GIL.
    unsafe { !PyErr_Occurred().is_null() }
}

/// Returns whether the pending exception is a `GreenletExit`.
pub(crate) fn is_exit() -> bool {
    // SAFETY: an exception is pending where this is asked.
    unsafe { PyErr_ExceptionMatches(exit()) != 0 }
}

/// An exception that was pending, or none, set aside. Dropped with it.
pub(crate) struct Exception {
    kind: *mut PyObject,
    value: *mut PyObject,
    traceback: *mut PyObject,
}

impl Exception {
    /// Sets the pending exception aside, if there is one.
    pub(crate) fn take() -> Self {
        let mut this = Self {
            kind: ptr::null_mut(),
            value: ptr::null_mut(),
            traceback: ptr::null_mut(),
        };
        // SAFETY: the GIL is held; the three references are ours.
        unsafe { PyErr_Fetch(&mut this.kind, &mut this.value, &mut this.traceback) };
        this
    }

    /// What `throw(kind, value, traceback)` throws; null stands for an argument that was not
    /// given. `None`: with the exception that says what is wrong with it.
    ///
    /// # Safety
    /// The GIL is held; each is null, or a live object; `kind` is not null.
    pub(crate) unsafe fn of_arguments(
        kind: *mut PyObject,
        value: *mut PyObject,
        traceback: *mut PyObject,
    ) -> Option<Self> {
        // SAFETY: live objects (contract), the GIL is held.
        unsafe {
            let own = |object: *mut PyObject| {
                ffi::Py_XINCREF(object);
                object
            };
            let traceback = match traceback {
                it if it == ffi::Py_None() => ptr::null_mut(),
                it if !it.is_null() && !shim::is_traceback(it) => {
                    raise(
                        PyExc_TypeError,
                        c"throw() third argument must be a traceback object",
                    );
                    return None;
                }
                it => it,
            };
            if PyExceptionClass_Check(kind) != 0 {
                let mut this = Self {
                    kind: own(kind),
                    value: own(value),
                    traceback: own(traceback),
                };
                PyErr_NormalizeException(&mut this.kind, &mut this.value, &mut this.traceback);
                return Some(this);
            }
            if PyExceptionInstance_Check(kind) == 0 {
                ffi::PyErr_Format(
                    PyExc_TypeError,
                    c"exceptions must be classes, or instances, not %s".as_ptr(),
                    (*Py_TYPE(kind)).tp_name,
                );
                return None;
            }
            if !value.is_null() && value != ffi::Py_None() {
                raise(
                    PyExc_TypeError,
                    c"instance exception may not have a separate value",
                );
                return None;
            }
            Some(Self {
                kind: own(Py_TYPE(kind).cast()),
                value: own(kind),
                traceback: own(traceback),
            })
        }
    }

    /// Makes it the pending exception, or none if it is none.
    pub(crate) fn restore(self) {
        // SAFETY: the GIL is held; CPython takes the three references.
        unsafe { PyErr_Restore(self.kind, self.value, self.traceback) };
        mem::forget(self);
    }

    /// Its value, if it has one.
    pub(crate) fn into_value(mut self) -> Option<Owned> {
        // SAFETY: the reference is ours; it is given away once.
        unsafe { Owned::from_new(mem::replace(&mut self.value, ptr::null_mut())) }
    }
}

impl Drop for Exception {
    fn drop(&mut self) {
        for object in [self.kind, self.value, self.traceback] {
            // SAFETY: the references are ours.
            drop(unsafe { Owned::from_new(object) });
        }
    }
}
