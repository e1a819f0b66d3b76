//! `report_stack_overflow`: a fault in the guard of a greenlet's stack names the greenlet.

use core::fmt;

use greenlet::raw::set_overflow_hook;
use pyo3_ffi::{PyErr_SetFromErrno, PyExc_OSError, PyObject};

use crate::{refs::Owned, thread::Thread};

/// Installs the report, and gives the calling thread a stack for it if it has none. Null: with an
/// exception.
pub(crate) unsafe fn install() -> *mut PyObject {
    // SAFETY: the hook keeps to what hooks may do.
    unsafe { set_overflow_hook(Some(describe)) };
    match greenlet::report_stack_overflow() {
        Ok(()) => Owned::none().into_ptr(),
        Err(error) => {
            // SAFETY: the GIL is held; `errno` is this thread's.
            unsafe {
                *libc::__errno_location() = error.raw_os_error().unwrap_or(libc::EINVAL);
                PyErr_SetFromErrno(PyExc_OSError)
            }
        }
    }
}

/// Runs in a signal handler of the thread that has faulted. It reads plain memory of greenlets that
/// this thread keeps, and formats numbers.
fn describe(address: *const u8, report: &mut dyn fmt::Write) -> bool {
    let Some(thread) = Thread::of_fault() else {
        return false;
    };
    let green = thread.current();
    let Some(limits) = green.stack_limits() else {
        return false;
    };
    if !limits.is_guard(address) {
        return false;
    }
    let _ = writeln!(
        report,
        "the greenlet at {:p} has overflowed its stack of {} bytes\n\
         GREENLET_STACK_SIZE or greenlet.stack_size() sets the size; faulthandler.enable() shows where",
        green.object,
        limits.size()
    );
    true
}
