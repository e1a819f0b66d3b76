//! `UnswitchableGreenlet`: a type for tests, whose objects pretend that a switch to them fails.

use core::{
    ffi::{CStr, c_int, c_void},
    mem, ptr,
};

use pyo3_ffi::{
    self as ffi, Py_False, Py_True, PyExc_AttributeError, PyGetSetDef, PyObject, PyObject_IsTrue,
    PyTypeObject,
};

use crate::{
    death, exceptions,
    green::{Fails, Green},
    object::{self, Static},
    refs::Owned,
};

static TYPE: Static<PyTypeObject> = Static::new(
    // SAFETY: a slot that is null is not there.
    unsafe { mem::zeroed() },
);
static ATTRIBUTES: Static<[PyGetSetDef; 3]> = Static::new([
    attribute(
        c"force_switch_error",
        c"The switch is refused.",
        get_switch,
        set_switch,
    ),
    attribute(
        c"force_slp_switch_error",
        c"The switch itself fails, which ends the process.",
        get_stack_switch,
        set_stack_switch,
    ),
    // SAFETY: the end of the list is all zeros.
    unsafe { mem::zeroed() },
]);

const fn attribute(
    name: &'static CStr,
    doc: &'static CStr,
    get: ffi::getter,
    set: ffi::setter,
) -> PyGetSetDef {
    PyGetSetDef {
        name: name.as_ptr(),
        get: Some(get),
        set: Some(set),
        doc: doc.as_ptr(),
        closure: ptr::null_mut(),
    }
}

/// Makes the type ready and returns it, borrowed. `None`: with an exception.
pub(crate) unsafe fn make_ready() -> Option<*mut PyObject> {
    // SAFETY: the GIL is held; nobody uses the type yet.
    unsafe {
        let made = TYPE.get();
        (*made).ob_base.ob_base = ffi::PyObject_HEAD_INIT;
        (*made).tp_name = c"greenlet._greenlet.UnswitchableGreenlet".as_ptr();
        (*made).tp_base = object::greenlet_type();
        (*made).tp_flags =
            ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_BASETYPE | ffi::Py_TPFLAGS_HAVE_GC;
        (*made).tp_doc = c"For tests: a greenlet that a switch to fails.".as_ptr();
        (*made).tp_dealloc = Some(death::dealloc);
        (*made).tp_traverse = Some(object::traverse);
        (*made).tp_clear = Some(object::clear);
        (*made).tp_getset = ATTRIBUTES.get().cast();
        (ffi::PyType_Ready(made) == 0).then_some(made.cast())
    }
}

unsafe fn answer(yes: bool) -> *mut PyObject {
    // SAFETY: the GIL is held.
    unsafe { Owned::from_borrowed(if yes { Py_True() } else { Py_False() }).into_ptr() }
}

unsafe fn set(
    this: *mut PyObject,
    value: *mut PyObject,
    refusal: &CStr,
    change: fn(&mut Fails, bool),
) -> c_int {
    // SAFETY: CPython's call.
    unsafe {
        if value.is_null() {
            exceptions::raise(PyExc_AttributeError, refusal);
            return -1;
        }
        let yes = match PyObject_IsTrue(value) {
            -1 => return -1,
            answer => answer != 0,
        };
        let fails = &Green::of(this).fails;
        let mut changed = fails.get();
        change(&mut changed, yes);
        fails.set(changed);
    }
    0
}

unsafe extern "C" fn get_switch(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: CPython's call.
    unsafe { answer(Green::of(this).fails.get().switch) }
}

unsafe extern "C" fn set_switch(
    this: *mut PyObject,
    value: *mut PyObject,
    _: *mut c_void,
) -> c_int {
    // SAFETY: CPython's call.
    unsafe {
        set(
            this,
            value,
            c"Cannot delete force_switch_error",
            |fails, yes| fails.switch = yes,
        )
    }
}

unsafe extern "C" fn get_stack_switch(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: CPython's call.
    unsafe { answer(Green::of(this).fails.get().stack_switch) }
}

unsafe extern "C" fn set_stack_switch(
    this: *mut PyObject,
    value: *mut PyObject,
    _: *mut c_void,
) -> c_int {
    // SAFETY: CPython's call.
    unsafe {
        set(
            this,
            value,
            c"Cannot delete force_slp_switch_error",
            |fails, yes| fails.stack_switch = yes,
        )
    }
}
