//! The functions of `shim.c`, which alone knows the members of `PyThreadState`.

use core::{
    cell::UnsafeCell,
    ffi::{c_char, c_int, c_void},
};

use pyo3_ffi::{Py_ssize_t, PyObject, visitproc};

const SAVED_WORDS: usize = words(env!("SAVED_WORDS"));

const fn words(decimal: &str) -> usize {
    let digits = decimal.as_bytes();
    let (mut number, mut index) = (0, 0);
    while index < digits.len() {
        number = number * 10 + (digits[index] - b'0') as usize;
        index += 1;
    }
    number
}

/// `struct saved`: what of the thread state belongs to a greenlet that is not running. All zeros
/// is that of a new one.
#[repr(C)]
pub(crate) struct Saved(UnsafeCell<[usize; SAVED_WORDS]>);

unsafe extern "C" {
    fn greenlet_shim_switch(from: *mut c_void, to: *mut c_void);
    fn greenlet_shim_prepare(
        it: *mut c_void,
        bottom: *mut c_char,
        top: *mut c_char,
        end: *mut c_char,
    );
    fn greenlet_shim_free_chunks(it: *mut c_void);
    fn greenlet_shim_traverse(
        it: *mut c_void,
        frames: bool,
        visit: visitproc,
        arg: *mut c_void,
    ) -> c_int;
    fn greenlet_shim_clear(it: *mut c_void, frames: bool);
    fn greenlet_shim_has_frames(it: *const c_void) -> bool;
    fn greenlet_shim_drop_frames(it: *mut c_void) -> bool;
    fn greenlet_shim_frame(it: *mut c_void) -> *mut PyObject;
    fn greenlet_shim_running_context() -> *mut PyObject;
    fn greenlet_shim_set_running_context(context: *mut PyObject) -> *mut PyObject;
    fn greenlet_shim_context(it: *const c_void) -> *mut PyObject;
    fn greenlet_shim_set_context(it: *mut c_void, context: *mut PyObject) -> *mut PyObject;
    fn greenlet_shim_enter_tracing();
    fn greenlet_shim_leave_tracing();
    fn greenlet_shim_trash_nesting() -> c_int;
    fn greenlet_shim_may_exempt() -> c_int;
    fn greenlet_shim_set_refcnt(object: *mut PyObject, count: Py_ssize_t);
    fn greenlet_shim_is_traceback(object: *mut PyObject) -> c_int;
    fn greenlet_shim_is_finalizing() -> c_int;
}

// SAFETY of all that follow: the contract, and `shim.c` at each function.

impl Saved {
    pub(crate) const fn new() -> Self {
        Self(UnsafeCell::new([0; SAVED_WORDS]))
    }

    fn ptr(&self) -> *mut c_void {
        self.0.get().cast()
    }

    /// Turns the thread's state from that of the running greenlet into that of another.
    #[inline(always)]
    pub(crate) unsafe fn switch(&self, to: &Saved) {
        unsafe { greenlet_shim_switch(self.ptr(), to.ptr()) }
    }

    /// Makes it that of a greenlet which the running one starts, on this stack.
    pub(crate) unsafe fn prepare(&self, bottom: *mut u8, top: *mut u8, end: *mut u8) {
        unsafe { greenlet_shim_prepare(self.ptr(), bottom.cast(), top.cast(), end.cast()) }
    }

    /// Frees what CPython has added to the first chunk of the data stack.
    pub(crate) unsafe fn free_chunks(&self) {
        unsafe { greenlet_shim_free_chunks(self.ptr()) }
    }

    /// Visits what it owns, and with `frames` what its frames hold.
    pub(crate) unsafe fn traverse(
        &self,
        frames: bool,
        visit: visitproc,
        arg: *mut c_void,
    ) -> c_int {
        unsafe { greenlet_shim_traverse(self.ptr(), frames, visit, arg) }
    }

    /// Returns `true` if there are frames on its stack.
    pub(crate) unsafe fn has_frames(&self) -> bool {
        unsafe { greenlet_shim_has_frames(self.ptr()) }
    }

    /// Drops the frame objects of one that will not run again. Returns `false` if somebody else has
    /// one, so that the stack must stay as it is.
    pub(crate) unsafe fn drop_frames(&self) -> bool {
        unsafe { greenlet_shim_drop_frames(self.ptr()) }
    }

    /// Drops what it owns, and with `frames` what its frames hold.
    pub(crate) unsafe fn clear(&self, frames: bool) {
        unsafe { greenlet_shim_clear(self.ptr(), frames) }
    }

    /// The innermost frame, a new reference, or null.
    pub(crate) unsafe fn frame(&self) -> *mut PyObject {
        unsafe { greenlet_shim_frame(self.ptr()) }
    }

    /// The context, borrowed, or null.
    pub(crate) unsafe fn context(&self) -> *mut PyObject {
        unsafe { greenlet_shim_context(self.ptr()) }
    }

    /// Takes over a context or null; returns the one before.
    pub(crate) unsafe fn set_context(&self, context: *mut PyObject) -> *mut PyObject {
        unsafe { greenlet_shim_set_context(self.ptr(), context) }
    }
}

/// The running greenlet's context, borrowed, or null.
pub(crate) unsafe fn running_context() -> *mut PyObject {
    unsafe { greenlet_shim_running_context() }
}

/// Gives the running greenlet a context or null; returns the one before.
pub(crate) unsafe fn set_running_context(context: *mut PyObject) -> *mut PyObject {
    unsafe { greenlet_shim_set_running_context(context) }
}

/// Calls `body` without Python's own trace and profile functions.
pub(crate) unsafe fn without_tracing<R>(body: impl FnOnce() -> R) -> R {
    unsafe {
        greenlet_shim_enter_tracing();
        let result = body();
        greenlet_shim_leave_tracing();
        result
    }
}

/// How deep CPython's "trash can" is nested; `None` where it does not count.
pub(crate) unsafe fn trash_nesting() -> Option<c_int> {
    let nesting = unsafe { greenlet_shim_trash_nesting() };
    (nesting >= 0).then_some(nesting)
}

/// Returns whether `tp_is_gc` may exempt suspended greenlets from collection.
pub(crate) fn may_exempt() -> bool {
    // SAFETY: a constant of the version.
    unsafe { greenlet_shim_may_exempt() != 0 }
}

pub(crate) unsafe fn set_refcnt(object: *mut PyObject, count: Py_ssize_t) {
    unsafe { greenlet_shim_set_refcnt(object, count) }
}

pub(crate) unsafe fn is_traceback(object: *mut PyObject) -> bool {
    unsafe { greenlet_shim_is_traceback(object) != 0 }
}

/// Returns whether the interpreter is ending. May be called without the GIL.
pub(crate) fn is_finalizing() -> bool {
    // SAFETY: reads a flag of the runtime.
    unsafe { greenlet_shim_is_finalizing() != 0 }
}
