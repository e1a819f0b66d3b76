//! Where is everyone? What a suspended greenlet, or every greenlet of a thread, is doing
//! (rules s24, s25).

use core::{
    fmt::{self, Write as _},
    ptr,
};
use std::backtrace::Backtrace;

use crate::{
    Greenlet, host,
    stack::first_resident_page,
    thread,
    tree::{self, Block, State},
};

/// A greenlet's stack is looked at only if so many bytes of it are left for that.
const ROOM_TO_LOOK: usize = 8 * 1024;

/// How many of the innermost frames a printed snapshot shows of each greenlet.
const FRAMES_SHOWN: usize = 3;

/// How much of its stack a greenlet uses, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StackUsage {
    /// Of the whole stack, without its guard.
    pub size: usize,
    /// In use now, below the top.
    pub in_use: usize,
    /// From the top to the lowest page that is in memory: the most that was ever in use, in
    /// whole pages. A stack from the pool counts from when its memory was last given back, so
    /// it may have been another greenlet that used it.
    pub peak: usize,
}

/// What one greenlet was doing.
#[derive(Debug)]
#[non_exhaustive]
pub struct GreenletInfo {
    /// Its number; no other greenlet of the thread has it, and later ones have larger ones.
    pub id: u64,
    /// The name that a [`Builder`](crate::Builder) gave it.
    pub name: Option<String>,
    /// The number of its parent; a root has none.
    pub parent: Option<u64>,
    /// Its state in the words of greenlet's `repr`: current, suspended or busy, and active;
    /// pending; dead.
    pub state: &'static str,
    /// Its stack, if it has one of its own and has started.
    pub stack: Option<StackUsage>,
    /// Where it is, from its innermost frame on through its parents.
    pub backtrace: Option<Backtrace>,
}

/// What every live greenlet of this thread was doing, oldest first. Prints itself as a tree.
///
/// ```
/// use greenlet::{Builder, Snapshot, enter};
///
/// enter(|me| {
///     let main = me.handle();
///     let waiting = Builder::new().name("waiting").build(me, move |me, ()| {
///         me.switch(&main, ())
///     })?;
///     me.switch(&waiting, ()).unwrap();
///     let snapshot = Snapshot::take();
///     assert_eq!(snapshot.greenlets()[1].state, "suspended active started");
///     println!("{snapshot}");
///     Ok::<(), greenlet::BuildError>(())
/// })
/// # .unwrap();
/// ```
#[derive(Debug)]
pub struct Snapshot {
    greenlets: Vec<GreenletInfo>,
}

impl Snapshot {
    /// Looks at every greenlet of this thread, each on its own stack. Costs some ten
    /// microseconds a greenlet, and to print it the first time some tens: symbols are looked up
    /// then.
    #[must_use]
    pub fn take() -> Self {
        // First who there is: looking allocates, and whoever allocates may do anything.
        let mut blocks: Vec<ptr::NonNull<Block>> = Vec::new();
        thread::for_each_greenlet(|block| blocks.push(block.into()));
        // SAFETY: they lived a moment ago, and nothing has run since that could have ended one.
        let mut greenlets: Vec<_> = blocks
            .iter()
            .map(|block| info(unsafe { block.as_ref() }))
            .collect();
        greenlets.sort_by_key(|greenlet| greenlet.id);
        Self { greenlets }
    }

    /// What was seen, oldest first.
    #[must_use]
    pub fn greenlets(&self) -> &[GreenletInfo] {
        &self.greenlets
    }

    /// The place of this number in the list.
    fn find(&self, id: u64) -> Option<usize> {
        self.greenlets
            .binary_search_by_key(&id, |greenlet| greenlet.id)
            .ok()
    }
}

/// As a tree, each with the functions in which it waits: the innermost few, or with `{:#}` all on
/// its own stack. Those of this crate and of std are left out.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The place of each one's parent; roots, and those whose parent is dead, begin a tree.
        let parents: Vec<Option<usize>> = self
            .greenlets
            .iter()
            .map(|greenlet| self.find(greenlet.parent?))
            .collect();
        let mut by_parent: Vec<usize> = (0..parents.len()).collect();
        by_parent.sort_by_key(|&child| parents[child]);
        let children_of = |parent: Option<usize>| {
            let first = by_parent.partition_point(|&child| parents[child] < parent);
            let end = by_parent.partition_point(|&child| parents[child] <= parent);
            by_parent[first..end].iter().rev().copied()
        };
        // A loop over a stack of places: a chain of parents may be long.
        let mut to_print: Vec<(usize, usize)> = children_of(None).map(|root| (root, 0)).collect();
        while let Some((place, depth)) = to_print.pop() {
            print(f, &self.greenlets[place], depth)?;
            to_print.extend(children_of(Some(place)).map(|child| (child, depth + 1)));
        }
        Ok(())
    }
}

