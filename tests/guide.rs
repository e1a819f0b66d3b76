//! The guide lists every rule, every rule has a test, and every test that `tests/README.md` names exists.
//! Every public type has an example.

#![cfg(not(miri))]

use std::{
    collections::BTreeSet,
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

const RULES: RangeInclusive<u32> = 1..=28;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn all_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // Cargo's output for tests/boards.
            if !path.ends_with("target") {
                found.extend(all_files(&path));
            }
        } else {
            found.push(path);
        }
    }
    found
}

/// Returns the numbers between `before` and `after`.
fn numbers(text: &str, before: &str, after: &str) -> Vec<u32> {
    let number = |rest: &str| {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, rest) = rest.split_at(end);
        rest.starts_with(after).then(|| number.parse().ok())?
    };
    text.split(before).skip(1).filter_map(number).collect()
}

#[test]
fn the_guide_lists_every_rule_once_and_in_order() {
    let chapter = read(&repository().join("src/guide/rules.md"));
    assert_eq!(
        numbers(&chapter, "</a>**s", "** "),
        RULES.collect::<Vec<_>>()
    );
}

#[test]
fn a_rule_is_linked_wherever_the_documentation_cites_it() {
    let chapter = read(&repository().join("src/guide/rules.md"));
    for rule in RULES {
        assert!(
            chapter.contains(&format!("* <a id=\"s{rule}\"></a>**s{rule}**")),
            "s{rule}"
        );
    }
    let mut links = 0;
    for path in all_files(&repository().join("src/guide")) {
        if path.extension().is_none_or(|end| end != "md") {
            continue;
        }
        let text = read(&path);
        for before in ["(s", "rule s", "rules s", ", s"] {
            let bare: Vec<_> = [")", ",", ".", ":", " "]
                .iter()
                .flat_map(|after| numbers(&text, before, after))
                .filter(|number| RULES.contains(number))
                .collect();
            assert!(
                bare.is_empty(),
                "{} cites {bare:?} without a link",
                path.display()
            );
        }
        for number in numbers(&text, "\n[s", "]: ") {
            assert!(text.contains(&format!("[s{number}]: crate::guide::rules#s{number}\n")));
            links += 1;
        }
    }
    assert!(links > 0);
}

#[test]
fn every_rule_has_a_test_that_is_named_after_it() {
    let mut tested = BTreeSet::new();
    for path in all_files(&repository().join("tests")) {
        if path.extension().is_some_and(|end| end == "rs") {
            tested.extend(numbers(&read(&path), "\nfn s", "_"));
        } else if path.ends_with("compile_fail.md") {
            // Code that does not compile is no test function. Its name stands above it.
            tested.extend(numbers(&read(&path), "\n`s", "_"));
        }
    }
    assert_eq!(tested, RULES.collect());
}

/// `Cargo.toml` lists the programs (`autotests = false`), and each program its modules: the tests of a file
/// that is in neither list would never run.
#[test]
fn each_file_of_tests_is_a_program_or_a_module_of_one() {
    let manifest = read(&repository().join("Cargo.toml"));
    let tests = repository().join("tests");
    let name = |path: &Path| path.file_stem()?.to_str().map(str::to_owned);
    let files = fs::read_dir(&tests)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let (programs, modules): (Vec<_>, Vec<_>) = files
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .partition(|path| {
            let name = name(path).expect("UTF-8");
            manifest.contains(&format!("[[test]]\nname = \"{name}\"\n"))
        });
    assert!(programs.len() >= 5, "{programs:?}");
    let declared: String = programs.iter().map(|program| read(program)).collect();
    for module in modules {
        let name = name(&module).expect("UTF-8");
        let declaration = format!("\nmod {name};\n");
        assert!(
            declared.contains(&declaration),
            "{name}.rs is in no program"
        );
    }
}

/// Returns the quoted words that look like a test: a path, or the name of a rule's test.
fn tests_named_in(text: &str) -> impl Iterator<Item = &str> {
    let is_path = |name: &&str| {
        name.chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:".contains(c))
    };
    let is_test = |name: &&str| {
        let of_a_rule = name.strip_prefix('s').and_then(|rest| rest.split_once('_'));
        name.contains("::") || of_a_rule.is_some_and(|(number, _)| number.parse::<u32>().is_ok())
    };
    text.split('`').filter(is_path).filter(is_test)
}

#[test]
fn every_test_that_is_named_among_greenlets_cases_and_broken_rules_exists() {
    let tests = repository().join("tests");
    let mut there = BTreeSet::new();
    for path in all_files(&tests) {
        let text = read(&path);
        if path.extension().is_some_and(|end| end == "rs") {
            let functions = text.split("\nfn ").skip(1);
            there.extend(functions.filter_map(|rest| Some(rest.split_once('(')?.0.to_owned())));
        } else if path.ends_with("compile_fail.md") {
            let names = text.split("\n`").skip(1);
            there.extend(names.filter_map(|rest| Some(rest.split_once('`')?.0.to_owned())));
        }
    }
    let text = read(&tests.join("README.md"));
    let mut named = 0;
    for name in tests_named_in(&text) {
        let last = name.rsplit("::").next().expect("a last part");
        assert!(there.contains(last), "there is no test {name}");
        named += 1;
    }
    assert!(named > 150, "{named} tests are named");
}

/// Returns the name and the documentation of each public type of the crate.
fn public_types() -> Vec<(String, String)> {
    let mut types = Vec::new();
    for path in all_files(&repository().join("src")) {
        // What stands in for an item where examples do not run.
        let without_std = path.ends_with("stack/error_without_std.rs");
        if without_std || path.extension().is_none_or(|end| end != "rs") {
            continue;
        }
        let mut documentation = String::new();
        for line in read(&path).lines().map(str::trim_start) {
            let kinds = ["pub struct ", "pub enum ", "pub union ", "pub trait "];
            if let Some(comment) = line.strip_prefix("///") {
                documentation.push_str(comment);
                documentation.push('\n');
            } else if let Some(rest) = kinds.iter().find_map(|kind| line.strip_prefix(kind)) {
                let end = rest.find(|c: char| !c.is_alphanumeric()).expect("more");
                types.push((rest[..end].to_owned(), documentation.clone()));
                documentation.clear();
            } else if line.is_empty() || line.ends_with([';', '{', '}']) {
                documentation.clear();
            }
        }
    }
    types
}

#[test]
fn every_public_type_has_an_example() {
    let types = public_types();
    assert!(types.len() > 35, "{} types", types.len());
    for (name, documentation) in types {
        // These two only tell the implementations of `OrThrow` apart. Users do not name them.
        if name != "ByBox" && name != "BySendBox" {
            assert!(documentation.contains("```"), "{name} has no example");
        }
    }
}
