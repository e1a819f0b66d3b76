//! References to Python objects: owned ones, and places for one in a structure.
//!
//! To drop a reference may run any Python code, which may switch to another greenlet and free
//! what nobody owns. So a [`Slot`] is emptied before what was in it is dropped.

use core::{cell::Cell, mem, ptr::NonNull};

use pyo3_ffi::{Py_DECREF, Py_INCREF, Py_None, PyObject};

/// A reference that is dropped with it. The GIL is held when it is made, cloned and dropped.
#[repr(transparent)]
pub(crate) struct Owned(NonNull<PyObject>);

impl Owned {
    /// Takes over the reference that a call of CPython has returned; `None` for null.
    ///
    /// # Safety
    /// `object` is null or a reference that is the caller's to give.
    pub(crate) unsafe fn from_new(object: *mut PyObject) -> Option<Self> {
        NonNull::new(object).map(Self)
    }

    /// Makes a reference of one's own.
    ///
    /// # Safety
    /// `object` is a live object.
    pub(crate) unsafe fn from_borrowed(object: *mut PyObject) -> Self {
        // SAFETY: it is alive (contract), so it is not null.
        unsafe {
            Py_INCREF(object);
            Self(NonNull::new_unchecked(object))
        }
    }

    /// `None`, the object.
    pub(crate) fn none() -> Self {
        // SAFETY: it lives as long as the interpreter.
        unsafe { Self::from_borrowed(Py_None()) }
    }

    pub(crate) fn as_ptr(&self) -> *mut PyObject {
        self.0.as_ptr()
    }

    /// Gives the reference away, to a call of CPython that steals it or as a result.
    pub(crate) fn into_ptr(self) -> *mut PyObject {
        let object = self.as_ptr();
        mem::forget(self);
        object
    }
}

impl Clone for Owned {
    fn clone(&self) -> Self {
        // SAFETY: it is alive, as this reference is.
        unsafe { Self::from_borrowed(self.as_ptr()) }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the reference is this value's.
        unsafe { Py_DECREF(self.as_ptr()) }
    }
}

/// The reference as C has it, null for `None`.
pub(crate) fn into_nullable(object: Option<Owned>) -> *mut PyObject {
    object.map_or(core::ptr::null_mut(), Owned::into_ptr)
}

/// A place in a structure for a reference, or null.
#[repr(transparent)]
pub(crate) struct Slot(Cell<*mut PyObject>);

impl Slot {
    pub(crate) const fn empty() -> Self {
        Self(Cell::new(core::ptr::null_mut()))
    }

    /// What is in it, borrowed, or null.
    pub(crate) fn get(&self) -> *mut PyObject {
        self.0.get()
    }

    /// A reference to what is in it.
    pub(crate) fn to_owned(&self) -> Option<Owned> {
        let object = NonNull::new(self.get())?;
        // SAFETY: it is alive, as the slot owns a reference to it.
        Some(unsafe { Owned::from_borrowed(object.as_ptr()) })
    }

    pub(crate) fn take(&self) -> Option<Owned> {
        self.replace(None)
    }

    /// Puts something in and returns what was there, for the caller to drop when it is ready to
    /// have Python code run.
    #[must_use]
    pub(crate) fn replace(&self, object: Option<Owned>) -> Option<Owned> {
        // SAFETY: the slot owns what is in it.
        unsafe { Owned::from_new(self.0.replace(into_nullable(object))) }
    }

    /// Puts something in, and then drops what was there.
    pub(crate) fn set(&self, object: Option<Owned>) {
        drop(self.replace(object));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        drop(self.take());
    }
}
