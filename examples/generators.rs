//! Generators, as in the demonstration that comes with Python's greenlet:
//!
//! ```text
//! cargo run --example generators
//! ```
//!
//! A [`Generator`] is an iterator whose items come from an ordinary function, which runs in a greenlet and
//! yields at any point: inside its recursion, or while it consumes another generator. A generator that is
//! dropped before its end is killed there.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use greenlet::{Current, Generator, Root, Thrown, Yielder, enter};
use lexopt::{Arg, Parser};

const USAGE: &str = "\
Usage: generators

Prints what five programs of generators yield.
";

fn main() -> ExitCode {
    match Parser::from_env().next() {
        Ok(None) => {}
        Ok(Some(Arg::Short('h') | Arg::Long("help"))) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Ok(Some(other)) => return misuse(&other.unexpected()),
        Err(error) => return misuse(&error),
    }
    let done = enter(|me: &Root<()>| {
        tree_in_order(me)?;
        permutations_of(me, "abc", usize::MAX)?;
        permutations_of(me, "greenlet", 3)?;
        first_difference(me)?;
        primes_up_to(me, 30)
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the output has closed it.
        Err(thrown) if is_broken_pipe(&thrown) => ExitCode::SUCCESS,
        Err(thrown) => {
            eprintln!("generators: {thrown}");
            ExitCode::FAILURE
        }
    }
}

fn misuse(error: &lexopt::Error) -> ExitCode {
    eprint!("generators: {error}\n\n{USAGE}");
    ExitCode::from(2)
}

/// Returns `true` if the output was closed by its reader.
fn is_broken_pipe(thrown: &Thrown) -> bool {
    thrown
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

// ---- recursion: a tree

enum Tree {
    Leaf(char),
    Node(Box<Tree>, Box<Tree>),
}

fn leaf(name: char) -> Box<Tree> {
    Box::new(Tree::Leaf(name))
}

fn node(left: Box<Tree>, right: Box<Tree>) -> Box<Tree> {
    Box::new(Tree::Node(left, right))
}

impl Tree {
    /// Yields the leaves from left to right, by plain recursion.
    fn leaves(&self, yielder: &Yielder<char>) -> Result<(), Thrown> {
        match self {
            Self::Leaf(name) => yielder.give(*name),
            Self::Node(left, right) => {
                left.leaves(yielder)?;
                right.leaves(yielder)
            }
        }
    }
}

fn tree_in_order(me: &Current<()>) -> Result<(), Thrown> {
    let tree = node(
        node(leaf('a'), node(leaf('b'), leaf('c'))),
        node(leaf('d'), leaf('e')),
    );
    let leaves: String = Generator::new(me, move |yielder, ()| tree.leaves(yielder)).collect();
    writeln!(io::stdout(), "leaves: {leaves}")?;
    Ok(())
}

// ---- generators that consume generators: permutations

/// Yields each order of `letters`: each letter, followed by each order of the others, which a generator of its
/// own yields. So as many generators as letters are nested.
fn permute(yielder: &Yielder<String>, letters: &str) -> Result<(), Thrown> {
    if letters.is_empty() {
        return yielder.give(String::new());
    }
    for (at, first) in letters.char_indices() {
        let others = [&letters[..at], &letters[at + first.len_utf8()..]].concat();
        for order in Generator::new(yielder, move |inner, ()| permute(inner, &others)) {
            yielder.give(format!("{first}{order}"))?;
        }
    }
    Ok(())
}

/// Prints the first `count` orders. If there are more, the nested generators are then killed, the outermost
/// first.
fn permutations_of(me: &Current<()>, letters: &'static str, count: usize) -> Result<(), Thrown> {
    let orders = Generator::new(me, move |yielder, ()| permute(yielder, letters));
    let orders: Vec<String> = orders.take(count).collect();
    writeln!(io::stdout(), "orders of {letters}: {}", orders.join(" "))?;
    Ok(())
}

// ---- zipped, and abandoned

/// Prints a line when it is dropped.
struct Farewell(&'static str);

impl Drop for Farewell {
    fn drop(&mut self) {
        let _ = writeln!(io::stdout(), "  {} drops what it holds", self.0);
    }
}

fn leaves_of<'e>(me: &Current<'e, ()>, name: &'static str, tree: Box<Tree>) -> Generator<'e, char> {
    Generator::new(me, move |yielder, ()| {
        let _farewell = Farewell(name);
        let outcome = tree.leaves(yielder);
        if let Err(thrown) = &outcome {
            writeln!(io::stdout(), "  {name}: {thrown}")?;
        }
        outcome
    })
}

/// Returns `true` if two trees of different shape have the same leaves. Each is walked only as far as
/// necessary, and both walks stay in the middle of their recursion.
fn first_difference(me: &Current<()>) -> Result<(), Thrown> {
    let left = node(leaf('a'), node(leaf('b'), node(leaf('c'), leaf('d'))));
    let right = node(node(node(leaf('a'), leaf('b')), leaf('x')), leaf('d'));
    writeln!(io::stdout(), "zipped:")?;
    let pairs = leaves_of(me, "left", left).zip(leaves_of(me, "right", right));
    for (left, right) in pairs {
        writeln!(io::stdout(), "  {left} {right}")?;
        if left != right {
            break;
        }
    }
    Ok(())
}

// ---- recursion without end: a sieve

/// Yields the first number, which is prime, and then those of a sieve of the numbers that it does not divide.
/// So the recursion gets deeper at each prime, and never returns.
fn sieve(yielder: &Yielder<u32>, numbers: &mut dyn Iterator<Item = u32>) -> Result<(), Thrown> {
    let Some(prime) = numbers.next() else {
        return Ok(());
    };
    yielder.give(prime)?;
    sieve(yielder, &mut numbers.filter(|number| number % prime != 0))
}

fn primes_up_to(me: &Current<()>, last: u32) -> Result<(), Thrown> {
    let primes = Generator::new(me, |yielder, ()| sieve(yielder, &mut (2..)));
    let mut out = io::stdout();
    write!(out, "primes:")?;
    for prime in primes.take_while(|&prime| prime <= last) {
        write!(out, " {prime}")?;
    }
    writeln!(out)?;
    Ok(())
}
