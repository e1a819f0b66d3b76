//! Where is everyone? What a suspended greenlet, or every greenlet of a thread, is doing
//! (rules s24, s25).

use core::{fmt, ptr};
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
    /// Looks at every greenlet of this thread, each on its own stack. Costs some microseconds
    /// a greenlet.
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

    fn print_children(&self, f: &mut fmt::Formatter<'_>, parent: u64, depth: usize) -> fmt::Result {
        // A loop over a stack of numbers: a chain of parents may be long.
        let mut to_print: Vec<(u64, usize)> = Vec::new();
        let push = |of: u64, depth: usize, to_print: &mut Vec<(u64, usize)>| {
            let children = self
                .greenlets
                .iter()
                .rev()
                .filter(|child| child.parent == Some(of));
            to_print.extend(children.map(|child| (child.id, depth)));
        };
        push(parent, depth, &mut to_print);
        while let Some((id, depth)) = to_print.pop() {
            let at = self
                .greenlets
                .binary_search_by_key(&id, |greenlet| greenlet.id);
            print(
                f,
                &self.greenlets[at.expect("a number of one of them")],
                depth,
            )?;
            push(id, depth + 1, &mut to_print);
        }
        Ok(())
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |id| {
            self.greenlets
                .binary_search_by_key(&id, |greenlet| greenlet.id)
                .is_ok()
        };
        for greenlet in &self.greenlets {
            // Roots, and those whose parent is dead, begin a tree.
            if greenlet.parent.is_none_or(|parent| !known(parent)) {
                print(f, greenlet, 0)?;
                self.print_children(f, greenlet.id, 1)?;
            }
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
        for frame in innermost_frames(&backtrace.to_string()) {
            writeln!(f, "{:indent$}    {frame}", "")?;
        }
    }
    Ok(())
}

/// The names of the innermost frames that belong neither to this crate nor to std, down to the
/// bottom of the greenlet's own stack. The frames of a `Backtrace` cannot be had but as text.
fn innermost_frames(backtrace: &str) -> impl Iterator<Item = &str> {
    const INTERNAL: [&str; 5] = ["greenlet::", "std::", "core::", "alloc::", "__rust_try"];
    let names = backtrace.lines().filter_map(|line| {
        let (number, name) = line.trim_start().split_once(": ")?;
        number.parse::<u32>().is_ok().then_some(name)
    });
    names
        .take_while(|name| !name.starts_with("greenlet::tree::body::start"))
        .filter(|name| {
            let name = name
                .trim_start_matches(['<', '&'])
                .trim_start_matches("dyn ");
            !INTERNAL.iter().any(|prefix| name.starts_with(prefix))
        })
        .take(FRAMES_SHOWN)
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
