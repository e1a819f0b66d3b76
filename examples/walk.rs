//! Prints a directory as a tree with sizes, the contents of a directory above it:
//!
//! ```text
//! cargo run --release --example walk -- [PATH]
//! ```
//!
//! The walk is a recursive function in a greenlet of its own. From wherever it is in its
//! recursion it hands what it has found to the main greenlet, by a switch, and goes on right
//! there when the main greenlet switches back for more. So the walk keeps its call stack, the
//! printing keeps its loop, and neither needs a list of the whole tree.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt, fs,
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use greenlet::{Builder, Child, Thrown, enter};

const USAGE: &str = "\
Usage: walk [PATH]

Prints what is at PATH (default: the current directory) as a tree with sizes, the
contents of a directory above it. Symbolic links are not followed. A directory that
cannot be read is reported on standard error and counts as empty.
";

/// What the walker sends to the main greenlet.
enum Found {
    Entry {
        name: OsString,
        depth: usize,
        size: u64,
    },
    Unreadable {
        path: PathBuf,
        error: io::Error,
    },
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let root = match arguments.as_slice() {
        [] => Path::new("."),
        [option] if option == "--help" || option == "-h" => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        [path] => Path::new(path),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = check(root) {
        eprintln!("walk: {}: {error}", root.display());
        return ExitCode::FAILURE;
    }
    match print_tree(root, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("walk: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Is there something at `root`, and if it is a directory, can it be read?
fn check(root: &Path) -> io::Result<()> {
    if fs::symlink_metadata(root)?.is_dir() {
        fs::read_dir(root)?;
    }
    Ok(())
}

fn is_broken_pipe(error: &Thrown) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Runs the walk in a greenlet and prints what it sends.
///
/// If printing fails, the walker is dropped in the middle of its recursion. That kills it: its
/// `switch` returns an error, which `?` carries out of the recursion.
fn print_tree(root: &Path, out: &mut impl Write) -> Result<(), Thrown> {
    enter(|me| {
        let walker = Builder::new()
            .name("walker")
            // As much as a program's own stack, for deep trees. Only what is used costs memory.
            .stack_size(8 * 1024 * 1024)
            .build(me, |me, ()| {
                Walk { me }.visit(root, root.as_os_str(), 0)?;
                Ok(None)
            })?;

        let mut branches = Branches::default();
        while let Some(found) = me.switch(&walker, ())? {
            match found {
                Found::Entry { name, depth, size } => {
                    let size = Human(size).to_string();
                    let branch = branches.to(depth);
                    writeln!(out, "{size:>10}  {branch}{}", printable(&name))?;
                }
                Found::Unreadable { path, error } => {
                    // Who does not listen misses this alone.
                    let path = printable(path.as_os_str());
                    let _ = writeln!(io::stderr(), "walk: {path}: {error}");
                }
            }
        }
        Ok(())
    })
}

/// The walk, as it runs in its greenlet.
struct Walk<'a, 'e> {
    me: &'a Child<'e, (), Option<Found>>,
}

impl Walk<'_, '_> {
    /// Sends what is below `path`, then `path` itself, and returns its size: of a directory,
    /// the sum of what is in it.
    fn visit(&self, path: &Path, name: &OsStr, depth: usize) -> Result<u64, Thrown> {
        let size = match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => self.visit_contents(path, depth + 1)?,
            Ok(metadata) => metadata.len(),
            // Deleted since its directory was read, or the like.
            Err(error) => {
                self.send_error(path, error)?;
                return Ok(0);
            }
        };
        let name = name.to_os_string();
        self.send(Found::Entry { name, depth, size })?;
        Ok(size)
    }

    fn visit_contents(&self, directory: &Path, depth: usize) -> Result<u64, Thrown> {
        let mut sum = 0;
        match sorted_names(directory) {
            Ok(names) => {
                for name in names {
                    sum += self.visit(&directory.join(&name), &name, depth)?;
                }
            }
            Err(error) => self.send_error(directory, error)?,
        }
        Ok(sum)
    }

    fn send_error(&self, path: &Path, error: io::Error) -> Result<(), Thrown> {
        let path = path.to_path_buf();
        self.send(Found::Unreadable { path, error })
    }

    /// Hands `found` to the main greenlet, and returns when that wants more.
    fn send(&self, found: Found) -> Result<(), Thrown> {
        self.me.switch_to_parent(Some(found))
    }
}

fn sorted_names(directory: &Path) -> io::Result<Vec<OsString>> {
    let mut names = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Draws the lines of the tree. They go down from an entry to its directory, so of each depth
/// it must know whether a line comes from above.
#[derive(Default)]
struct Branches {
    open: Vec<bool>,
}

impl Branches {
    /// What leads to the name of the next entry, which is at `depth`.
    fn to(&mut self, depth: usize) -> String {
        self.open.resize(self.open.len().max(depth + 1), false);
        let has_contents = self.open.drain(depth + 1..).any(|open| open);
        let from_above = self.open[depth];
        self.open[depth] = true;
        if depth == 0 {
            return String::new();
        }
        let mut branch: String = self.open[1..depth]
            .iter()
            .map(|&open| if open { "│ " } else { "  " })
            .collect();
        branch.push(if from_above { '├' } else { '┌' });
        branch.push_str(if has_contents { "─┴ " } else { "── " });
        branch
    }
}

/// A number of bytes for people to read.
struct Human(u64);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut size = self.0 as f64 / 1024.0;
        let mut unit = 0;
        // What would be printed as 1024.0 is one of the next unit.
        while size >= 1023.95 {
            size /= 1024.0;
            unit += 1;
        }
        write!(f, "{size:.1} {}", UNITS[unit])
    }
}

/// A name in one line that does nothing to a terminal, whatever bytes it consists of.
fn printable(name: &OsStr) -> String {
    name.to_string_lossy().replace(char::is_control, "\u{fffd}")
}
