//! Prints a directory as a tree with sizes. The contents of a directory are printed above it:
//!
//! ```text
//! cargo run --release --example walk -- [--depth LEVELS] [PATH]
//! ```
//!
//! The walk is a recursive function in a greenlet of its own. At any depth of its recursion it sends an entry
//! to the main greenlet by a switch, and continues there when the main greenlet switches back. So the walk
//! keeps its call stack, the printing keeps its loop, and neither needs a list of the whole tree.

#[cfg(unix)]
use std::os::unix::fs::MetadataExt;
use std::{
    cell::RefCell,
    collections::HashSet,
    ffi::{OsStr, OsString},
    fmt,
    fs::{self, Metadata},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use greenlet::{Builder, Child, Thrown, enter};
use lexopt::{Arg, Parser};

const USAGE: &str = "\
Usage: walk [OPTION...] [PATH]

Prints what is at PATH (default: the current directory) as a tree, the contents of a
directory above it. Each line has the size and what it takes on disk; a directory's
are those of all that is in it, and its own place on disk. A file with several names
counts once. Symbolic links are not followed. What cannot be read is reported on
standard error, counts as empty, and makes the exit status 1.

  -d, --depth LEVELS  prints so many levels below PATH, and counts all
  -h, --help          prints this
";

struct Options {
    root: PathBuf,
    /// The number of levels that are printed.
    depth: usize,
}

/// Returns `None` if help was asked for.
fn options() -> Result<Option<Options>, lexopt::Error> {
    let (mut root, mut depth) = (None, usize::MAX);
    let mut arguments = Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Short('d') | Arg::Long("depth") => {
                let levels = arguments.value()?;
                depth = levels
                    .to_str()
                    .and_then(|levels| levels.parse().ok())
                    .ok_or_else(|| format!("--depth takes a number of levels, not {levels:?}"))?;
            }
            Arg::Value(path) if root.is_none() => root = Some(path.into()),
            other => return Err(other.unexpected()),
        }
    }
    let root = root.unwrap_or_else(|| ".".into());
    Ok(Some(Options { root, depth }))
}

/// The walker's message to the main greenlet.
enum Found {
    Entry {
        name: OsString,
        depth: usize,
        size: Size,
    },
    Unreadable {
        path: PathBuf,
        error: io::Error,
    },
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprint!("walk: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = check(&options.root) {
        eprintln!("walk: {}: {error}", options.root.display());
        return ExitCode::FAILURE;
    }
    match print_tree(&options, &mut io::stdout().lock()) {
        Ok(0) => ExitCode::SUCCESS,
        // Each error has been reported.
        Ok(_) => ExitCode::FAILURE,
        // The reader of the output has closed it.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("walk: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Checks that `root` exists and, if it is a directory, can be read.
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

/// Runs the walk in a greenlet and prints what it sends. Returns how many errors it has reported.
///
/// If printing fails, the walker is dropped in the middle of its recursion. That kills it: its
/// `switch` returns an error, and `?` returns it from the recursion.
fn print_tree(options: &Options, out: &mut impl Write) -> Result<u64, Thrown> {
    let root = options.root.as_path();
    enter(|me| {
        let walker = Builder::new()
            .name("walker")
            // As large as a program's own stack, for deep trees. Only the used part takes memory.
            .stack_size(8 * 1024 * 1024)
            .build(me, |me, ()| {
                let seen = RefCell::default();
                Walk { me, seen }.visit(root, root.as_os_str(), 0)?;
                Ok(None)
            })?;

        let mut branches = Branches::default();
        let mut errors = 0;
        while let Some(found) = me.switch(&walker, ())? {
            match found {
                Found::Entry { depth, .. } if depth > options.depth => {}
                Found::Entry { name, depth, size } => {
                    let (bytes, disk) =
                        (Human(size.bytes).to_string(), Human(size.disk).to_string());
                    let (branch, name) = (branches.to(depth), printable(&name));
                    writeln!(out, "{bytes:>10} {disk:>10}  {branch}{name}")?;
                }
                Found::Unreadable { path, error } => {
                    // If standard error is closed, only this message is lost.
                    let path = printable(path.as_os_str());
                    let _ = writeln!(io::stderr(), "walk: {path}: {error}");
                    errors += 1;
                }
            }
        }
        Ok(errors)
    })
}

/// The state of the walk in its greenlet.
struct Walk<'a, 'e> {
    me: &'a Child<'e, (), Option<Found>>,
    /// The files with several names that have been counted.
    seen: RefCell<HashSet<FileId>>,
}

impl Walk<'_, '_> {
    /// Sends the entries below `path`, then `path` itself, and returns its size. That of a directory is the sum of
    /// its contents and its own place on disk.
    fn visit(&self, path: &Path, name: &OsStr, depth: usize) -> Result<Size, Thrown> {
        let size = match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                let contents = self.visit_contents(path, depth + 1)?;
                Size {
                    disk: contents.disk + Size::of(&metadata).disk,
                    ..contents
                }
            }
            Ok(metadata) if self.is_counted(&metadata) => Size::default(),
            Ok(metadata) => Size::of(&metadata),
            // For instance, it was deleted after its directory was read.
            Err(error) => {
                self.send_error(path, error)?;
                return Ok(Size::default());
            }
        };
        let name = name.to_os_string();
        self.send(Found::Entry { name, depth, size })?;
        Ok(size)
    }

