//! The example `generators`, as its user sees it.

use crate::example::{self, stderr, stdout};

#[test]
fn yields_from_recursion_and_from_each_other_and_exits_when_dropped() {
    let output = example::run("generators", &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stderr(&output), "");
    let expected = [
        "leaves: abcde",
        "orders of abc: abc acb bac bca cab cba",
        "orders of greenlet: greenlet greenlte greenelt",
        "zipped:",
        "  a a",
        "  b b",
        "  c x",
        "  left: this greenlet is asked to exit",
        "  left drops what it holds",
        "  right: this greenlet is asked to exit",
        "  right drops what it holds",
        "primes: 2 3 5 7 11 13 17 19 23 29",
    ];
    assert_eq!(stdout(&output).lines().collect::<Vec<_>>(), expected);
}

#[test]
fn help_is_output_and_an_argument_is_misuse() {
    let help = example::run("generators", &["--help"]);
    assert!(help.status.success(), "{help:?}");
    assert!(stdout(&help).starts_with("Usage: generators\n"));
    let output = example::run("generators", &["more"]);
    assert_eq!(output.status.code(), Some(2));
    let expected = format!(
        "generators: unexpected argument \"more\"\n\n{}",
        stdout(&help)
    );
    assert_eq!(stderr(&output), expected);
}

#[test]
fn ends_quietly_when_its_output_is_closed() {
    example::ends_quietly_unread(&mut example::command("generators"));
}
