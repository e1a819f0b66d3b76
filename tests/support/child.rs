//! Code that ends its process, run in another.

use std::{
    any::type_name,
    env,
    os::unix::process::ExitStatusExt,
    process::{self, Command, ExitStatus},
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
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{status}\n{stderr}");
        for word in words {
            assert!(stderr.contains(word), "no {word:?} in:\n{stderr}");
        }
    }
}

/// Runs `body` in a process of its own, which exits with success when it returns. To be given
/// a closure that stands directly in a test: the child is this program, told to run that test.
///
/// `None`, with a word of why, where a program cannot start itself.
pub fn child<F: FnOnce()>(body: F) -> Option<Ended> {
    // `binary::module::test::{{closure}}`
    let test = type_name::<F>();
    let test = test.split_once("::").expect("a path").1;
    let test = test.split("::{{closure}}").next().expect("a first part");
    if env::var_os(WHICH).is_some_and(|which| which == test) {
        eprintln!("{BEGIN}");
        body();
        process::exit(0);
    }

    let runner = env::var("GREENLET_RUNNER").unwrap_or_default();
    if super::emulated() && runner.is_empty() {
        eprintln!("skipped: under an emulator, without GREENLET_RUNNER, no program starts itself");
        return None;
    }
    let this = env::current_exe().expect("this program has a path");
    let mut words = runner.split_whitespace();
    let mut command = if let Some(emulator) = words.next() {
        let mut command = Command::new(emulator);
        command.args(words).arg(this);
        command
    } else {
        Command::new(this)
    };
    let output = command
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
