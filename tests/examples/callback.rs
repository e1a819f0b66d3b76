//! The example `callback`, as its user sees it. The number and order of comparisons depend on the C
//! library's `qsort`.

use std::{
    io::{BufRead, BufReader, Write},
    process::{ChildStdin, ExitStatus, Stdio},
};

use crate::example::{self, stderr, stdout};

#[test]
fn two_sorts_take_turns_and_a_third_is_killed_in_the_callback() {
    let output = example::run("callback", &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stderr(&output), "");
    let lines: Vec<_> = stdout(&output).lines().collect();
    let (mut sorted, killed) = (lines[..2].to_vec(), &lines[2..]);
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        [
            "by length: fig kiwi pear plum apple banana blackberry",
            "by name: apple banana blackberry fig kiwi pear plum",
        ]
    );
    assert_eq!(
        killed,
        [
            "killed in the callback:",
            "qsort has returned, with answers made up",
            "dead: true",
        ]
    );
}

/// Ranks `things`. `answer` is given two things and where to write the answer, which may be
/// closed. Returns how it ended and the lines that were no questions.
fn rank(
    things: &[&str],
    mut answer: impl FnMut(&str, &str, &mut Option<ChildStdin>),
) -> (ExitStatus, Vec<String>) {
    let mut child = example::command("callback")
        .args(things)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to_child = child.stdin.take();
    let mut others = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        match line
            .strip_prefix("1: ")
            .and_then(|line| line.strip_suffix("?"))
        {
            Some(question) => {
                let (first, second) = question.split_once(", or 2: ").unwrap();
                answer(first, second, &mut to_child);
            }
            None => others.push(line),
        }
    }
    (child.wait().unwrap(), others)
}

#[test]
fn ranks_by_the_answers() {
    let (status, ranking) = rank(&["cc", "a", "dddd", "bbb"], |first, second, to_child| {
        let answer = if first.len() > second.len() { "1" } else { "2" };
        writeln!(to_child.as_ref().unwrap(), "{answer}").unwrap();
    });
    assert!(status.success());
    assert_eq!(ranking, ["1. dddd", "2. bbb", "3. cc", "4. a"]);
}

#[test]
fn any_answers_give_an_order() {
    let things: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    let things: Vec<&str> = things.iter().map(String::as_str).collect();
    let mut asked = 0u32;
    let (status, ranking) = rank(&things, |_, _, to_child| {
        asked += 1;
        let bit = asked.wrapping_mul(2_654_435_769) >> 31;
        writeln!(to_child.as_ref().unwrap(), "{}", 1 + bit).unwrap();
    });
    assert!(status.success());
    let mut ranked: Vec<u32> = ranking
        .iter()
        .map(|line| line.split_once(". ").unwrap().1.parse().unwrap())
        .collect();
    ranked.sort_unstable();
    assert!(ranked.into_iter().eq(0..40), "{ranking:?}");
}

#[test]
fn asks_again_until_there_is_an_answer_and_ends_when_there_is_none() {
    let mut asked = Vec::new();
    let (status, said) = rank(&["x", "y", "z"], |first, second, to_child| {
        asked.push((first.to_owned(), second.to_owned()));
        match asked.len() {
            1 => writeln!(to_child.as_ref().unwrap(), "what?").unwrap(),
            _ => *to_child = None,
        }
    });
    assert_eq!(status.code(), Some(1));
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0], asked[1]);
    assert_eq!(
        said,
        [
            "no more answers",
            "qsort has returned, with answers made up"
        ]
    );
}

#[test]
fn one_item_is_sorted_without_a_question() {
    let output = example::run("callback", &["only"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stdout(&output), "1. only\n");
}

#[test]
fn says_how_it_is_used() {
    let help = example::run("callback", &["apple", "--help"]);
    assert!(help.status.success(), "{help:?}");
    assert!(stdout(&help).starts_with("Usage: callback"));
    let refused = example::run("callback", &["apple", "--helo"]);
    assert_eq!(refused.status.code(), Some(2));
    let error = format!("callback: invalid option '--helo'\n\n{}", stdout(&help));
    assert_eq!(stderr(&refused), error);
    let thing = example::run("callback", &["--", "--help"]);
    assert_eq!(stdout(&thing), "1. --help\n");
}

#[test]
fn ends_quietly_when_its_output_is_closed() {
    example::ends_quietly_unread(&mut example::command("callback"));
}
