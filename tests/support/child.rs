//! Runs code that ends its process in a child process.

use std::{
    any::type_name,
    env,
    process::{self, ExitStatus},
};

use crate::{
    machine::{emulated, skip},
    process::{command, is_abort},
};

const WHICH: &str = "GREENLET_TEST_IN_CHILD";
const BEGIN: &str = "the child begins";

pub struct Ended {
    pub status: ExitStatus,
    pub stderr: String,
}

impl Ended {
    #[track_caller]
    pub fn assert_success(&self) {
        assert!(self.status.success(), "{}\n{}", self.status, self.stderr);
    }

    #[track_caller]
    pub fn assert_aborted_with(&self, words: &[&str]) {
        let Self { status, stderr } = self;
        assert!(is_abort(*status), "{status}\n{stderr}");
        for word in words {
            assert!(stderr.contains(word), "no {word:?} in:\n{stderr}");
        }
    }
}

/// Runs `body` in another process, which exits with success when `body` returns. `body` must be a closure
/// directly in a test, because the child process is this program, started to run that test.
///
/// Returns `None` and skips the test where a program cannot start itself.
pub fn child<F: FnOnce()>(body: F) -> Option<Ended> {
    // `binary::module::test::{{closure}}`
    let test = type_name::<F>();
    let test = test.split_once("::").expect("a path").1;
    let test = test.split("::{{closure}}").next().expect("a first part");
    if env::var_os(WHICH).is_some_and(|which| which == test) {
        eprintln!("{BEGIN}");
        write_no_core_file();
        body();
        process::exit(0);
    }

    if cfg!(miri) {
        skip("under Miri no program starts another");
        return None;
    }
    if emulated() && env::var_os("GREENLET_RUNNER").is_none() {
        skip("under an emulator, without GREENLET_RUNNER, no program starts itself");
        return None;
    }
    let output = command(env::current_exe().expect("this program has a path"))
        .args([test, "--exact", "--include-ignored", "--nocapture"])
        .env(WHICH, test)
        .output()
        .expect("this program starts");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains(BEGIN), "{test} did not run:\n{stderr}");
    Some(Ended {
        status: output.status,
        stderr,
    })
}

fn write_no_core_file() {
    #[cfg(unix)]
    {
        let limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: a system call with a valid argument.
        unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) };
    }
}
