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
/// One of the two things that it can pretend, as its attribute's closure.
struct Pretence {
    of: fn(&mut Fails) -> &mut bool,
    refusal: &'static CStr,
}

static SWITCH: Pretence = Pretence {
    of: |fails| &mut fails.switch,
    refusal: c"Cannot delete force_switch_error",
};
static STACK_SWITCH: Pretence = Pretence {
    of: |fails| &mut fails.stack_switch,
    refusal: c"Cannot delete force_slp_switch_error",
};

static ATTRIBUTES: Static<[PyGetSetDef; 3]> = Static::new([
    attribute(c"force_switch_error", c"The switch is refused.", &SWITCH),
    attribute(
        c"force_slp_switch_error",
        c"The switch itself fails, which ends the process.",
        &STACK_SWITCH,
    ),
    // SAFETY: the end of the list is all zeros.
    unsafe { mem::zeroed() },
]);

const fn attribute(
    name: &'static CStr,
    doc: &'static CStr,
    pretence: &'static Pretence,
) -> PyGetSetDef {
    PyGetSetDef {
        name: name.as_ptr(),
        get: Some(get),
        set: Some(set),
        doc: doc.as_ptr(),
        closure: ptr::from_ref(pretence).cast_mut().cast(),
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

unsafe extern "C" fn get(this: *mut PyObject, pretence: *mut c_void) -> *mut PyObject {
    // SAFETY: CPython's call, with the closure of one of the attributes.
    unsafe {
        let pretence = &*pretence.cast::<Pretence>();
        let yes = *(pretence.of)(&mut Green::of(this).fails.get());
        Owned::from_borrowed(if yes { Py_True() } else { Py_False() }).into_ptr()
    }
}

unsafe extern "C" fn set(
    this: *mut PyObject,
    value: *mut PyObject,
    pretence: *mut c_void,
) -> c_int {
    // SAFETY: CPython's call, with the closure of one of the attributes.
    unsafe {
        let pretence = &*pretence.cast::<Pretence>();
        if value.is_null() {
            exceptions::raise(PyExc_AttributeError, pretence.refusal);
            return -1;
        }
        let yes = match PyObject_IsTrue(value) {
            -1 => return -1,
            answer => answer != 0,
        };
        let fails = &Green::of(this).fails;
        let mut changed = fails.get();
        *(pretence.of)(&mut changed) = yes;
        fails.set(changed);
    }
    0
}
