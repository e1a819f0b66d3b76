//! Threads that have ended: a queue that they enter without the GIL, and the interpreter's main
//! thread, which frees what greenlet kept of them.
//!
//! The queue has no lock, so a `fork` may come at any moment.

use core::{
    ptr,
    sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicUsize, Ordering},
};
use std::ffi::{c_int, c_void};

use libc::clock_t;
use pyo3_ffi::{
    self as ffi, Py_AddPendingCall, Py_DECREF, Py_REFCNT, PyCFunction_Check, PyErr_Clear,
    PyErr_WriteUnraisable, PyImport_ImportModule, PyInterpreterState_Head, PyList_GET_ITEM,
    PyList_GET_SIZE, PyObject, PyObject_CallOneArg, PyObject_GetAttrString,
};

use crate::{exceptions, green::Green, object, refs::Owned, shim, thread::Thread};

static QUEUE: AtomicPtr<Thread> = AtomicPtr::new(ptr::null_mut());
/// How many are queued.
static WAITING: AtomicUsize = AtomicUsize::new(0);
/// Whether the interpreter has been asked to call [`reap`].
static ASKED: AtomicBool = AtomicBool::new(false);

/// Processor time spent on looking for lost main greenlets, `clock()` units; [`DISABLED`] if that
/// is not to be done.
static CLOCKS: AtomicI64 = AtomicI64::new(0);
const DISABLED: i64 = -1;

unsafe extern "C" {
    // The libc crate does not have it for every target.
    safe fn clock() -> clock_t;
}

/// Hands over the record of a thread that is ending.
///
/// # Safety
/// `thread` is a record that is not used any more, and is handed over once. The GIL is not needed.
pub(crate) unsafe fn queue(thread: *mut Thread) {
    // SAFETY: reads a pointer of the runtime. There is a race with an interpreter that is being
    // finalized; upstream has it as well.
    if unsafe { PyInterpreterState_Head() }.is_null() {
        return;
    }
    WAITING.fetch_add(1, Ordering::Relaxed);
    let mut head = QUEUE.load(Ordering::Relaxed);
    loop {
        // SAFETY: it is ours until it is in the queue.
        unsafe { (*thread).next.set(head) };
        match QUEUE.compare_exchange_weak(head, thread, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => break,
            Err(now) => head = now,
        }
    }
    // While it is finalized an interpreter takes no calls.
    if !shim::is_finalizing() && !ASKED.swap(true, Ordering::AcqRel) {
        // SAFETY: may be called without the GIL.
        let refused = unsafe { Py_AddPendingCall(Some(reap), ptr::null_mut()) } < 0;
        if refused {
            // Its list is full. The next thread that ends asks again.
            ASKED.store(false, Ordering::Release);
        }
    }
}

/// How many threads that have ended wait for the interpreter.
pub(crate) fn waiting() -> usize {
    WAITING.load(Ordering::Relaxed)
}

/// See [`CLOCKS`]. `None`: it is disabled.
pub(crate) fn clocks() -> Option<i64> {
    match CLOCKS.load(Ordering::Relaxed) {
        DISABLED => None,
        clocks => Some(clocks),
    }
}

pub(crate) fn enable_search(enable: bool) {
    if !enable {
        CLOCKS.store(DISABLED, Ordering::Relaxed);
    } else if clocks().is_none() {
        CLOCKS.store(0, Ordering::Relaxed);
    }
}

extern "C" fn reap(_: *mut c_void) -> c_int {
    ASKED.store(false, Ordering::Release);
    let mut thread = QUEUE.swap(ptr::null_mut(), Ordering::Acquire);
    while !thread.is_null() {
        // SAFETY: what is in the queue is a record that nothing else uses; the GIL is held.
        unsafe {
            let next = (*thread).next.get();
            WAITING.fetch_sub(1, Ordering::Relaxed);
            free(Box::from_raw(thread));
            thread = next;
        }
    }
    0
}

/// Frees a record. May run Python code.
unsafe fn free(thread: Box<Thread>) {
    thread.trace.set(None);
    // SAFETY: nothing of the thread runs any more; the GIL is held.
    unsafe {
        if !shim::is_finalizing() {
            thread.drop_doomed(|green| green.abandon());
        }
        if thread.current.get() == thread.main.get() {
            thread.current.set(None);
            let main = thread.main.take();
            if let Some(main) = main
                && !shim::is_finalizing()
            {
                drop_main(main);
            }
        } else if let Some(current) = thread.current.take() {
            Green::of(current.as_ptr()).abandon();
        }
        drop(thread);
        if exceptions::is_pending() {
            PyErr_WriteUnraisable(ptr::null_mut());
            PyErr_Clear();
        }
    }
}

/// Drops a thread's main greenlet and, if one reference to it is left that the garbage collector
/// does not find, that one too: it lies on the stack of a greenlet which has switched to the
/// main greenlet and will not be resumed.
unsafe fn drop_main(main: Owned) {
    let object = main.as_ptr();
    // SAFETY: the GIL is held.
    unsafe {
        let references = Py_REFCNT(object);
        drop(main);
        if clocks().is_none() || references != 2 || Py_REFCNT(object) != 1 {
            return;
        }
        let before = clock();
        search(object);
        let spent: clock_t = clock() - before;
        if let Some(clocks) = clocks() {
            CLOCKS.store(clocks + spent, Ordering::Relaxed);
        }
    }
}

unsafe fn search(object: *mut PyObject) {
    // SAFETY: the GIL is held; the reference that is left keeps `object`.
    unsafe {
        let Some(referrers) = referrers(object) else {
            return;
        };
        match PyList_GET_SIZE(referrers.as_ptr()) {
            0 => Py_DECREF(object),
            1 => {
                // A bound method of its own, which is lost in the same way?
                let function = PyList_GET_ITEM(referrers.as_ptr(), 0);
                if PyCFunction_Check(function) != 0
                    && Py_REFCNT(function) == 2
                    && object::is_switch(function)
                {
                    drop(referrers);
                    if self::referrers(function)
                        .is_some_and(|them| PyList_GET_SIZE(them.as_ptr()) == 0)
                    {
                        Py_DECREF(function);
                    }
                }
            }
            _ => (),
        }
    }
}

unsafe fn referrers(object: *mut PyObject) -> Option<Owned> {
    // SAFETY: the GIL is held.
    unsafe {
        let gc = Owned::from_new(PyImport_ImportModule(c"gc".as_ptr()))?;
        let get = Owned::from_new(PyObject_GetAttrString(
            gc.as_ptr(),
            c"get_referrers".as_ptr(),
        ))?;
        let list = Owned::from_new(PyObject_CallOneArg(get.as_ptr(), object))?;
        (ffi::PyList_Check(list.as_ptr()) != 0).then_some(list)
    }
}
