//! The functions of the module `greenlet._greenlet`.

use core::{ffi::CStr, ptr};

use pyo3_ffi::{
    METH_NOARGS, METH_O, METH_VARARGS, Py_ssize_t, PyArg_ParseTuple, PyArg_UnpackTuple,
    PyCFunction, PyDict_SetItem, PyErr_Format, PyErr_Occurred, PyExc_RuntimeError,
    PyExc_ValueError, PyLong_AsSsize_t, PyLong_FromLong, PyLong_FromLongLong, PyLong_FromSsize_t,
    PyMethodDef, PyMethodDefPointer, PyObject, PyObject_IsTrue, PyThreadState_GetDict,
};

use crate::{
    exceptions,
    object::{self, Static},
    overflow, reaper,
    refs::{Owned, into_nullable},
    shim, stacks,
    thread::Thread,
};

pub(crate) static FUNCTIONS: Static<[PyMethodDef; 12]> = Static::new([
    function(
        c"getcurrent",
        getcurrent,
        METH_NOARGS,
        c"getcurrent()\n\nReturns the running greenlet.",
    ),
    function(
        c"settrace",
        settrace,
        METH_VARARGS,
        c"settrace(callback)\n\nCalls `callback(event, (origin, target))` after each switch of this \
          thread; with None, stops\ndoing so. Returns the callback that was set before.",
    ),
    function(
        c"gettrace",
        gettrace,
        METH_NOARGS,
        c"gettrace()\n\nReturns the callback that settrace() has set, or None.",
    ),
    function(
        c"stack_size",
        stack_size,
        METH_VARARGS,
        c"stack_size([bytes])\n\nReturns the size of the C stacks of greenlets. With an argument, sets \
          the size for greenlets\nthat start from then on, and returns the size before.",
    ),
    function(
        c"report_stack_overflow",
        report_stack_overflow,
        METH_NOARGS,
        c"report_stack_overflow()\n\nHas an overflow of a greenlet's stack name the greenlet on standard \
          error before it ends the\nprocess. Each thread must call it for itself.",
    ),
    function(
        c"set_thread_local",
        set_thread_local,
        METH_VARARGS,
        c"For tests: sets an item of the thread state's dictionary.",
    ),
    function(
        c"get_pending_cleanup_count",
        get_pending_cleanup_count,
        METH_NOARGS,
        c"For tests: the number of ended threads that wait for their cleanup.",
    ),
    function(
        c"get_total_main_greenlets",
        get_total_main_greenlets,
        METH_NOARGS,
        c"For tests: the number of main greenlets.",
    ),
    function(
        c"get_clocks_used_doing_optional_cleanup",
        get_clocks_used_doing_optional_cleanup,
        METH_NOARGS,
        c"get_clocks_used_doing_optional_cleanup()\n\nReturns the processor time spent on searches \
          for main greenlets of ended threads that only a\nlost stack refers to, in units of \
          1/CLOCKS_PER_SEC seconds. None if the search is disabled.",
    ),
    function(
        c"enable_optional_cleanup",
        enable_optional_cleanup,
        METH_O,
        c"enable_optional_cleanup(bool)\n\nEnables or disables the search for lost main greenlets of \
          ended threads. A search takes time\nin proportion to the number of objects.",
    ),
    function(
        c"get_tstate_trash_delete_nesting",
        get_tstate_trash_delete_nesting,
        METH_NOARGS,
        c"For tests: the nesting of the interpreter's trash can.",
    ),
    PyMethodDef::zeroed(),
]);

const fn function(
    name: &'static CStr,
    code: PyCFunction,
    flags: i32,
    doc: &'static CStr,
) -> PyMethodDef {
    PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: PyMethodDefPointer { PyCFunction: code },
        ml_flags: flags,
        ml_doc: doc.as_ptr(),
    }
}

/// A reference to the running greenlet. `None`: with an exception.
pub(crate) unsafe fn current() -> Option<Owned> {
    // SAFETY: the contract.
    unsafe {
        if shim::is_finalizing() {
            exceptions::raise(PyExc_RuntimeError, c"greenlet is being finalized");
            return None;
        }
        let thread = Thread::running()?;
        thread.end_doomed();
        thread.current.to_owned()
    }
}

