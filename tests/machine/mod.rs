//! What tests ask of the machine that runs them, and how they say that they cannot run on it.
//!
//! * `GREENLET_EMULATED` is set where it is an emulator.
//! * With `GREENLET_NO_SKIPS` set a test fails where it would be skipped.
//! * `GREENLET_SKIPPED` names a file to which each skip is added, as `ci/steps.sh` reads it.

#![allow(dead_code, reason = "each test uses its own part")]

use std::{
    env,
    fmt::Display,
    fs::OpenOptions,
    io::{self, Write},
    thread,
};

/// Does an emulator run this test, many times slower than a processor?
pub fn emulated() -> bool {
    env::var_os("GREENLET_EMULATED").is_some()
}

pub fn page_size() -> usize {
    // SAFETY: no precondition.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    bytes.try_into().expect("every system has pages")
}

/// To be called by a test that cannot do all that it is for: it says so, and why, even though it
/// passes.
#[track_caller]
pub fn skip(why: impl Display) {
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    let skipped = format!("{test}: {why}");
    assert!(
        env::var_os("GREENLET_NO_SKIPS").is_none(),
        "skipped, which GREENLET_NO_SKIPS forbids: {skipped}"
    );
    // Past what libtest keeps to itself, in one piece.
    let _ = io::stderr().write_all(format!("skipped: {skipped}\n").as_bytes());
    if let Some(list) = env::var_os("GREENLET_SKIPPED") {
        let list = OpenOptions::new().append(true).open(list);
        let mut list = list.expect("the list of skips is there");
        list.write_all(format!("{skipped}\n").as_bytes())
            .expect("the list of skips can be written");
    }
}