    fn visit_contents(&self, directory: &Path, depth: usize) -> Result<Size, Thrown> {
        let mut sum = Size::default();
        match sorted_names(directory) {
            Ok(names) => {
                for name in names {
                    let size = self.visit(&directory.join(&name), &name, depth)?;
                    sum.bytes += size.bytes;
                    sum.disk += size.disk;
                }
            }
            Err(error) => self.send_error(directory, error)?,
        }
        Ok(sum)
    }

    /// Returns `true` if the file was counted under another of its names.
    fn is_counted(&self, metadata: &Metadata) -> bool {
        FileId::of(metadata).is_some_and(|id| !self.seen.borrow_mut().insert(id))
    }

    fn send_error(&self, path: &Path, error: io::Error) -> Result<(), Thrown> {
        let path = path.to_path_buf();
        self.send(Found::Unreadable { path, error })
    }

    /// Sends `found` to the main greenlet, and returns when it asks for the next entry.
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

/// Draws the lines of the tree. They lead down from an entry to its directory, so for each depth it stores
/// whether a line comes from above.
#[derive(Default)]
struct Branches {
    open: Vec<bool>,
}

impl Branches {
    /// Returns the lines in front of the next entry, which is at `depth`.
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

/// The length of a file, and its place on disk, bytes.
#[derive(Clone, Copy, Default)]
struct Size {
    bytes: u64,
    disk: u64,
}

#[cfg(unix)]
impl Size {
    fn of(metadata: &Metadata) -> Self {
        // `blocks` counts units of 512 bytes on every file system.
        let disk = metadata.blocks() * 512;
        Self {
            bytes: metadata.len(),
            disk,
        }
    }
}

#[cfg(not(unix))]
impl Size {
    fn of(metadata: &Metadata) -> Self {
        let bytes = metadata.len();
        Self { bytes, disk: bytes }
    }
}

/// The identity of a file, independent of its name.
#[derive(PartialEq, Eq, Hash)]
struct FileId {
    device: u64,
    number: u64,
}

impl FileId {
    /// Returns the identity of a file with several names.
    #[cfg(unix)]
    fn of(metadata: &Metadata) -> Option<Self> {
        let (device, number) = (metadata.dev(), metadata.ino());
        (metadata.nlink() > 1).then_some(Self { device, number })
    }

    /// The standard library does not give it.
    #[cfg(not(unix))]
    fn of(_metadata: &Metadata) -> Option<Self> {
        None
    }
}

/// Formats a number of bytes for people.
struct Human(u64);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut size = self.0 as f64 / 1024.0;
        let mut unit = 0;
        // A value that would be printed as 1024.0 is 1.0 of the next unit.
        while size >= 1023.95 {
            size /= 1024.0;
            unit += 1;
        }
        write!(f, "{size:.1} {}", UNITS[unit])
    }
}

/// Returns a name of any bytes as one line without control characters.
fn printable(name: &OsStr) -> String {
    name.to_string_lossy().replace(char::is_control, "\u{fffd}")
}
