//! How an aborted process ends.

use std::process::ExitStatus;

/// Did std or the C library abort it?
#[cfg(unix)]
pub fn is_abort(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;

    const SIGABRT: i32 = 6;
    status.signal() == Some(SIGABRT)
}

/// Did std abort it? It does so by `__fastfail`, which ends a program with
/// STATUS_STACK_BUFFER_OVERRUN, whatever it is called for.
#[cfg(windows)]
pub fn is_abort(status: ExitStatus) -> bool {
    status.code() == Some(0xc000_0409_u32 as i32)
}
