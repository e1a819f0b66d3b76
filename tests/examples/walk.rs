//! The example `walk`, as its user sees it.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::LazyLock,
};

use crate::{
    directory::Directory,
    example::{self, stderr, stdout},
    machine::skip,
    process,
};

/// Returns the path of the program, which is built once.
fn program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| example::program("walk"));
    &PROGRAM
}

fn walk(arguments: &[&OsStr]) -> Output {
    let mut command = process::command(program());
    command.args(arguments).output().expect("walk starts")
}

/// Returns the output of `walk` without disk usage, which depends on the file system.
fn sizes_of(output: &Output) -> Vec<String> {
    let columns = stdout(output).lines().map(|line| line.split_at(10));
    columns
        .map(|(size, rest)| size.to_string() + &rest[11..])
        .collect()
}

/// Walks `root`, checks success, and returns the output without the root's path, which differs each time.
fn lines_of(root: &Path) -> Vec<String> {
    lines_with(&[], root)
}

fn lines_with(options: &[&str], root: &Path) -> Vec<String> {
    let mut arguments: Vec<&OsStr> = options.iter().map(OsStr::new).collect();
    arguments.push(root.as_os_str());
    let output = walk(&arguments);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stderr(&output), "");
    let root = root.to_str().expect("a temporary name");
    let lines = sizes_of(&output).into_iter();
    lines.map(|line| line.replace(root, "ROOT")).collect()
}

/// Makes a directory with every kind of entry, in no order.
fn sample() -> Directory {
    let root = Directory::new().unwrap();
    let path = |name: &str| root.path().join(name);
    fs::create_dir_all(path("b/deep/deeper")).unwrap();
    fs::write(path("z"), [0; 1023]).unwrap();
    fs::write(path("b/deep/deeper/one"), [0; 1]).unwrap();
    fs::write(path("a"), [0; 10]).unwrap();
    fs::write(path("b/y"), [0; 1024]).unwrap();
    fs::write(path("b/deep/x"), [0; 1536]).unwrap();
    fs::create_dir(path("empty")).unwrap();
    root
}

const SAMPLE: [&str; 10] = [
    "      10 B  ┌── a",
    "       1 B  │     ┌── one",
    "       1 B  │   ┌─┴ deeper",
    "   1.5 KiB  │   ├── x",
    "   1.5 KiB  │ ┌─┴ deep",
    "   1.0 KiB  │ ├── y",
    "   2.5 KiB  ├─┴ b",
    "       0 B  ├── empty",
    "    1023 B  ├── z",
    "   3.5 KiB  ROOT",
];

#[test]
fn prints_each_entry_once_in_order_and_each_directory_with_its_sum() {
    assert_eq!(lines_of(sample().path()), SAMPLE);
}

