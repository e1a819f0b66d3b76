//! Backtraces and states of suspended greenlets, of one or of all of a thread (rules s24, s25).

use core::{fmt, ptr};
use std::{backtrace::Backtrace, collections::HashMap, sync::Arc};

use crate::{
    Greenlet, WeakGreenlet,
    diagnostics::{frames::Frames, unwind},
    tree::{self, Block, Reach, Status, thread},
};

/// How much of its stack a greenlet uses, bytes; see [`Greenlet::stack_usage`].
///
/// ```
/// use greenlet::{Builder, Root, enter};
///
/// enter(|me: &Root<()>| {
///     let build = Builder::new().stack_size(64 * 1024);
///     let greenlet = build.build(me, |me, ()| me.switch_to_parent(())).unwrap();
///     assert_eq!(greenlet.stack_usage(), None);
///     me.switch(&greenlet, ()).unwrap();
///     let usage = greenlet.stack_usage().unwrap();
///     assert!(usage.in_use <= usage.peak && usage.peak <= usage.size);
///     assert!(usage.size >= 64 * 1024);
/// });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StackUsage {
    /// Bytes of the whole stack, without its guard.
    pub size: usize,
    /// Bytes in use now, below the top.
    pub in_use: usize,
    /// Bytes from the top to the lowest page that is in memory: the most that was ever in use, in whole pages. For
    /// a stack from the pool, earlier greenlets that used it count too, since its memory last went back to the
    /// system. On Windows it is what is in use now.
    pub peak: usize,
}

/// The state of one greenlet in a [`Snapshot`].
///
/// ```
/// use greenlet::{Builder, Root, Snapshot, Status, enter};
///
/// enter(|me: &Root<()>| {
///     let build = Builder::new().name("waits");
///     let greenlet = build.build(me, |me, ()| me.switch_to_parent(())).unwrap();
///     me.switch(&greenlet, ()).unwrap();
///     let snapshot = Snapshot::take();
///     let [main, waits] = snapshot.greenlets() else { unreachable!() };
///     assert_eq!((main.status, main.parent), (Status::Running, None));
///     assert_eq!((waits.status, waits.parent), (Status::Suspended, Some(main.id)));
///     assert_eq!(waits.name.as_deref(), Some("waits"));
/// });
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct GreenletInfo {
    /// Its number. No other greenlet of the thread has the same; later ones have larger numbers.
    pub id: u64,
    /// The name that a [`Builder`](crate::Builder) gave it.
    pub name: Option<String>,
    /// The number of its parent; `None` for a root.
    pub parent: Option<u64>,
    /// Its state.
    pub status: Status,
    /// How much of its stack it uses, if [`Greenlet::stack_usage`] knows.
    pub stack: Option<StackUsage>,
    /// Its frames, from the innermost to the bottom of its stack. Greenlets that wait at the same place share one
    /// backtrace. [`Greenlet::backtrace`] continues through the parents.
    pub backtrace: Option<Arc<Backtrace>>,
}

/// The state of every live greenlet of this thread, oldest first. `Display` prints it as a tree.
///
/// ```
/// use greenlet::{Builder, Snapshot, Status, enter};
///
/// enter(|me| {
///     let waiting = Builder::new().name("waiting").build(me, |me, ()| {
///         me.switch_to_parent(())
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
    /// Inspects every greenlet of this thread. Time and memory are proportional to the number of greenlets and of
    /// their frames: about ten microseconds for each greenlet. Symbols are looked up when the snapshot is printed,
    /// once for all greenlets that wait at the same place.
    ///
    /// If the allocator calls this while another snapshot or backtrace is made, the result is empty. If it enters,
    /// kills or sets a parent meanwhile, the process aborts.
    #[must_use]
    pub fn take() -> Self {
        if thread::inspects() {
            return Self {
                greenlets: Vec::new(),
            };
        }
        let all = all_greenlets();
        let mut places = Places::default();
        let infos = all
            .iter()
            .map(|greenlet| info(greenlet.block(), &mut places));
        let mut greenlets: Vec<_> = infos.collect();
        greenlets.sort_by_key(|greenlet| greenlet.id);
        Self { greenlets }
    }

    /// Returns the greenlets, oldest first.
    #[must_use]
    pub fn greenlets(&self) -> &[GreenletInfo] {
        &self.greenlets
    }

    /// Returns the index of the greenlet with this number.
    fn find(&self, id: u64) -> Option<usize> {
        self.greenlets
            .binary_search_by_key(&id, |greenlet| greenlet.id)
            .ok()
    }
}

