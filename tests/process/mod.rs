//! Child processes: forks of a test, and programs that it starts.

#![allow(dead_code, reason = "each test uses its own part")]

use std::{env, ffi::OsStr, process::Command};

mod aborted;
mod ending;
#[cfg(unix)]
mod fork;
#[cfg(windows)]
mod restart;

#[allow(unused_imports, reason = "each test uses its own part")]
pub use aborted::is_abort;
#[allow(unused_imports, reason = "each test uses its own part")]
pub use ending::Ending;
#[cfg(unix)]
#[allow(unused_imports, reason = "each test uses its own part")]
pub use fork::{in_child, pipe};
#[cfg(windows)]
#[allow(unused_imports, reason = "one test uses it")]
pub use restart::again;

/// A command that runs `program`, built for the test's own target.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let runner = env::var("GREENLET_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace();
    match words.next() {
        None => Command::new(program),
        Some(emulator) => {
            let mut command = Command::new(emulator);
            command.args(words).arg(program);
            command
        }
    }
}
