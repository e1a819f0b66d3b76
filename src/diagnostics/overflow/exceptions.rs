//! Faults as Windows tells of them: by a vectored exception handler, which runs on the stack that has
//! overflowed ([`HANDLERS_ROOM`](crate::host::windows::HANDLERS_ROOM)).

use core::ptr;
use std::{io, process, sync::OnceLock};

use crate::host::windows::{
    AddVectoredExceptionHandler, EXCEPTION_ACCESS_VIOLATION, EXCEPTION_CONTINUE_SEARCH,
    EXCEPTION_STACK_OVERFLOW, ExceptionPointers, GetStdHandle, STD_ERROR_HANDLE, WriteFile,
};

/// The handler, or the system's error number.
static INSTALLED: OnceLock<Result<(), Option<i32>>> = OnceLock::new();

pub(super) fn install() -> io::Result<()> {
    let installed = INSTALLED.get_or_init(|| {
        // SAFETY: it keeps to what may be done there: it writes, aborts, and reads what is whole
        // wherever code of this thread can fault, as the handler of signals does.
        let handler = unsafe { AddVectoredExceptionHandler(1, on_exception) };
        if handler.is_null() {
            return Err(io::Error::last_os_error().raw_os_error());
        }
        Ok(())
    });
    installed
        .map_err(|number| number.map_or(io::ErrorKind::Other.into(), io::Error::from_raw_os_error))
}

/// Each stack has room for handlers; std sees to those of threads.
#[inline]
pub(crate) fn prepare_thread() {}

/// Called for each exception of the process, panics among them.
unsafe extern "system" fn on_exception(exception: *const ExceptionPointers) -> i32 {
    // SAFETY: the system passes both.
    let (record, context) = unsafe { (&*(*exception).record, &*(*exception).context) };
    let is_fault = [EXCEPTION_STACK_OVERFLOW, EXCEPTION_ACCESS_VIOLATION].contains(&record.code);
    // The second word of both is the address that was touched (EXCEPTION_RECORD). None is there if it
    // was the system that found no room, for another exception.
    let address = if record.parameters >= 2 {
        record.information[1]
    } else {
        context.rsp as usize
    };
    if is_fault && super::is_reported(ptr::without_provenance(address)) {
        process::abort();
    }
    EXCEPTION_CONTINUE_SEARCH
}

/// Writes some of `bytes` to standard error and returns how many; 0 if it cannot be written to.
pub(super) fn write(bytes: &[u8]) -> usize {
    let (mut written, count) = (0, bytes.len().min(1 << 16) as u32);
    // SAFETY: the bytes are there. There may be no such handle, which is then refused.
    unsafe {
        let stderr = GetStdHandle(STD_ERROR_HANDLE);
        WriteFile(
            stderr,
            bytes.as_ptr(),
            count,
            &raw mut written,
            ptr::null_mut(),
        );
    }
    written as usize
}
