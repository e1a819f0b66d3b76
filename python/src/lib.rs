//! `greenlet._greenlet`: greenlets for CPython, each on a stack of its own.
//!
//! Behaves as greenlet 3.5.6 does, in what Python code, C code and the garbage collector see.
//! Instead of copying a part of the C stack at each switch it changes the stack pointer, by
//! [`greenlet::raw`].
//!
//! | file | concept |
//! |---|---|
//! | `shim.c`, `shim.rs` | what CPython's thread state holds of a greenlet |
//! | `green.rs` | a greenlet |
//! | `object.rs` | its Python type |
//! | `parcel.rs` | what a switch carries |
//! | `switching.rs` | switch, start, end |
//! | `death.rs` | the last reference goes |
//! | `thread.rs`, `reaper.rs` | threads, and their ends |
//! | `stacks.rs` | stacks |
//! | `overflow.rs` | the report of a stack that was too small |
//! | `trace.rs` | the callback of `settrace` |
//! | `exceptions.rs`, `names.rs`, `refs.rs` | helpers |
//! | `module.rs`, `capi.rs`, `unswitchable.rs` | what else the module has |
//!
//! All of it runs under the GIL, but for what a thread does when it ends (`thread.rs`). A build of
//! CPython without the GIL is refused when the module is compiled.
//!
//! # Contract
//!
//! Whoever calls an `unsafe fn` of this crate holds the GIL. Each object that it passes is of the
//! type that the function's name or documentation says, and stays alive until the function
//! returns. It may be null only where the documentation says what null stands for. A function that
//! returns null, -1 or `None` for an error has set an exception. `SAFETY: the contract` refers to
//! these lines; what else a function wants is below its own `# Safety`.
//!
//! CPython keeps the same contract with the functions that it calls.

use core::{ffi::CStr, mem, ptr};

use pyo3_ffi::{
    PyDict_SetItemString, PyModule_AddIntConstant, PyModule_AddObjectRef, PyModule_Create,
    PyModuleDef, PyModuleDef_HEAD_INIT, PyObject, PyObject_GetAttrString,
};

use crate::{object::Static, refs::Owned};

mod capi;
mod death;
mod exceptions;
mod green;
mod module;
mod names;
mod object;
mod overflow;
mod parcel;
mod reaper;
mod refs;
mod shim;
mod stacks;
mod switching;
mod thread;
mod trace;
mod unswitchable;

static MODULE: Static<PyModuleDef> = Static::new(PyModuleDef {
    m_base: PyModuleDef_HEAD_INIT,
    m_name: c"greenlet._greenlet".as_ptr(),
    // No interpreter but the first: its objects are in statics.
    m_size: -1,
    // SAFETY: what is null is not there.
    ..unsafe { mem::zeroed() }
});

/// What CPython calls to import the module.
///
/// # Safety
/// Called by CPython.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyInit__greenlet() -> *mut PyObject {
    // SAFETY: the GIL is held.
    unsafe { initialize() }.unwrap_or(ptr::null_mut())
}

unsafe fn initialize() -> Option<*mut PyObject> {
    // SAFETY: the GIL is held.
    unsafe {
        (*MODULE.get()).m_methods = module::FUNCTIONS.get().cast();
        let made = Owned::from_new(PyModule_Create(MODULE.get()))?;
        let add = |name: &CStr, object: *mut PyObject| {
            (PyModule_AddObjectRef(made.as_ptr(), name.as_ptr(), object) == 0).then_some(())
        };
        names::make()?;
        exceptions::make_types()?;
        object::make_ready()?;
        stacks::configure()?;
        thread::watch_forks()?;
        let greenlet = object::greenlet_type();
        add(c"greenlet", greenlet.cast())?;
        add(c"UnswitchableGreenlet", unswitchable::make_ready()?)?;
        add(c"error", exceptions::error())?;
        add(c"GreenletExit", exceptions::exit())?;
        add(c"_C_API", capi::capsule()?.as_ptr())?;
        for name in [
            c"GREENLET_USE_GC",
            c"GREENLET_USE_TRACING",
            c"GREENLET_USE_CONTEXT_VARS",
            c"GREENLET_USE_STANDARD_THREADING",
        ] {
            if PyModule_AddIntConstant(made.as_ptr(), name.as_ptr(), 1) < 0 {
                return None;
            }
        }
        // POSIX: whatever the unit of the clock is.
        if PyModule_AddIntConstant(made.as_ptr(), c"CLOCKS_PER_SEC".as_ptr(), 1_000_000) < 0 {
            return None;
        }
        // Eventlet looks for them there.
        for name in [
            c"getcurrent",
            c"error",
            c"GreenletExit",
            c"settrace",
            c"gettrace",
        ] {
            let object = Owned::from_new(PyObject_GetAttrString(made.as_ptr(), name.as_ptr()))?;
            if PyDict_SetItemString((*greenlet).tp_dict, name.as_ptr(), object.as_ptr()) < 0 {
                return None;
            }
        }
        Some(made.into_ptr())
    }
}
