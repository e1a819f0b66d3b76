//! Where is everyone? What a suspended greenlet, or every greenlet of a thread, is doing
//! (rules s24, s25).

use core::{
    fmt::{self, Write as _},
    mem, ptr,
};
use std::{backtrace::Backtrace, collections::HashMap, sync::Arc};

use crate::{
    Greenlet, host,
    stack::StackLimits,
    thread,
    tree::{self, Block, State, Status},
    unwind,
};

/// A greenlet's stack is looked at only if so many bytes of it are left for that. Capturing a
/// backtrace takes 5.1 KiB in release builds and 6.3 in debug builds (x86_64, Rust 1.95); the rest
/// is for the program's allocator, which runs there.
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
    /// What it was doing.
    pub status: Status,
    /// How much of its stack it uses, where [`Greenlet::stack_usage`] can say that.
    pub stack: Option<StackUsage>,
    /// Where it is, from its innermost frame on through its parents. Greenlets that wait at the
    /// same place share one.
    pub backtrace: Option<Arc<Backtrace>>,
}

/// What every live greenlet of this thread was doing, oldest first. Prints itself as a tree.
///
/// ```
/// use greenlet::{Builder, Snapshot, Status, enter};
///
/// enter(|me| {
///     let main = me.handle();
///     let waiting = Builder::new().name("waiting").build(me, move |me, ()| {
///         me.switch(&main, ())
///     })?;
///     me.switch(&waiting, ()).unwrap();
///     let snapshot = Snapshot::take();
///     assert_eq!(snapshot.greenlets()[1].status, Status::Suspended);
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
    /// microseconds a greenlet. Symbols are looked up when it is printed, once for all that wait
    /// at the same place.
    #[must_use]
    pub fn take() -> Self {
        // First who there is: looking allocates, and whoever allocates may do anything.
        let mut blocks: Vec<ptr::NonNull<Block>> = Vec::new();
        thread::for_each_greenlet(|block| blocks.push(block.into()));
        let mut places = Places::default();
        // SAFETY: they lived a moment ago, and nothing has run since that could have ended one.
        let mut greenlets: Vec<_> = blocks
            .iter()
            .map(|block| info(unsafe { block.as_ref() }, &mut places))
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
/// its own stack, and where they are. Those of this crate and of std are left out.
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
        let mut frames = Frames {
            all: f.alternate(),
            lines: HashMap::new(),
        };
        // A loop over a stack of places: a chain of parents may be long.
        let mut to_print: Vec<(usize, usize)> = children_of(None).map(|root| (root, 0)).collect();
        while let Some((place, depth)) = to_print.pop() {
            print(f, &self.greenlets[place], depth, &mut frames)?;
            to_print.extend(children_of(Some(place)).map(|child| (child, depth + 1)));
        }
        Ok(())
    }
}

fn print(
    f: &mut fmt::Formatter<'_>,
    greenlet: &GreenletInfo,
    depth: usize,
    frames: &mut Frames,
) -> fmt::Result {
    let indent = 2 * depth;
    write!(f, "{:indent$}#{}", "", greenlet.id)?;
    match (&greenlet.name, greenlet.parent) {
        (Some(name), _) => write!(f, " {name:?}")?,
        (None, None) => f.write_str(" main")?,
        (None, Some(_)) => {}
    }
    write!(f, " {}", greenlet.status)?;
    if let Some(StackUsage { size, in_use, peak }) = greenlet.stack {
        write!(f, ", {in_use} bytes of {size} in use, {peak} at most")?;
    }
    writeln!(f)?;
    if let Some(backtrace) = &greenlet.backtrace {
        for frame in frames.of(backtrace) {
            writeln!(f, "{:indent$}    {frame}", "")?;
        }
    }
    Ok(())
}

/// The lines that say where greenlets are, made once for those that share a backtrace.
struct Frames {
    all: bool,
    lines: HashMap<*const Backtrace, Vec<String>>,
}

impl Frames {
    fn of(&mut self, backtrace: &Arc<Backtrace>) -> &[String] {
        self.lines
            .entry(Arc::as_ptr(backtrace))
            .or_insert_with(|| OwnFrames::of(backtrace, self.all))
    }
}

/// Collects, of the text of a backtrace, the names of the frames that belong neither to this
/// crate nor to std, down to the bottom of the greenlet's own stack; of all of them, also where they
/// are. The frames of a `Backtrace` cannot be had but as text, and each takes its time to be
/// written: after the last that is wanted this is an error.
struct OwnFrames {
    all: bool,
    frames: Vec<String>,
    /// Does the last line that was complete begin the last frame?
    is_at_frame: bool,
    /// The beginning of a line.
    line: String,
}

impl OwnFrames {
    fn of(backtrace: &Backtrace, all: bool) -> Vec<String> {
        let mut own = Self {
            all,
            frames: Vec::new(),
            is_at_frame: false,
            line: String::new(),
        };
        // It fails after the last frame that is wanted, and for no other reason.
        let _ = write!(own, "{backtrace}");
        own.frames
    }

