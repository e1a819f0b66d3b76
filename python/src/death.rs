//! What happens when the last reference to a greenlet goes.
//!
//! One that is suspended receives `GreenletExit`: in its own thread at once, from another thread
//! when its own next asks for the running greenlet or makes one (`Thread::doom`). If its thread has
//! ended it is abandoned.

use pyo3_ffi::{
    self as ffi, Py_INCREF, Py_REFCNT, Py_TPFLAGS_HEAPTYPE, Py_TYPE, Py_XDECREF,
    PyErr_WriteUnraisable, PyFile_WriteObject, PyFile_WriteString, PyObject,
    PyObject_ClearWeakRefs, PyObject_GC_Track, PyObject_GC_UnTrack, PySys_GetObject,
    PyType_HasFeature,
};

use crate::{
    exceptions::{self, Exception},
    green::Green,
    object::{self, PyGreenlet},
    parcel::Content,
    refs::Owned,
    shim, switching,
};

unsafe extern "C" {
    fn _Py_NewReference(object: *mut PyObject);
}

/// `tp_dealloc`.
pub(crate) unsafe extern "C" fn dealloc(object: *mut PyObject) {
    // SAFETY: CPython calls it once the reference count is zero, with the GIL.
    unsafe {
        PyObject_GC_UnTrack(object.cast());
        let this = object.cast::<PyGreenlet>();
        if let Some(green) = Green::of_nullable(object)
            && green.is_active()
            && !green.is_main()
            && kill(green) == Fate::Lives
        {
            return;
        }
        if !(*this).weakrefs.is_null() {
            PyObject_ClearWeakRefs(object);
        }
        Py_XDECREF(core::mem::replace(&mut (*this).dict, core::ptr::null_mut()));
        object::free_green(this);
        let free = (*Py_TYPE(object)).tp_free.unwrap_unchecked();
        free(object.cast());
    }
}

#[derive(PartialEq, Eq)]
enum Fate {
    Dies,
    Lives,
}

/// Kills a suspended greenlet to which there is no reference. It lives on if there is one afterwards.
unsafe fn kill(green: &Green) -> Fate {
    let object = green.object;
    // SAFETY: the GIL is held, the reference count is zero.
    unsafe {
        if shim::is_finalizing() {
            // No Python code is to be run now.
            green.main.set(None);
            green.abandon();
            return Fate::Dies;
        }
        shim::set_refcnt(object, 1);
        let pending = Exception::take();
        throw_exit(green);
        if Py_REFCNT(object) == 1 && green.is_active() {
            complain(object);
        }
        pending.restore();
        // A DECREF would come here again.
        let references = Py_REFCNT(object) - 1;
        shim::set_refcnt(object, references);
        if references == 0 {
            return Fate::Dies;
        }
        _Py_NewReference(object);
        shim::set_refcnt(object, references);
        // What frees an object of a class gives up its reference to that, after this.
        if PyType_HasFeature(Py_TYPE(object), Py_TPFLAGS_HEAPTYPE) != 0 {
            Py_INCREF(Py_TYPE(object).cast());
        }
        PyObject_GC_Track(object.cast());
        Fate::Lives
    }
}

unsafe fn throw_exit(green: &Green) {
    // SAFETY: the GIL is held.
    unsafe {
        let Some(its_thread) = green.thread() else {
            return green.abandon();
        };
        if !its_thread.is_running() {
            return its_thread.doom(green.object);
        }
        // The running greenlet is its parent meanwhile. That makes no cycle: an ancestor of the
        // running greenlet has a reference.
        let parent = green
            .parent
            .replace(Some(Owned::from_borrowed(its_thread.current.get())));
        exceptions::raise(
            exceptions::exit(),
            c"Killing the greenlet because all references have vanished.",
        );
        let result = Owned::from_new(switching::switch(green, Content::Nothing));
        let raised = result.is_none().then(Exception::take);
        let current = green.parent.replace(parent);
        drop((result, current));
        if let Some(raised) = raised {
            raised.restore();
            PyErr_WriteUnraisable(green.object);
        }
    }
}

/// Reports a greenlet that has caught `GreenletExit` and is suspended again, and leaks it.
unsafe fn complain(object: *mut PyObject) {
    // SAFETY: the GIL is held.
    unsafe {
        Py_INCREF(object);
        let file = PySys_GetObject(c"stderr".as_ptr());
        if file.is_null() {
            return;
        }
        let file = Owned::from_borrowed(file);
        PyFile_WriteString(c"GreenletExit did not kill ".as_ptr(), file.as_ptr());
        PyFile_WriteObject(object, file.as_ptr(), 0);
        PyFile_WriteString(c"\n".as_ptr(), file.as_ptr());
        // Whatever was raised gives way to what was pending before.
        ffi::PyErr_Clear();
    }
}
