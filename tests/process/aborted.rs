//! How an aborted process ends.

use std::process::ExitStatus;

/// Returns `true` if std or the C library aborted the process.
#[cfg(unix)]
pub fn is_abort(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;

    const SIGABRT: i32 = 6;
    status.signal() == Some(SIGABRT)
}

/// Returns `true` if std aborted the process. It calls `__fastfail`, which ends a process with
/// STATUS_STACK_BUFFER_OVERRUN for every reason.
#[cfg(windows)]
pub fn is_abort(status: ExitStatus) -> bool {
    status.code() == Some(0xc000_0409_u32 as i32)
}
