//! The C API, as `greenlet/greenlet.h` declares it: twelve pointers in a capsule.
//!
//! Callers hold the GIL. A function that fails returns null or -1 and sets an exception, except
//! that null is also what `PyGreenlet_GetParent` says of a main greenlet.

use core::{
    ffi::{c_int, c_void},
    ptr,
};

use pyo3_ffi::{PyCapsule_New, PyDict_Check, PyErr_BadArgument, PyObject};

use crate::{
    exceptions,
    green::Green,
    module, names,
    object::{self, Static, greenlet_type},
    parcel::Content,
    refs::{Owned, into_nullable},
};

/// `PyGreenlet_API_pointers`.
const POINTERS: usize = 12;

static TABLE: Static<[*mut c_void; POINTERS]> = Static::new([ptr::null_mut(); POINTERS]);

/// The capsule, a new reference. `None`: with an exception.
pub(crate) unsafe fn capsule() -> Option<Owned> {
    let function = |it: *const ()| it.cast_mut().cast::<c_void>();
    // SAFETY: nobody reads the table yet.
    unsafe {
        *TABLE.get() = [
            greenlet_type().cast(),
            exceptions::error().cast(),
            exceptions::exit().cast(),
            function(new as *const ()),
            function(get_current as *const ()),
            function(throw as *const ()),
            function(switch as *const ()),
            function(set_parent as *const ()),
            function(is_main as *const ()),
            function(is_started as *const ()),
            function(is_active as *const ()),
            function(get_parent as *const ()),
        ];
        Owned::from_new(PyCapsule_New(
            TABLE.get().cast(),
            c"greenlet._C_API".as_ptr(),
            None,
        ))
    }
}

/// Its `Green`, if it is a greenlet. `None`: with an exception.
unsafe fn checked<'a>(object: *mut PyObject) -> Option<&'a Green> {
    // SAFETY: the caller's object, or null.
    unsafe {
        if !object::is_greenlet(object) {
            PyErr_BadArgument();
            return None;
        }
        Green::of_nullable(object)
    }
}

unsafe extern "C" fn new(run: *mut PyObject, parent: *mut PyObject) -> *mut PyObject {
    // SAFETY: the contract.
    unsafe { into_nullable(object::make_with(greenlet_type(), run, parent)) }
}

unsafe extern "C" fn get_current() -> *mut PyObject {
    // SAFETY: the contract.
    unsafe { into_nullable(module::current()) }
}

unsafe extern "C" fn switch(
    this: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the contract.
    unsafe {
        if checked(this).is_none() {
            return ptr::null_mut();
        }
        let positional = (!args.is_null()).then(|| Owned::from_borrowed(args));
        let keywords =
            (!kwargs.is_null() && PyDict_Check(kwargs) != 0).then(|| Owned::from_borrowed(kwargs));
        let content = match (positional, keywords) {
            (None, None) => Some(Content::Empty),
            (Some(positional), None) => Some(Content::Positional(positional)),
            (positional, Some(keywords)) => {
                Content::both(&positional.unwrap_or_else(names::empty_tuple), &keywords)
            }
        };
        let Some(content) = content else {
            return ptr::null_mut();
        };
        object::switch_with(this, content)
    }
}

unsafe extern "C" fn throw(
    this: *mut PyObject,
    kind: *mut PyObject,
    value: *mut PyObject,
    traceback: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the contract.
    unsafe {
        if checked(this).is_none() {
            return ptr::null_mut();
        }
        if kind.is_null() {
            PyErr_BadArgument();
            return ptr::null_mut();
        }
        object::throw_with(this, kind, value, traceback)
    }
}

unsafe extern "C" fn set_parent(this: *mut PyObject, parent: *mut PyObject) -> c_int {
    // SAFETY: the contract.
    unsafe {
        match checked(this) {
            Some(_) => object::set_parent(this, parent, ptr::null_mut()),
            None => -1,
        }
    }
}

unsafe extern "C" fn is_main(this: *mut PyObject) -> c_int {
    // SAFETY: the contract.
    unsafe { checked(this).map_or(-1, |green| c_int::from(green.is_main())) }
}

unsafe extern "C" fn is_started(this: *mut PyObject) -> c_int {
    // SAFETY: the contract.
    unsafe { checked(this).map_or(-1, |green| c_int::from(green.is_started())) }
}

unsafe extern "C" fn is_active(this: *mut PyObject) -> c_int {
    // SAFETY: the contract.
    unsafe { checked(this).map_or(-1, |green| c_int::from(green.is_active())) }
}

unsafe extern "C" fn get_parent(this: *mut PyObject) -> *mut PyObject {
    // SAFETY: the contract.
    unsafe { into_nullable(checked(this).and_then(|green| green.parent.to_owned())) }
}
