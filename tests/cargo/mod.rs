//! Starts Cargo from a test.

use std::{env, path::Path, process::Command};

/// Returns a command of the Cargo that started this test, for the same target. Returns `None` if the test was
/// started by hand.
pub fn command(subcommand: &str) -> Option<Command> {
    let mut cargo = Command::new(env::var_os("CARGO")?);
    cargo.args([subcommand, "--offline"]);
    // target/[TRIPLE/]tmp
    let mut above = Path::new(env!("CARGO_TARGET_TMPDIR")).ancestors().skip(1);
    let mut target = above.next();
    let triple = env!("GREENLET_TARGET");
    if target.is_some_and(|target| target.ends_with(triple)) {
        cargo.args(["--target", triple]);
        target = above.next();
    }
    cargo.env("CARGO_TARGET_DIR", target.expect("Cargo's layout"));
    Some(cargo)
}