// SAFETY of all that follow: CPython calls them with the GIL and with live arguments.

unsafe extern "C" fn getcurrent(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    unsafe { into_nullable(current()) }
}

unsafe extern "C" fn settrace(_: *mut PyObject, args: *mut PyObject) -> *mut PyObject {
    unsafe {
        let mut callback = ptr::null_mut();
        if PyArg_ParseTuple(args, c"O".as_ptr(), &raw mut callback) == 0 {
            return ptr::null_mut();
        }
        let Some(thread) = Thread::running() else {
            return ptr::null_mut();
        };
        let callback = (callback != pyo3_ffi::Py_None()).then(|| Owned::from_borrowed(callback));
        thread
            .trace
            .replace(callback)
            .unwrap_or_else(Owned::none)
            .into_ptr()
    }
}

unsafe extern "C" fn gettrace(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    unsafe {
        let Some(thread) = Thread::running() else {
            return ptr::null_mut();
        };
        thread
            .trace
            .to_owned()
            .unwrap_or_else(Owned::none)
            .into_ptr()
    }
}

unsafe extern "C" fn stack_size(_: *mut PyObject, args: *mut PyObject) -> *mut PyObject {
    unsafe {
        let mut given: *mut PyObject = ptr::null_mut();
        if PyArg_UnpackTuple(args, c"stack_size".as_ptr(), 0, 1, &raw mut given) == 0 {
            return ptr::null_mut();
        }
        let mut before = stacks::size();
        if !given.is_null() {
            let bytes = PyLong_AsSsize_t(given);
            if bytes == -1 && !PyErr_Occurred().is_null() {
                return ptr::null_mut();
            }
            let Some(set) = stacks::set_size(bytes) else {
                return PyErr_Format(
                    PyExc_ValueError,
                    c"a stack size must be from %zd to %zd bytes, not %zd".as_ptr(),
                    stacks::MIN_SIZE,
                    stacks::MAX_SIZE,
                    bytes,
                );
            };
            before = set;
        }
        PyLong_FromSsize_t(before.cast_signed())
    }
}

unsafe extern "C" fn report_stack_overflow(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    unsafe { overflow::install() }
}

unsafe extern "C" fn set_thread_local(_: *mut PyObject, args: *mut PyObject) -> *mut PyObject {
    unsafe {
        let (mut key, mut value) = (ptr::null_mut(), ptr::null_mut());
        if PyArg_UnpackTuple(
            args,
            c"set_thread_local".as_ptr(),
            2,
            2,
            &raw mut key,
            &raw mut value,
        ) == 0
            || PyDict_SetItem(PyThreadState_GetDict(), key, value) < 0
        {
            return ptr::null_mut();
        }
    }
    Owned::none().into_ptr()
}

unsafe extern "C" fn get_pending_cleanup_count(
    _: *mut PyObject,
    _: *mut PyObject,
) -> *mut PyObject {
    unsafe { PyLong_FromSsize_t(reaper::waiting().cast_signed()) }
}

unsafe extern "C" fn get_total_main_greenlets(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    unsafe { PyLong_FromSsize_t(object::count_main(0) as Py_ssize_t) }
}

unsafe extern "C" fn get_clocks_used_doing_optional_cleanup(
    _: *mut PyObject,
    _: *mut PyObject,
) -> *mut PyObject {
    match reaper::clocks() {
        Some(clocks) => unsafe { PyLong_FromLongLong(clocks) },
        None => Owned::none().into_ptr(),
    }
}

unsafe extern "C" fn enable_optional_cleanup(
    _: *mut PyObject,
    flag: *mut PyObject,
) -> *mut PyObject {
    match unsafe { PyObject_IsTrue(flag) } {
        -1 => return ptr::null_mut(),
        answer => reaper::enable_search(answer != 0),
    }
    Owned::none().into_ptr()
}

unsafe extern "C" fn get_tstate_trash_delete_nesting(
    _: *mut PyObject,
    _: *mut PyObject,
) -> *mut PyObject {
    unsafe { PyLong_FromLong(shim::trash_nesting().unwrap_or(0).into()) }
}
