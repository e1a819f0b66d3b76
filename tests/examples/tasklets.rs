//! The example `tasklets`, as its user sees it.

use std::os::unix::process::CommandExt;

use crate::{
    example::{self, stderr, stdout},
    machine::{emulated, skip, unmeasurable},
};

/// Returns the output of `count` tasklets. Returns `None` and skips the test if there are not enough stacks.
fn lines(count: &str) -> Option<Vec<String>> {
    let output = example::run("tasklets", &[count]);
    if stderr(&output).contains("raise vm.max_map_count") {
        skip(stderr(&output).trim_end());
        return None;
    }
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stderr(&output), "");
    Some(stdout(&output).lines().map(str::to_owned).collect())
}

fn expected(count: &str) -> [String; 2] {
    [
        format!("{count} tasklets took 3 turns each, in order: true"),
        format!("0 became {count} on its way"),
    ]
}

#[test]
fn a_few_take_turns_and_pass_on_a_number() {
    for count in ["0", "1", "2", "1000"] {
        assert_eq!(lines(count).unwrap(), expected(count));
    }
}

#[test]
fn a_hundred_thousand_tasklets_take_turns() {
    if emulated() {
        return skip("too many for an emulator");
    }
    if let Some(lines) = lines("100000") {
        assert_eq!(lines, expected("100000"));
    }
}

#[test]
fn too_many_tasklets_are_a_clear_error() {
    if let Some(why) = unmeasurable() {
        return skip(why);
    }
    if cfg!(target_env = "musl") {
        return skip("musl's allocator maps each page, and meets the limit first");
    }
    let limit = libc::rlimit {
        rlim_cur: 48 << 20,
        rlim_max: 48 << 20,
    };
    let mut command = example::command("tasklets");
    // SAFETY: setrlimit may be called between fork and exec.
    unsafe {
        command.pre_exec(move || {
            assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &limit), 0);
            Ok(())
        });
    }
    let output = command.arg("4000").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(stdout(&output), "");
    let error = stderr(&output);
    assert!(
        error.starts_with("tasklets: cannot map a greenlet's stack of ")
            && error.contains("RLIMIT_AS"),
        "{error}"
    );
}

#[test]
fn help_is_output_and_what_is_no_number_is_misuse() {
    let help = example::run("tasklets", &["--help"]);
    assert!(help.status.success());
    assert!(stdout(&help).starts_with("Usage: tasklets [COUNT]\n"));
    let output = example::run("tasklets", &["many"]);
    assert_eq!(output.status.code(), Some(2));
    let expected = format!(
        "tasklets: COUNT is a number, not \"many\"\n\n{}",
        stdout(&help)
    );
    assert_eq!(stderr(&output), expected);
}

#[test]
fn ends_quietly_when_its_output_is_closed() {
    example::ends_quietly_unread(example::command("tasklets").arg("3"));
}
