//! How a child process ended, and its output.

use std::process::ExitStatus;

/// The exit status of a child process, and what it wrote to standard error.
#[derive(Debug)]
pub struct Ending {
    pub status: ExitStatus,
    pub stderr: String,
}

impl Ending {
    /// Returns `true` if it reached its end.
    pub fn is_success(&self) -> bool {
        self.status.success()
    }

    /// Returns `true` if a memory fault ended it.
    #[cfg(unix)]
    pub fn is_fault(&self) -> bool {
        use std::os::unix::process::ExitStatusExt;

        matches!(self.status.signal(), Some(libc::SIGSEGV | libc::SIGBUS))
    }

    pub fn is_abort(&self) -> bool {
        super::is_abort(self.status)
    }
}
