//! A pool of stacks, which are cut from slabs and kept for reuse.
//!
//! A slab (`slab.rs`) is one mapping with many slots. A slot is a guard and a stack above it. All slots of
//! one shape form a shelf. A stack that is given back stays on its shelf with its pages, so the next context finds
//! them committed and in the cache. When there are more idle stacks with pages than a set number, the
//! pages of the longest unused half go back to the system together: one by one they would cost more than
//! a microsecond a stack.
//!
//! The pool is bounded. Sizes are rounded so that there are few shapes ([`Shape`]). A shelf without a
//! stack in use is unmapped when there are too many shelves or the system refuses memory. The number of
//! idle stacks with pages is bounded over all shelves.

use core::{fmt, mem, ptr::NonNull};

use super::{
    StackError, StackLimits, mapping,
    pages::{round_up_to_page, whole_guard},
    shape::Shape,
    slab::{COLOUR, COLOURS, Slab, Slot},
};

/// With this many shelves, those without a stack in use are unmapped before another is added.
const MOST_IDLE_SHELVES: usize = 32;

/// A pool of guarded stacks of any size, which maps many at a time and keeps them for reuse. It is a plain value
/// without thread-local state, and may move between threads.
///
/// ```
/// use greenlet::raw::Pool;
///
/// let mut pool = Pool::new();
/// let stack = pool.take(256 * 1024, 4096)?;
/// assert!(stack.limits().size() >= 256 * 1024);
/// let top = stack.top();
/// // SAFETY: nothing runs on it.
/// unsafe { pool.give_back(stack) };
/// assert_eq!(pool.take(256 * 1024, 4096)?.top(), top);
/// # Ok::<(), greenlet::StackError>(())
/// ```
///
/// # Costs
/// * A stack is only address space until it is touched. A stack in use takes the pages that it has touched, and
///   page tables. (On Windows the whole stack counts against what the system can commit, and so do up to 31 more
///   that are ready.)
/// * [`take`](Self::take) and [`give_back`](Self::give_back) take a few nanoseconds for an idle stack.
/// * A new stack costs its share of a system call for the mapping, and of one for the guard. Before Linux 6.13 it
///   also costs two mappings (`vm.max_map_count`).
/// * Sizes above 32 KiB are rounded up to one of four steps between two powers of two, so that different sizes can
///   share stacks. The rest is never touched.
///
/// The tops of stacks differ by multiples of 64 bytes, up to 1 KiB, so that they do not compete
/// for the same sets of the first-level cache.
pub struct Pool {
    shelves: Vec<Shelf>,
    /// Bytes above each stack that belong to it.
    above: u32,
    /// How many idle stacks may have pages, and how many have.
    most_warm: usize,
    warm: usize,
}

/// Slots of one shape.
struct Shelf {
    shape: Shape,
    /// Bytes from one slot to the next: guard, stack, what is above, colours.
    stride: usize,
    /// Bytes at the low end of each slot that fault when touched.
    guard: usize,
    slabs: Vec<Slab>,
    /// Slots that have been cut and are not in use. The last `warm` of them may have pages.
    /// There is room for all that there are: a stack that comes back, as part of a drop, needs
    /// no memory.
    idle: Vec<Slot>,
    warm: usize,
    /// Slots that have been handed out and have not come back.
    in_use: usize,
}

/// A stack taken from a [`Pool`]. [Give it back](Pool::give_back) to that pool: a stack that is dropped instead
/// stays mapped for ever.
///
/// ```
/// use greenlet::raw::Pool;
///
/// let mut pool = Pool::new();
/// let (first, second) = (pool.take(16 * 1024, 4096)?, pool.take(16 * 1024, 4096)?);
/// assert!(!first.limits().is_guard(second.top()));
/// assert_eq!(pool.in_use(), 2);
/// for stack in [first, second] {
///     // SAFETY: nothing runs on it.
///     unsafe { pool.give_back(stack) };
/// }
/// # Ok::<(), greenlet::StackError>(())
/// ```
#[must_use = "a stack that is dropped stays mapped for ever: give it back to its pool"]
pub struct PooledStack {
    top: NonNull<u8>,
    shape: Shape,
}

// SAFETY: the memory that they own, or lend, is bound to no thread.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Send for PooledStack {}
// SAFETY: a shared reference gives numbers only.
unsafe impl Sync for Pool {}
// SAFETY: a shared reference gives addresses only.
unsafe impl Sync for PooledStack {}

impl PooledStack {
    /// Returns the address just above the stack, which grows down from there. It is aligned to 64 bytes.
    #[must_use]
    pub fn top(&self) -> *mut u8 {
        self.top.as_ptr()
    }