/// Prints a tree. Each greenlet has the functions in which it waits: the innermost few; or with `{:#}` all on its
/// own stack, with file and line. Functions of this crate and of std are left out.
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
        let mut frames = Frames::new(f.alternate());
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

/// Returns weak handles of all greenlets of the thread. They keep the blocks, whatever the allocator does while they
/// are inspected.
fn all_greenlets() -> Vec<WeakGreenlet<'static, ()>> {
    let mut all = Vec::new();
    // Nothing may be allocated while the list is walked: the allocator could change it.
    loop {
        let mut count = 0;
        thread::for_each_greenlet(|_| count += 1);
        if count <= all.capacity() {
            break;
        }
        all.reserve_exact(count);
    }
    thread::for_each_greenlet(|block| all.push(WeakGreenlet::of(block)));
    all
}

/// Backtraces by the addresses of their frames. Greenlets that wait at the same place share one, so it is captured
/// once, and its names are looked up once.
#[derive(Default)]
struct Places {
    addresses: Vec<usize>,
    known: HashMap<Box<[usize]>, Arc<Backtrace>>,
    /// By the innermost root on the stack: all greenlets on one stack are at the same place.
    stacks: HashMap<*const Block, Option<Arc<Backtrace>>>,
}

impl Places {
    fn of(&mut self, block: &Block) -> Option<Arc<Backtrace>> {
        if !block.is_active() {
            return None;
        }
        let stack = ptr::from_ref(tree::top_of_stack(block));
        if let Some(backtrace) = self.stacks.get(&stack) {
            return backtrace.clone();
        }
        let backtrace = self.capture(block);
        self.stacks.insert(stack, backtrace.clone());
        backtrace
    }

    fn capture(&mut self, block: &Block) -> Option<Arc<Backtrace>> {
        let Self {
            addresses, known, ..
        } = self;
        addresses.clear();
        tree::inspect(block, Reach::OwnStack, || {
            unwind::for_each_frame(|address| addresses.push(address));
        })?;
        if let Some(backtrace) = known.get(addresses.as_slice()) {
            return Some(Arc::clone(backtrace));
        }
        let backtrace = tree::inspect(block, Reach::OwnStack, Backtrace::force_capture)?;
        let backtrace = Arc::new(backtrace);
        known.insert(addresses.as_slice().into(), Arc::clone(&backtrace));
        Some(backtrace)
    }
}

impl<I> Greenlet<'_, I> {
    /// Returns the greenlet's frames, from the innermost on, and then those of its parents up to the main
    /// greenlet.
    ///
    /// Returns `None` if the greenlet is new or dead, if there is no memory for a stack to inspect it from, or if the
    /// allocator asks while another backtrace is made.
    #[must_use]
    pub fn backtrace(&self) -> Option<Backtrace> {
        tree::inspect(self.block(), Reach::Parents, Backtrace::force_capture)
    }

    /// Returns how much of its stack the greenlet uses.
    ///
    /// Returns `None` if the greenlet is new, dead or a root, or if it runs on another stack: in a handler on the
    /// thread's signal stack, or on a stack of another library.
    #[must_use]
    pub fn stack_usage(&self) -> Option<StackUsage> {
        stack_usage(self.block())
    }
}

fn info(block: &Block, places: &mut Places) -> GreenletInfo {
    GreenletInfo {
        id: block.id,
        name: block.settings.name.as_deref().map(str::to_owned),
        parent: block.parent().map(|parent| parent.id),
        status: block.status(),
        stack: stack_usage(block),
        backtrace: places.of(block),
    }
}

fn stack_usage(block: &Block) -> Option<StackUsage> {
    // What the innermost root on its stack has saved is where the stack ends now.
    let top_block = tree::top_of_stack(block);
    let limits = block.stack_limits()?;
    let (bottom, top) = (limits.bottom(), limits.top());
    let lowest = if ptr::eq(thread::current(), top_block) {
        // It is the current stack: this frame is about where it ends.
        ptr::from_ref(&top_block).addr()
    } else {
        // SAFETY: started, not current, not dead (it has a stack): suspended.
        unsafe { top_block.context.stack_pointer() }
    };
    if !(bottom.addr()..=top.addr()).contains(&lowest) {
        // Another stack was begun on this one, and where this one ends meanwhile is not known.
        return None;
    }
    let in_use = top.addr() - lowest;
    Some(StackUsage {
        size: limits.size(),
        in_use,
        peak: limits.peak().max(in_use),
    })
}