    fn end_of_line(&mut self) -> fmt::Result {
        const INTERNAL: [&str; 5] = ["greenlet::", "std::", "core::", "alloc::", "__rust_try"];
        let line = self.line.trim();
        let follows_frame = mem::replace(&mut self.is_at_frame, false);
        let name = match line.split_once(": ") {
            Some((number, name)) if number.parse::<u32>().is_ok() => name,
            _ => {
                if let (true, true, Some(frame)) = (self.all, follows_frame, self.frames.last_mut())
                {
                    frame.push(' ');
                    frame.push_str(line);
                }
                return Ok(());
            }
        };
        if name.starts_with("greenlet::tree::body::start") {
            return Err(fmt::Error);
        }
        let path = name
            .trim_start_matches(['<', '&'])
            .trim_start_matches("mut ")
            .trim_start_matches("dyn ");
        if INTERNAL.iter().any(|prefix| path.starts_with(prefix)) {
            return Ok(());
        }
        self.frames.push(name.to_owned());
        self.is_at_frame = true;
        if !self.all && self.frames.len() == FRAMES_SHOWN {
            return Err(fmt::Error);
        }
        Ok(())
    }
}

impl fmt::Write for OwnFrames {
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

/// Backtraces by the addresses of their frames, so that of many greenlets that wait at the same
/// place only one is captured, and its names are looked up once.
#[derive(Default)]
struct Places {
    addresses: Vec<usize>,
    known: HashMap<Box<[usize]>, Arc<Backtrace>>,
}

impl Places {
    fn of(&mut self, block: &Block) -> Option<Arc<Backtrace>> {
        let Self { addresses, known } = self;
        addresses.clear();
        look(block, || {
            unwind::for_each_frame(|address| addresses.push(address));
        })?;
        if let Some(backtrace) = known.get(addresses.as_slice()) {
            return Some(Arc::clone(backtrace));
        }
        let backtrace = Arc::new(look(block, Backtrace::force_capture)?);
        known.insert(addresses.as_slice().into(), Arc::clone(&backtrace));
        Some(backtrace)
    }
}

impl<I, L> Greenlet<I, L> {
    /// Where the greenlet is: its frames from the innermost on, through the frames in which
    /// its parents wait, to the thread's main. `None` if it is new or dead, has too little stack
    /// left to be looked at, or if an allocator asks that is called for another backtrace.
    #[must_use]
    pub fn backtrace(&self) -> Option<Backtrace> {
        look(self.block(), Backtrace::force_capture)
    }

    /// How much of its stack it uses; `None` if it has not started, is dead, runs on a stack that
    /// was there before it, or is away from its own: in a handler on the thread's signal stack, or
    /// on a stack that another library began.
    #[must_use]
    pub fn stack_usage(&self) -> Option<StackUsage> {
        stack_usage(self.block())
    }
}

fn info(block: &Block, places: &mut Places) -> GreenletInfo {
    GreenletInfo {
        id: block.id(),
        name: block.settings().name.as_deref().map(str::to_owned),
        parent: block.parent().map(Block::id),
        status: block.status(),
        stack: stack_usage(block),
        backtrace: places.of(block),
    }
}

/// Calls `capture` on the stack of a greenlet that has one and some room on it.
fn look<R>(block: &Block, capture: impl FnOnce() -> R) -> Option<R> {
    if matches!(block.state(), State::New | State::Dead) {
        return None;
    }
    let in_use = stack_in_use(bottom_of_stack(block));
    if in_use.is_some_and(|(limits, in_use)| limits.size() - in_use < ROOM_TO_LOOK) {
        return None;
    }
    if thread::replace_inspects(true) {
        // The allocator asks, on the stack that is being inspected.
        return None;
    }
    let (mut capture, mut seen) = (Some(capture), None);
    tree::run_on_stack_of(block, &mut || {
        host::contain(|| seen = capture.take().map(|capture| capture()));
    });
    thread::replace_inspects(false);
    seen
}

/// Who began the stack that `block` is on: of a root, the greenlet in which it was entered.
fn bottom_of_stack(block: &Block) -> &Block {
    let mut bottom = block;
    while let Some(outer) = bottom.killer().filter(|_| bottom.is_root()) {
        bottom = outer;
    }
    bottom
}

fn stack_usage(block: &Block) -> Option<StackUsage> {
    let (limits, in_use) = stack_in_use(block)?;
    Some(StackUsage {
        size: limits.size(),
        in_use,
        peak: limits.peak().max(in_use),
    })
}

/// Where its stack lies, and how many bytes of it are in use.
fn stack_in_use(block: &Block) -> Option<(StackLimits, usize)> {
    // What the innermost root on its stack has saved is where the stack ends now.
    let top_block = tree::top_of_stack(block);
    let limits = block.stack_limits()?;
    let (bottom, top) = (limits.bottom(), limits.top());
    let lowest = if ptr::eq(thread::current(), top_block) {
        // It is the current stack: this frame is about where it ends.
        ptr::from_ref(&top_block).addr()
    } else {
        // SAFETY: started, not current, not dead (it has a stack): suspended.
        unsafe { top_block.context().stack_pointer() }
    };
    if !(bottom.addr()..=top.addr()).contains(&lowest) {
        // Another stack was begun on this one, and where this one ends meanwhile is not known.
        return None;
    }
    Some((limits, top.addr() - lowest))
}