#[test]
fn walks_the_current_directory_when_no_path_is_given() {
    let root = sample();
    let output = process::command(program())
        .current_dir(root.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines = sizes_of(&output);
    let [contents @ .., root] = &SAMPLE;
    assert_eq!(lines[..contents.len()], *contents);
    assert_eq!(lines[contents.len()..], [root.replace("ROOT", ".")]);
}

#[test]
fn prints_no_more_levels_than_it_is_told_and_counts_all() {
    let root = sample();
    let two = [
        "      10 B  ┌── a",
        "   1.5 KiB  │ ┌── deep",
        "   1.0 KiB  │ ├── y",
        "   2.5 KiB  ├─┴ b",
        "       0 B  ├── empty",
        "    1023 B  ├── z",
        "   3.5 KiB  ROOT",
    ];
    assert_eq!(lines_with(&["--depth", "2"], root.path()), two);
    assert_eq!(lines_with(&["-d0"], root.path()), ["   3.5 KiB  ROOT"]);
}

#[test]
fn tells_what_each_entry_takes_on_disk() {
    let root = sample();
    let on_disk = |name: &str| {
        let metadata = fs::symlink_metadata(root.path().join(name)).unwrap();
        metadata.blocks() * 512
    };
    let all = ["", "a", "z", "empty", "b", "b/y", "b/deep", "b/deep/x"];
    let deepest = ["b/deep/deeper", "b/deep/deeper/one"];
    let sum: u64 = all.iter().chain(&deepest).map(|name| on_disk(name)).sum();
    let output = walk(&["-d0".as_ref(), root.path().as_os_str()]);
    let printed = stdout(&output)[11..21].trim();
    assert!(sum < 1 << 20, "{sum}");
    let expected = if sum < 1024 {
        format!("{sum} B")
    } else {
        format!("{:.1} KiB", sum as f64 / 1024.0)
    };
    assert_eq!(printed, expected);
}

#[test]
fn a_file_with_two_names_counts_once() {
    let root = Directory::new().unwrap();
    fs::write(root.path().join("first"), [0; 100]).unwrap();
    fs::hard_link(root.path().join("first"), root.path().join("second")).unwrap();
    assert_eq!(
        lines_of(root.path()),
        [
            "     100 B  ┌── first",
            "       0 B  ├── second",
            "     100 B  ROOT",
        ]
    );
}

#[test]
fn a_file_is_a_tree_of_one_line() {
    let root = sample();
    assert_eq!(lines_of(&root.path().join("z")), ["    1023 B  ROOT"]);
}

#[test]
fn does_not_follow_symbolic_links() {
    let root = Directory::new().unwrap();
    let large = Directory::new().unwrap();
    fs::write(large.path().join("large"), [0; 100_000]).unwrap();
    symlink(large.path(), root.path().join("outward")).unwrap();
    symlink(".", root.path().join("self")).unwrap();
    symlink("nowhere", root.path().join("void")).unwrap();
    // The size of a symbolic link is the length of its target's name.
    let outward = large.path().as_os_str().len();
    assert_eq!(
        lines_of(root.path()),
        [
            format!("{outward:>8} B  ┌── outward"),
            "       1 B  ├── self".into(),
            "       7 B  ├── void".into(),
            format!("{:>8} B  ROOT", outward + 8),
        ]
    );
}

#[test]
fn a_path_that_does_not_exist_is_one_clear_line_and_a_failure() {
    let root = Directory::new().unwrap();
    let missing = root.path().join("missing");
    let output = walk(&[missing.as_os_str()]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    let expected = format!(
        "walk: {}: No such file or directory (os error 2)\n",
        missing.display()
    );
    assert_eq!(stderr(&output), expected);
}

/// Runs `walk` as a user without root's permissions. Returns `None` and skips the test if there is none.
fn walk_without_privileges(root: &Path) -> Option<Output> {
    const NOBODY: u32 = 65534;
    // SAFETY: no precondition.
    if unsafe { libc::geteuid() } != 0 {
        return Some(walk(&[root.as_os_str()]));
    }
    // A directory that the user may read.
    let place = Directory::new().unwrap();
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let copy = place.path().join("walk");
    // Another process copies the program. If this one opened it for writing, a process that another test
    // starts could inherit the descriptor, and a file that is open for writing cannot be executed (ETXTBSY).
    let mut cp = Command::new("cp");
    let copied = cp.arg(program()).arg(&copy).status().unwrap();
    assert!(copied.success());
    fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = process::command(copy);
    match command.arg(root).uid(NOBODY).gid(NOBODY).output() {
        Ok(output) => Some(output),
        Err(error) => {
            skip(format_args!(
                "root may read everything, and cannot become nobody: {error}"
            ));
            None
        }
    }
}

#[test]
fn a_directory_that_cannot_be_read_is_reported_the_rest_printed_and_the_status_1() {
    let root = sample();
    let locked = root.path().join("b/deep");
    fs::set_permissions(root.path(), PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(&locked, PermissionsExt::from_mode(0o000)).unwrap();
    let output = walk_without_privileges(root.path());
    let output_of_locked = walk_without_privileges(&locked);
    fs::set_permissions(&locked, PermissionsExt::from_mode(0o755)).unwrap();

    let Some(output) = output else { return };
    let report = format!(
        "walk: {}: Permission denied (os error 13)\n",
        locked.display()
    );
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), report);
    let lines = sizes_of(&output);
    assert_eq!(
        lines[..6],
        [
            "      10 B  ┌── a",
            "       0 B  │ ┌── deep",
            "   1.0 KiB  │ ├── y",
            "   1.0 KiB  ├─┴ b",
            "       0 B  ├── empty",
            "    1023 B  ├── z",
        ]
    );
    assert_eq!(lines.len(), 7);

    // The path itself has no rest.
    let output = output_of_locked.expect("as before");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!((stdout(&output), stderr(&output)), ("", report.as_str()));
}

#[test]
fn a_name_of_any_bytes_is_printed_as_one_line() {
    let root = Directory::new().unwrap();
    for name in [
        &b"a\xff\xfez"[..],
        b"line\nfeed",
        b"\x1b[31mred",
        "é".as_bytes(),
    ] {
        fs::write(root.path().join(OsStr::from_bytes(name)), "").unwrap();
    }
    assert_eq!(
        lines_of(root.path()),
        [
            "       0 B  ┌── \u{fffd}[31mred",
            "       0 B  ├── a\u{fffd}\u{fffd}z",
            "       0 B  ├── line\u{fffd}feed",
            "       0 B  ├── é",
            "       0 B  ROOT",
        ]
    );
}

#[test]
fn a_deep_tree_is_walked_to_its_ground() {
    const DEPTH: usize = 500;
    let root = Directory::new().unwrap();
    let mut deepest = root.path().to_path_buf();
    deepest.extend(std::iter::repeat_n("d", DEPTH));
    fs::create_dir_all(&deepest).unwrap();
    fs::write(deepest.join("f"), "1234567").unwrap();

    let lines = lines_of(root.path());
    assert_eq!(lines.len(), DEPTH + 2);
    assert!(lines[0].ends_with("┌── f"), "{}", lines[0]);
    assert_eq!(lines[DEPTH + 1], "       7 B  ROOT");
}

#[test]
fn ends_quietly_when_its_output_is_closed() {
    let root = sample();
    example::ends_quietly_unread(process::command(program()).arg(root.path()));
}

#[test]
fn says_so_when_the_output_cannot_be_written() {
    let Ok(full) = fs::OpenOptions::new().write(true).open("/dev/full") else {
        return skip("there is no /dev/full");
    };
    let root = sample();
    let mut command = process::command(program());
    let output = command.arg(root.path()).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "walk: No space left on device (os error 28)\n"
    );
}

#[test]
fn help_is_output_and_misuse_is_an_error_that_names_it() {
    let help = walk(&["--help".as_ref()]);
    assert!(help.status.success());
    assert!(
        stdout(&help).starts_with("Usage: walk [OPTION...] [PATH]\n"),
        "{help:?}"
    );
    assert_eq!(stderr(&help), "");

    for (arguments, error) in [
        (&[".", "./"][..], "unexpected argument \"./\""),
        (&["--all"], "invalid option '--all'"),
        (
            &["--depth", "x"],
            "--depth takes a number of levels, not \"x\"",
        ),
        (&["-d"], "missing argument for option '-d'"),
    ] {
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        let misuse = walk(&arguments);
        assert_eq!(misuse.status.code(), Some(2), "{arguments:?}");
        assert_eq!(stdout(&misuse), "");
        assert_eq!(
            stderr(&misuse),
            format!("walk: {error}\n\n{}", stdout(&help))
        );
    }
}
