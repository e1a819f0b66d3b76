//! Builds an example and starts it as its user does.

#![allow(dead_code, reason = "each test uses its own part")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::{cargo, process};

/// Builds the example `name`, which `cargo test --test` does not do, and returns its path.
pub fn program(name: &str) -> PathBuf {
    let mut cargo = cargo::command("build").expect("the test is started by cargo");
    let built = cargo.args(["--quiet", "--example", name]).status();
    assert!(built.expect("cargo starts").success());
    // target/[TRIPLE/]tmp
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    let target = target.expect("Cargo's layout");
    target.join("debug/examples").join(name)
}

/// Returns a command that runs the example.
pub fn command(name: &str) -> Command {
    process::command(program(name))
}

pub fn run(name: &str, arguments: &[&str]) -> Output {
    let mut command = command(name);
    command.args(arguments).output().expect("it starts")
}

/// Checks that the example ends quietly when its output is closed.
#[cfg(unix)]
#[track_caller]
pub fn ends_quietly_unread(command: &mut Command) {
    let (reader, writer) = process::pipe();
    drop(reader);
    let output = command.stdout(Stdio::from(writer)).output();
    let output = output.expect("it starts");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stderr(&output), "");
}

pub fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("UTF-8")
}

pub fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("UTF-8")
}