    /// Returns where it lies.
    #[must_use]
    pub fn limits(&self) -> StackLimits {
        const ROUNDS: &str = "it was rounded when the shelf was made";
        let end = self.top().wrapping_add(self.shape.above());
        let end = end.map_addr(|end| end.next_multiple_of(COLOURS));
        let bottom = end.wrapping_sub(room(self.shape).expect(ROUNDS));
        let guard = bottom.wrapping_sub(whole_guard(self.shape.guard()).expect(ROUNDS));
        StackLimits::new(guard, bottom, self.top())
    }

    #[inline(always)]
    pub(super) fn parts(&self) -> (NonNull<u8>, Shape) {
        (self.top, self.shape)
    }

    #[inline(always)]
    pub(super) fn from_parts(top: NonNull<u8>, shape: Shape) -> Self {
        Self { top, shape }
    }
}

impl fmt::Debug for PooledStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PooledStack").field(&self.limits()).finish()
    }
}

/// Bytes of a slot without its guard.
fn room(shape: Shape) -> Result<usize, StackError> {
    let bytes = shape.usable();
    match bytes.checked_add(shape.above() + COLOURS) {
        Some(room) => round_up_to_page(room),
        None => Err(StackError::TooLarge { bytes }),
    }
}

impl Pool {
    /// Returns a pool that has mapped nothing and keeps up to 256 idle stacks with their pages.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_room_above(0)
    }

    /// Returns a pool like [`new`](Self::new), whose stacks have at least so many bytes of room just above their
    /// [`top`](PooledStack::top) for data of the runtime. The room lies in the page that the stack touches first. It
    /// is writable, and holds what was there when the stack was given back, or zeros.
    ///
    /// # Panics
    /// Panics if `bytes` is a gigabyte or more.
    #[must_use]
    pub const fn with_room_above(bytes: usize) -> Self {
        assert!(bytes < 1 << 30, "more than there should be above a stack");
        Self {
            shelves: Vec::new(),
            above: bytes.next_multiple_of(COLOUR) as u32,
            most_warm: 256,
            warm: 0,
        }
    }

    /// Takes a stack of at least `size` usable bytes above at least `guard` bytes of guard. Of the idle stacks of
    /// this size it takes the one that was given back last; if there is none, it makes a new one. The contents of
    /// the stack are unspecified.
    ///
    /// A frame larger than the guard can step over it, if its code does not probe the stack: rustc
    /// does on x86_64 and aarch64, C compilers with `-fstack-clash-protection`. Where other C runs
    /// on the stack, 64 KiB are better than a page; they cost address space only.
    ///
    /// # Errors
    /// Returns a [`StackError`] if the sizes do not fit the address space, or if the system refuses even after
    /// the pool has unmapped the sizes of which no stack is in use.
    pub fn take(&mut self, size: usize, guard: usize) -> Result<PooledStack, StackError> {
        self.take_shaped(Shape::of(size, guard, self.above)?)
    }

    /// As [`take`](Self::take), of a shape with as many bytes above a stack as this pool has.
    pub(super) fn take_shaped(&mut self, shape: Shape) -> Result<PooledStack, StackError> {
        match self.take_from_shelf(shape) {
            Err(StackError::Map { .. } | StackError::Guard { .. }) if self.release_idle() => {
                self.take_from_shelf(shape)
            }
            result => result,
        }
    }

    fn take_from_shelf(&mut self, shape: Shape) -> Result<PooledStack, StackError> {
        let shelf = match self.position(shape) {
            Some(shelf) => shelf,
            None => self.add_shelf(shape)?,
        };
        let shelf = &mut self.shelves[shelf];
        let slot = match shelf.idle.pop() {
            Some(slot) => {
                if shelf.warm > 0 {
                    shelf.warm -= 1;
                    self.warm -= 1;
                }
                slot
            }
            None => shelf.cut()?,
        };
        shelf.in_use += 1;
        let top = slot.top(shelf.stride, shape.above());
        Ok(PooledStack { top, shape })
    }

    /// Takes a stack back, with its pages. It is the next to be taken of its size. If more idle stacks have pages
    /// than [`keep_warm`](Self::keep_warm) allows, the pool gives pages back to the system: of the size with the most
    /// such stacks, those of the half that was unused longest. This allocates nothing.
    ///
    /// # Safety
    /// The stack came from this pool, and nothing uses its memory any more.
    pub unsafe fn give_back(&mut self, stack: PooledStack) {
        let shelf = self.position(stack.shape).expect("a stack of this pool");
        let shelf = &mut self.shelves[shelf];
        let slot = Slot::below(stack.top, shelf.stride, stack.shape.above());
        debug_assert!(shelf.slabs.iter().any(|slab| slab.contains(slot)));
        shelf.in_use -= 1;
        shelf.idle.push(slot);
        shelf.warm += 1;
        self.warm += 1;
        if self.warm > self.most_warm {
            self.cool_down();
        }
    }

    /// Sets how many idle stacks, over all sizes, keep their pages, and returns the previous number. If there are
    /// more, pages go back to the system at once.
    pub fn keep_warm(&mut self, count: usize) -> usize {
        let before = mem::replace(&mut self.most_warm, count);
        while self.warm > count {
            self.cool_down();
        }
        before
    }

    /// Unmaps all sizes of which no stack is in use, and returns whether there were any. Idle stacks of other sizes
    /// stay mapped.
    pub fn release_idle(&mut self) -> bool {
        let mut any = false;
        let warm = &mut self.warm;
        self.shelves.retain(|shelf| {
            let is_used = shelf.in_use > 0;
            if !is_used {
                any |= !shelf.slabs.is_empty();
                *warm -= shelf.warm;
            }
            is_used
        });
        if self.shelves.is_empty() {
            self.shelves = Vec::new();
        }
        any
    }

    /// Returns how many stacks have been taken and not given back.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.shelves.iter().map(|shelf| shelf.in_use).sum()
    }

    fn position(&self, shape: Shape) -> Option<usize> {
        self.shelves.iter().position(|shelf| shelf.shape == shape)
    }

    #[cold]
    fn add_shelf(&mut self, shape: Shape) -> Result<usize, StackError> {
        let shelf = Shelf::new(shape)?;
        if self.shelves.len() >= MOST_IDLE_SHELVES {
            self.release_idle();
        }
        reserve(&mut self.shelves, 1)?;
        self.shelves.push(shelf);
        Ok(self.shelves.len() - 1)
    }

    #[cold]
    fn cool_down(&mut self) {
        if let Some(warmest) = self.shelves.iter_mut().max_by_key(|shelf| shelf.warm) {
            self.warm -= warmest.cool_down();
        }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let idle: usize = self.shelves.iter().map(|shelf| shelf.idle.len()).sum();
        f.debug_struct("Pool")
            .field("in_use", &self.in_use())
            .field("idle", &idle)
            .field("warm", &self.warm)
            .finish_non_exhaustive()
    }
}

