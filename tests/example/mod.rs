//! Examples, as their users see them.

#![allow(dead_code, reason = "each test uses its own part")]

use std::{
    env,
    process::{Command, Output},
};

use crate::process;

/// A command that runs the example `name`, newly built: `cargo test --test` does not do it.
pub fn command(name: &str) -> Command {
    // target/[TRIPLE/]PROFILE/deps/TEST
    let test = env::current_exe().expect("the test knows its path");
    let above = |levels| test.ancestors().nth(levels).expect("Cargo's layout");
    let target = above(if emulated() { 4 } else { 3 });

    let mut cargo = process::cargo("build").expect("the test is started by cargo");
    cargo.args(["--quiet", "--example", name]);
    let built = cargo.env("CARGO_TARGET_DIR", target).status();
    assert!(built.expect("cargo starts").success());
    process::command(above(3).join("debug/examples").join(name))
}

/// Does an emulator run this test, many times slower than a processor?
pub fn emulated() -> bool {
    env::var_os("GREENLET_EMULATED").is_some()
}

pub fn run(name: &str, arguments: &[&str]) -> Output {
    let mut command = command(name);
    command.args(arguments).output().expect("it starts")
}

pub fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("UTF-8")
}

pub fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("UTF-8")
}
