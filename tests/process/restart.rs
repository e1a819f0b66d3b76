//! Starts this program again to run a child's part, where processes do not fork.

use std::{
    env,
    process::{self, Command},
};

use super::Ending;

const WHAT: &str = "GREENLET_TEST_AGAIN";

/// Runs the part `name` in another process, which starts the same test and arrives here with that name.
pub fn again(name: &str, act: impl FnOnce()) -> Ending {
    if env::var_os(WHAT).is_some_and(|what| what == name) {
        act();
        process::exit(0);
    }
    let program = env::current_exe().expect("this program has a path");
    let output = Command::new(program)
        .arg(name)
        .env(WHAT, name)
        .output()
        .expect("this program starts");
    Ending {
        status: output.status,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
