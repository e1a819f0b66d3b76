//! The layers of `src/` depend only on those above them in the table of `.github/CONTRIBUTING.md`, with the
//! exceptions that it lists.

#![cfg(not(miri))]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the names between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Returns the layer of a path: `src/arch/` and `src/raw.rs` are `arch` and `raw`.
fn layer(path: &str) -> Option<&str> {
    let path = path.strip_prefix("src/")?;
    Some(path.split_once('/').map_or(path, |(folder, _)| folder))
        .map(|it| it.trim_end_matches(".rs"))
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found
}

/// Returns the first name of each path that follows `crate::`, also in a list in braces.
fn names_after_crate(source: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for rest in source.split("crate::").skip(1) {
        let mut items = vec![rest];
        if let Some(list) = rest.strip_prefix('{') {
            items.clear();
            let (mut depth, mut start) = (0, 0);
            for (at, c) in list.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' | ',' if depth == 0 => {
                        items.push(&list[start..at]);
                        start = at + 1;
                        if c == '}' {
                            break;
                        }
                    }
                    '}' => depth -= 1,
                    _ => {}
                }
            }
        }
        names.extend(items.into_iter().filter_map(|item| {
            let item = item.trim_start();
            let end = item.find(|c: char| !c.is_alphanumeric() && c != '_');
            let name = &item[..end.unwrap_or(item.len())];
            (!name.is_empty()).then_some(name)
        }));
    }
    names
}

/// Returns the layer from which the crate's root re-exports this name.
fn exporter<'a>(root: &'a str, name: &str) -> Option<&'a str> {
    root.split("pub use ").skip(1).find_map(|statement| {
        let (statement, _) = statement.split_once(';')?;
        let mut words = statement.split(|c: char| !c.is_alphanumeric() && c != '_');
        let from = words.next()?;
        words.any(|word| word == name).then_some(from)
    })
}

#[test]
fn layers_depend_on_those_above_them() {
    let contributing = read(".github/CONTRIBUTING.md");
    let section = contributing.split("## Layers").nth(1).unwrap();
    let (table, exceptions) = section.split_once("\nExceptions:").unwrap();
    let (exceptions, _) = exceptions.split_once("\n\n").unwrap();
    let layers: Vec<&str> = quoted(table).filter_map(layer).collect();
    assert!(layers.len() >= 8, "{layers:?}");
    // `src/arch/` → `raw::Context`
    let exceptions: Vec<&str> = quoted(exceptions).collect();
    let exceptions: BTreeSet<(String, String)> = exceptions
        .chunk_by(|_, next| !next.starts_with("src/"))
        .flat_map(|chunk| {
            let from = layer(chunk[0]).expect("a layer");
            chunk[1..]
                .iter()
                .map(move |to| (from.to_owned(), (*to).to_owned()))
        })
        .collect();

    let root = read("src/lib.rs");
    let place = |layer: &str| layers.iter().position(|it| *it == layer);
    let mut upwards = BTreeSet::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in files(&source) {
        let path = file
            .strip_prefix(source.parent().unwrap())
            .unwrap()
            .to_str()
            .unwrap();
        let Some(from) = layer(path).and_then(|from| Some((from, place(from)?))) else {
            assert!(
                path == "src/lib.rs" || path.starts_with("src/guide/"),
                "{path} is in no layer"
            );
            continue;
        };
        let text: String = fs::read_to_string(&file)
            .unwrap()
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .flat_map(|line| [line, "\n"])
            .collect();
        for name in names_after_crate(&text) {
            let to = place(name).or_else(|| place(exporter(&root, name)?));
            if to.is_some_and(|to| to > from.1) {
                upwards.insert((from.0.to_owned(), name.to_owned()));
            }
        }
    }
    assert_eq!(upwards, exceptions);
}
