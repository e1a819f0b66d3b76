//! How a child process ended, and its output.

use std::process::ExitStatus;

/// How a child ended, and what it wrote to standard error.
#[derive(Debug)]
pub struct Ending {
    pub status: ExitStatus,
    pub stderr: String,
}

impl Ending {
    /// Did it come to the end of what it had to do?
    pub fn is_success(&self) -> bool {
        self.status.success()
    }

    /// Did it touch memory that it must not touch?
    #[cfg(unix)]
    pub fn is_fault(&self) -> bool {
        use std::os::unix::process::ExitStatusExt;

        matches!(self.status.signal(), Some(libc::SIGSEGV | libc::SIGBUS))
    }

    pub fn is_abort(&self) -> bool {
        super::is_abort(self.status)
    }
}