/// Stacks that have not been given back stay mapped for ever, with all stacks of their size.
impl Drop for Pool {
    fn drop(&mut self) {
        self.release_idle();
        for shelf in self.shelves.drain(..) {
            shelf.slabs.into_iter().for_each(mem::forget);
        }
    }
}

impl Shelf {
    fn new(shape: Shape) -> Result<Self, StackError> {
        let bytes = shape.usable();
        let guard = whole_guard(shape.guard())?;
        let stride = room(shape)?.checked_add(guard);
        Ok(Self {
            shape,
            stride: stride.ok_or(StackError::TooLarge { bytes })?,
            guard,
            slabs: Vec::new(),
            idle: Vec::new(),
            warm: 0,
            in_use: 0,
        })
    }

    /// A slot that was never used, with its guard.
    fn cut(&mut self) -> Result<Slot, StackError> {
        if self.slabs.last().is_none_or(Slab::is_used_up) {
            self.add_slab()?;
        }
        let slab = self.slabs.last_mut().expect("just looked at or pushed");
        slab.cut(self.stride, self.guard)
    }

    fn add_slab(&mut self) -> Result<(), StackError> {
        let there: usize = self.slabs.iter().map(|slab| slab.slots).sum();
        reserve(&mut self.slabs, 1)?;
        let slab = Slab::new(self.stride, there)?;
        let in_all = there + slab.slots;
        let more = in_all.saturating_sub(self.idle.len());
        reserve(&mut self.idle, more)?;
        self.slabs.push(slab);
        Ok(())
    }

    /// Gives back the pages of the longest unused half of the warm stacks, and returns how many
    /// those were. Neighbours go together, because each call of the system costs more than a
    /// microsecond.
    fn cool_down(&mut self) -> usize {
        let coldest = self.idle.len() - self.warm;
        let cooled = self.warm.div_ceil(2);
        let slots = &mut self.idle[coldest..coldest + cooled];
        slots.sort_unstable_by_key(|slot| slot.0.addr());
        let neighbours = |low: &Slot, high: &Slot| {
            mapping::GIVES_BACK_OVER_GUARDS
                && high.0.addr().get() - low.0.addr().get() == self.stride
        };
        for run in slots.chunk_by(neighbours) {
            let stack = run[0].0.as_ptr().wrapping_add(self.guard);
            // SAFETY: from the first stack to the end of the last, all idle; the guards between
            // them survive.
            unsafe { mapping::give_back(stack, run.len() * self.stride - self.guard) };
        }
        self.warm -= cooled;
        cooled
    }
}

/// Makes room for `count` more.
fn reserve<T>(list: &mut Vec<T>, count: usize) -> Result<(), StackError> {
    list.try_reserve(count).map_err(|_| StackError::OutOfMemory)
}
