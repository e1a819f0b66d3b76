//! Forked children.

use std::{
    fs::File,
    io::{self, Read, Write},
    mem::ManuallyDrop,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    panic::{self, AssertUnwindSafe},
    process::ExitStatus,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use super::Ending;

/// Runs `act` in a forked child, which has only the calling thread.
///
/// A lock that another thread holds during the fork is never released in the child. std takes a lock for
/// a backtrace, so if `act` takes one, no other test of the process may do so at the same time.
///
/// A forked child has the same memory at the same addresses. It also works under an emulator, where
/// the kernel cannot execute the test's program.
pub fn in_child(act: impl FnOnce()) -> Ending {
    // Before, because a thread that panics at this moment keeps the child from it for ever.
    static ONCE: Once = Once::new();
    ONCE.call_once(let_children_say_why_they_panic);

    let (reader, writer) = pipe();
    // SAFETY: the C library keeps its allocator usable in the child of a process with threads;
    // what waits for another lock that one of them has held is ended, and it never returns.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", io::Error::last_os_error()),
        0 => {
            let no_core_file = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            // SAFETY: system calls with valid arguments.
            unsafe {
                libc::setrlimit(libc::RLIMIT_CORE, &no_core_file);
                libc::alarm(SECONDS_OF_CHILD);
                libc::dup2(writer.as_raw_fd(), libc::STDERR_FILENO);
            }
            IN_CHILD.store(true, Ordering::Relaxed);
            let outcome = panic::catch_unwind(AssertUnwindSafe(act));
            // SAFETY: ends this process, without what the parent has registered for its end.
            unsafe { libc::_exit(if outcome.is_ok() { 0 } else { 101 }) }
        }
        child => {
            drop(writer);
            let mut stderr = Vec::new();
            File::from(reader)
                .read_to_end(&mut stderr)
                .expect("a pipe can be read");
            Ending {
                status: wait(child),
                stderr: String::from_utf8_lossy(&stderr).into_owned(),
            }
        }
    }
}

/// Seconds until `SIGALRM` ends a child that hangs. Most take a fraction of a second; Valgrind and
/// emulators are a hundred times slower.
const SECONDS_OF_CHILD: u32 = 300;

/// The panic hook of a child.
static IN_CHILD: AtomicBool = AtomicBool::new(false);

/// Writes to standard error without libtest, which captures output, and without std's lock.
fn let_children_say_why_they_panic() {
    let in_parent = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !IN_CHILD.load(Ordering::Relaxed) {
            return in_parent(panic);
        }
        // SAFETY: it stays open, and is not closed here.
        let stderr = unsafe { File::from_raw_fd(libc::STDERR_FILENO) };
        let _ = writeln!(&*ManuallyDrop::new(stderr), "{panic}");
    }));
}

fn wait(child: libc::pid_t) -> ExitStatus {
    let mut status = 0;
    // SAFETY: `status` is writable.
    while unsafe { libc::waitpid(child, &mut status, 0) } == -1 {
        let error = io::Error::last_os_error();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted, "waitpid: {error}");
    }
    ExitStatus::from_raw(status)
}

/// Returns a pipe's ends, for reading and for writing. Child programs do not inherit them.
pub fn pipe() -> (OwnedFd, OwnedFd) {
    let mut ends = [-1; 2];
    // SAFETY: there is room for two descriptors, which nobody else owns.
    unsafe {
        #[cfg(target_os = "linux")]
        let done = libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC);
        // A program that another thread starts before the next call inherits them.
        #[cfg(not(target_os = "linux"))]
        let done = libc::pipe(ends.as_mut_ptr())
            | libc::fcntl(ends[0], libc::F_SETFD, libc::FD_CLOEXEC)
            | libc::fcntl(ends[1], libc::F_SETFD, libc::FD_CLOEXEC);
        assert_eq!(done, 0, "a pipe: {}", io::Error::last_os_error());
        (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
    }
}
