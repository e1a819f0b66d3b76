//! Generators, as in the demonstration that comes with Python's greenlet:
//!
//! ```text
//! cargo run --example generators
//! ```
//!
//! A generator is an iterator whose items come from an ordinary function, which runs in a
//! greenlet and yields from wherever it is: from inside its recursion, or while it consumes
//! another generator. One that is dropped before its end is being killed where it stands.

use std::{
    cell::Cell,
    io::{self, Write},
    process::ExitCode,
    rc::Rc,
};

use greenlet::{Child, Current, Greenlet, Thrown, enter};

fn main() -> ExitCode {
    let done = enter(|me| {
        tree_in_order(me)?;
        permutations_of(me, "abc", usize::MAX)?;
        permutations_of(me, "greenlet", 3)?;
        first_difference(me)?;
        primes_up_to(me, 30)
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the output has seen enough.
        Err(thrown) if is_broken_pipe(&thrown) => ExitCode::SUCCESS,
        Err(thrown) => {
            eprintln!("generators: {thrown}");
            ExitCode::FAILURE
        }
    }
}

/// Does nobody read the output any more?
fn is_broken_pipe(thrown: &Thrown) -> bool {
    thrown
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

// ---- what makes a generator of a greenlet

/// An iterator over what a function yields. What that fails with is its last item.
///
/// All greenlets here receive `()`, so that generators of different types can consume each
/// other; the items lie in a slot of their own.
struct Generator<'a, 'e, T> {
    consumer: &'a Current<'e, ()>,
    greenlet: Greenlet<'e, ()>,
    slot: Slot<T>,
}

type Slot<T> = Rc<Cell<Option<T>>>;

/// What a generator's function is lent, to yield with.
struct Yielder<'a, 'e, T> {
    me: &'a Child<'e, (), ()>,
    slot: &'a Slot<T>,
}

impl<T> Yielder<'_, '_, T> {
    /// Hands `item` to the consumer, and returns when that wants another.
    fn send(&self, item: T) -> Result<(), Thrown> {
        self.slot.set(Some(item));
        self.me.switch_to_parent(())
    }
}

impl<'a, 'e, T: 'e> Generator<'a, 'e, T> {
    /// A generator that the running greenlet will consume.
    fn new(
        consumer: &'a Current<'e, ()>,
        function: impl FnOnce(&Yielder<'_, 'e, T>) -> Result<(), Thrown> + 'e,
    ) -> Self {
        let slot = Slot::default();
        let greenlet = Greenlet::new(consumer, {
            let slot = Rc::clone(&slot);
            move |me, ()| function(&Yielder { me, slot: &slot })
        });
        Self {
            consumer,
            greenlet,
            slot,
        }
    }
}

impl<T> Iterator for Generator<'_, '_, T> {
    type Item = Result<T, Thrown>;

    fn next(&mut self) -> Option<Self::Item> {
        // What is sent to a dead greenlet goes to its parent: here it comes back at once.
        match self.consumer.switch(&self.greenlet, ()) {
            Ok(()) => self.slot.take().map(Ok),
            Err(thrown) => Some(Err(thrown)),
        }
    }
}

/// A suspended generator owns a handle to its consumer. If that is a generator which owns this
/// one, then dropping handles ends neither: they keep each other. So say it.
impl<T> Drop for Generator<'_, '_, T> {
    fn drop(&mut self) {
        let ended = self.consumer.kill(&self.greenlet);
        debug_assert_eq!(ended, Ok(()), "it is suspended");
    }
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
    /// Yields the leaves from left to right: the recursion that anybody would write.
    fn leaves(&self, yielder: &Yielder<char>) -> Result<(), Thrown> {
        match self {
            Self::Leaf(name) => yielder.send(*name),
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
    let leaves: String =
        Generator::new(me, move |yielder| tree.leaves(yielder)).collect::<Result<_, _>>()?;
    writeln!(io::stdout(), "leaves: {leaves}")?;
    Ok(())
}

// ---- generators that consume generators: permutations

/// Yields each order of `letters`: each letter in turn, and behind it each order of the others,
/// from a generator of its own. So there are as many generators in each other as letters.
fn permute(yielder: &Yielder<String>, letters: &str) -> Result<(), Thrown> {
    if letters.is_empty() {
        return yielder.send(String::new());
    }
    for (at, first) in letters.char_indices() {
        let others = [&letters[..at], &letters[at + first.len_utf8()..]].concat();
        for order in Generator::new(yielder.me, move |inner| permute(inner, &others)) {
            yielder.send(format!("{first}{}", order?))?;
        }
    }
    Ok(())
}

/// Prints the first `count` orders. If there are more, the generators in each other are then
/// killed, the outermost first.
fn permutations_of(me: &Current<()>, letters: &'static str, count: usize) -> Result<(), Thrown> {
    let orders: Vec<String> = Generator::new(me, move |yielder| permute(yielder, letters))
        .take(count)
        .collect::<Result<_, _>>()?;
    writeln!(io::stdout(), "orders of {letters}: {}", orders.join(" "))?;
    Ok(())
}

// ---- zipped, and abandoned

/// Says when it goes, if anybody listens.
struct Farewell(&'static str);

impl Drop for Farewell {
    fn drop(&mut self) {
        let _ = writeln!(io::stdout(), "  {} drops what it holds", self.0);
    }
}

fn leaves_of<'a, 'e>(
    me: &'a Current<'e, ()>,
    name: &'static str,
    tree: Box<Tree>,
) -> Generator<'a, 'e, char> {
    Generator::new(me, move |yielder| {
        let _farewell = Farewell(name);
        let outcome = tree.leaves(yielder);
        if let Err(thrown) = &outcome {
            writeln!(io::stdout(), "  {name}: {thrown}")?;
        }
        outcome
    })
}

/// Do two trees of different shape have the same leaves? Each is walked only as far as that
/// takes, and both walks are in the middle of their recursion all the time.
fn first_difference(me: &Current<()>) -> Result<(), Thrown> {
    let left = node(leaf('a'), node(leaf('b'), node(leaf('c'), leaf('d'))));
    let right = node(node(node(leaf('a'), leaf('b')), leaf('x')), leaf('d'));
    writeln!(io::stdout(), "zipped:")?;
    let pairs = leaves_of(me, "left", left).zip(leaves_of(me, "right", right));
    for (left, right) in pairs {
        let (left, right) = (left?, right?);
        writeln!(io::stdout(), "  {left} {right}")?;
        if left != right {
            break;
        }
    }
    Ok(())
}

// ---- recursion without end: a sieve

fn numbers_from(first: u32) -> impl FnOnce(&Yielder<u32>) -> Result<(), Thrown> {
    move |yielder| (first..).try_for_each(|number| yielder.send(number))
}

/// Yields the first number, which is prime, and those of a sieve of what it does not divide. So
/// the recursion goes one deeper at each prime, and never returns.
fn sieve(
    yielder: &Yielder<u32>,
    numbers: &mut dyn Iterator<Item = Result<u32, Thrown>>,
) -> Result<(), Thrown> {
    let Some(prime) = numbers.next().transpose()? else {
        return Ok(());
    };
    yielder.send(prime)?;
    let mut rest = numbers.filter(|number| !matches!(number, Ok(number) if number % prime == 0));
    sieve(yielder, &mut rest)
}

fn primes_up_to(me: &Current<()>, last: u32) -> Result<(), Thrown> {
    let primes = Generator::new(me, |yielder| {
        sieve(yielder, &mut Generator::new(yielder.me, numbers_from(2)))
    });
    let mut out = io::stdout();
    write!(out, "primes:")?;
    for prime in primes {
        match prime? {
            prime if prime > last => break,
            prime => write!(out, " {prime}")?,
        }
    }
    writeln!(out)?;
    Ok(())
}