fn print(f: &mut fmt::Formatter<'_>, greenlet: &GreenletInfo, depth: usize) -> fmt::Result {
    let indent = 2 * depth;
    write!(f, "{:indent$}#{}", "", greenlet.id)?;
    match (&greenlet.name, greenlet.parent) {
        (Some(name), _) => write!(f, " {name:?}")?,
        (None, None) => f.write_str(" main")?,
        (None, Some(_)) => {}
    }
    write!(f, " {}", greenlet.state)?;
    if let Some(StackUsage { size, in_use, peak }) = greenlet.stack {
        write!(f, ", {in_use} bytes of {size} in use, {peak} at most")?;
    }
    writeln!(f)?;
    if let Some(backtrace) = &greenlet.backtrace {
        let mut frames = OwnFrames {
            left: if f.alternate() {
                usize::MAX
            } else {
                FRAMES_SHOWN
            },
            is_done: false,
            line: String::new(),
            indent,
            f,
        };
        let outcome = write!(frames, "{backtrace}");
        if !frames.is_done {
            outcome?;
        }
    }
    Ok(())
}

/// Passes on, of the text of a backtrace, the names of the frames that belong neither to this
/// crate nor to std, down to the bottom of the greenlet's own stack. The frames of a `Backtrace`
/// cannot be had but as text, and each takes its time to be written: after the last that is wanted
/// this is an error.
struct OwnFrames<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    indent: usize,
    /// How many more are wanted.
    left: usize,
    is_done: bool,
    /// The beginning of a line.
    line: String,
}

impl fmt::Write for OwnFrames<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive('\n') {
            self.line.push_str(piece);
            if piece.ends_with('\n') {
                self.end_of_line()?;
                self.line.clear();
            }
        }
        Ok(())
    }
}

impl OwnFrames<'_, '_> {
    fn end_of_line(&mut self) -> fmt::Result {
        const INTERNAL: [&str; 5] = ["greenlet::", "std::", "core::", "alloc::", "__rust_try"];
        let Some((number, name)) = self.line.trim().split_once(": ") else {
            return Ok(());
        };
        if number.parse::<u32>().is_err() {
            return Ok(());
        }
        if name.starts_with("greenlet::tree::body::start") {
            return self.stop();
        }
        let path = name
            .trim_start_matches(['<', '&'])
            .trim_start_matches("dyn ");
        if INTERNAL.iter().any(|prefix| path.starts_with(prefix)) {
            return Ok(());
        }
        writeln!(self.f, "{:1$}    {name}", "", self.indent)?;
        self.left -= 1;
        if self.left == 0 { self.stop() } else { Ok(()) }
    }

    fn stop(&mut self) -> fmt::Result {
        self.is_done = true;
        Err(fmt::Error)
    }
}

impl<I, L> Greenlet<I, L> {
    /// Where the greenlet is: its frames from the innermost on, through the frames in which
    /// its parents wait, to the thread's main. `None` if it is new or dead, or has too little
    /// stack left to be looked at.
    #[must_use]
    pub fn backtrace(&self) -> Option<Backtrace> {
        backtrace(self.block())
    }

    /// How much of its stack it uses; `None` if it has not started, is dead, or runs on a
    /// stack that was there before it.
    #[must_use]
    pub fn stack_usage(&self) -> Option<StackUsage> {
        stack_usage(self.block())
    }
}

fn info(block: &Block) -> GreenletInfo {
    GreenletInfo {
        id: block.id(),
        name: block.settings().name.as_deref().map(str::to_owned),
        parent: block.parent().map(Block::id),
        state: block.state_words(),
        stack: stack_usage(block),
        backtrace: backtrace(block),
    }
}

fn backtrace(block: &Block) -> Option<Backtrace> {
    if matches!(block.state(), State::New | State::Dead) {
        return None;
    }
    if stack_usage(block).is_some_and(|usage| usage.size - usage.in_use < ROOM_TO_LOOK) {
        return None;
    }
    let mut seen = None;
    tree::run_on_stack_of(block, &mut || {
        host::contain(|| seen = Some(Backtrace::force_capture()));
    });
    seen
}

fn stack_usage(block: &Block) -> Option<StackUsage> {
    // What the innermost root on its stack has saved is where the stack ends now.
    let top_block = tree::top_of_stack(block);
    let [_, bottom, top] = block.with_stack(|stack| stack.limits())?;
    let lowest = if ptr::eq(thread::current(), top_block) {
        // It is the current stack: this frame is about where it ends.
        ptr::from_ref(&top_block).addr()
    } else {
        // SAFETY: started, not current, not dead (it has a stack): suspended.
        unsafe { top_block.context().stack_pointer() }.address()
    };
    let touched = first_resident_page(bottom, top).addr().min(lowest);
    Some(StackUsage {
        size: top.addr() - bottom.addr(),
        in_use: top.addr() - lowest,
        peak: top.addr() - touched,
    })
}
