//! Stacks for the tree: cut from slabs, a thread's own, and kept for reuse.
//!
//! A slab is one mapping with many slots, each a guard below a stack. Slots of one size form a
//! shelf. A stack that comes back lies on the shelf with its pages, so that the next greenlet
//! finds them committed and in the cache; when more than a set number lie there, the pages of
//! the longest unused half are given back at once (giving them back one by one would cost more
//! than a microsecond a greenlet).

use core::{
    mem::ManuallyDrop,
    num::NonZeroUsize,
    ptr::{self, NonNull},
};
use std::cell::{Cell, RefCell};

use static_assertions::const_assert_eq;

use super::{
    StackError,
    mapping::{self, Mapping, round_up_to_page},
    shared::Shared,
};

/// A slab is at most this large, bytes of address space.
const MAX_SLAB: usize = if usize::BITS >= 64 { 1 << 30 } else { 1 << 23 };

/// The first slab of a shelf has this many slots; each further one as many as there are.
const FIRST_SLOTS: usize = 8;

/// So much address space is left to the rest of the program, bytes: it goes on when a stack is
/// refused, and its allocator must be able to map something, too.
const HEADROOM: usize = if usize::BITS >= 64 { 4 << 20 } else { 1 << 20 };

/// So many guards are installed at a time, ahead of their first use.
const GUARD_BATCH: usize = 32;

/// How many idle stacks of one size a thread keeps with their pages, unless
/// [`set_idle_stacks`] says otherwise.
const DEFAULT_IDLE: usize = 256;

/// Tops of stacks differ by a multiple of this, a cache line …
const COLOUR: usize = 64;
/// … and are so many: tops at the same offset in every page would compete for the same few
/// sets of the first-level cache. What they cost is added to each slot.
const COLOURS: usize = 16;

// Where a page ends, a period of colours does ([`Slot::below`]); no page is smaller than this.
const_assert_eq!(4096 % (COLOUR * COLOURS), 0);

thread_local! {
    static SHELVES: Shelves = const { Shelves(RefCell::new(Vec::new())) };
    static IDLE: Cell<usize> = const { Cell::new(DEFAULT_IDLE) };
    /// The stack that was given back last, if it is not in use again. It lies on no shelf: where
    /// one greenlet ends before the next begins, it goes from one to the other in a few
    /// instructions. Without a destructor, so that it is plain memory; that of [`Shelves`] sees
    /// to it.
    static SPARE: Cell<Option<ManuallyDrop<Lease>>> = const { Cell::new(None) };
}

/// All of a thread's.
struct Shelves(RefCell<Vec<Shared<Shelf>>>);

impl Drop for Shelves {
    fn drop(&mut self) {
        // There will be no spare stack any more.
        IDLE.set(0);
        drop(SPARE.take().map(ManuallyDrop::into_inner));
    }
}

/// Slots of one size. Every stack on loan keeps its shelf, so slabs are unmapped when the
/// thread has ended and no stack is in use; one that is in use for ever (rule s21) keeps
/// them.
struct Shelf {
    /// The sizes of stack and guard that were asked for, bytes. They are what a shelf is found
    /// by, because rounding them needs a division.
    asked: (usize, usize),
    /// Bytes from one slot to the next: guard, stack, colours.
    stride: usize,
    /// Bytes at the low end of each slot that fault when touched.
    guard: usize,
    stock: RefCell<Stock>,
}

struct Stock {
    slabs: Vec<Slab>,
    /// Slots that have been cut and are not in use. The last `warm` of them may have pages.
    /// There is room for all that there are: a stack that comes back, as part of a drop, needs
    /// no memory.
    idle: Vec<Slot>,
    warm: usize,
}

struct Slab {
    mapping: Mapping,
    slots: usize,
    /// Slots that have been handed out at least once; they come first.
    cut: usize,
    /// Slots that have their guard; they come first.
    guarded: usize,
}

/// The low end of a slot.
#[derive(Clone, Copy)]
struct Slot(NonNull<u8>);

/// A stack on loan from this thread's pool.
pub(crate) struct Lease {
    /// The address just above the stack. Kept in place of the slot, which is asked for less often.
    top: NonNull<u8>,
    shelf: Shared<Shelf>,
}

impl Lease {
    /// The address just above the stack; aligned as a stack's top must be.
    pub(crate) fn top(&self) -> *mut u8 {
        self.top.as_ptr()
    }

    /// The lowest address of the guard, the lowest usable one, the one just above the stack.
    pub(crate) fn limits(&self) -> [*mut u8; 3] {
        let guard = self.slot().0.as_ptr();
        [guard, guard.wrapping_add(self.shelf.guard), self.top()]
    }

    fn slot(&self) -> Slot {
        Slot::below(self.top, self.shelf.stride)
    }

    /// Gives back the stack, on which nothing runs any more. It becomes the spare one; that
    /// which was it goes on its shelf.
    #[inline]
    pub(crate) fn give_back(self) {
        // As a function that takes `self`, not as a destructor: a stack that is in use is
        // never to be given back by accident.
        if IDLE.get() == 0 {
            return self.put_on_shelf();
        }
        if let Some(before) = SPARE.replace(Some(ManuallyDrop::new(self))) {
            ManuallyDrop::into_inner(before).put_on_shelf();
        }
    }

    /// Gives back the stack on which the caller runs, unless there is a spare one. Returns whether
    /// it did.
    ///
    /// # Safety
    /// The caller leaves the stack for ever before anybody asks for one. If it is given back,
    /// `self` is neither used nor dropped any more.
    #[inline(always)]
    pub(crate) unsafe fn become_spare(&self) -> bool {
        if IDLE.get() == 0 {
            return false;
        }
        if let Some(before) = SPARE.take() {
            SPARE.set(Some(before));
            return false;
        }
        // SAFETY: this is the only one that is used from here on (contract).
        SPARE.set(Some(ManuallyDrop::new(unsafe { ptr::read(self) })));
        true
    }

    #[inline(never)]
    fn put_on_shelf(self) {
        self.shelf.put(self.slot());
    }
}

/// The spare stack, if there is one and of this size and guard.
#[inline]
pub(crate) fn take_spare(size: usize, guard: usize) -> Option<Lease> {
    let lease = SPARE.take()?;
    if lease.shelf.asked == (size, guard) {
        return Some(ManuallyDrop::into_inner(lease));
    }
    SPARE.set(Some(lease));
    None
}

/// A stack of at least `size` usable bytes over at least `guard` bytes of guard.
#[inline(never)]
pub(crate) fn acquire(size: usize, guard: usize) -> Result<Lease, StackError> {
    let shelf =
        match SHELVES.try_with(|shelves| shelf_for(&mut shelves.0.borrow_mut(), size, guard)) {
            Ok(shelf) => shelf?,
            // The thread is ending and its shelves are gone: one for this stack alone.
            Err(_) => Shelf::new(size, guard)?,
        };
    let top = shelf.take()?.top(shelf.stride);
    Ok(Lease { top, shelf })
}

fn shelf_for(
    shelves: &mut Vec<Shared<Shelf>>,
    size: usize,
    guard: usize,
) -> Result<Shared<Shelf>, StackError> {
    if let Some(shelf) = shelves.iter().find(|shelf| shelf.asked == (size, guard)) {
        return Ok(Shared::clone(shelf));
    }
    let shelf = Shelf::new(size, guard)?;
    reserve(shelves, 1)?;
    shelves.push(Shared::clone(&shelf));
    Ok(shelf)
}

/// Sets how many idle stacks of one size this thread keeps with their memory, and returns how
/// many it was. When more lie idle, memory goes back to the system.
///
/// The default is 256. Address space is kept until the thread ends in any case. When it is ending
/// and the pool is gone, nothing is kept and this changes nothing.
///
/// ```
/// let before = greenlet::set_idle_stacks(10_000);
/// assert_eq!(before, 256);
/// ```
pub fn set_idle_stacks(count: usize) -> usize {
    match SHELVES.try_with(|_| ()) {
        Ok(()) => IDLE.replace(count),
        Err(_) => IDLE.get(),
    }
}

impl Shelf {
    fn new(size: usize, guard: usize) -> Result<Shared<Self>, StackError> {
        let asked = (size, guard);
        let too_large = StackError::TooLarge { bytes: size };
        let usable = round_up_to_page(size.checked_add(COLOUR * COLOURS).ok_or(too_large)?)?;
        let guard = round_up_to_page(guard)?;
        Shared::new(Self {
            asked,
            stride: usable.checked_add(guard).ok_or(too_large)?,
            guard,
            stock: RefCell::new(Stock {
                slabs: Vec::new(),
                idle: Vec::new(),
                warm: 0,
            }),
        })
    }

    fn take(&self) -> Result<Slot, StackError> {
        let stock = &mut *self.stock.borrow_mut();
        if let Some(slot) = stock.idle.pop() {
            stock.warm = stock.warm.saturating_sub(1);
            return Ok(slot);
        }
        if stock.slabs.last().is_none_or(|slab| slab.cut == slab.slots) {
            stock.add_slab(self.stride)?;
        }
        let slab = stock.slabs.last_mut().expect("just looked at or pushed");
        slab.cut(self.stride, self.guard)
    }

    fn put(&self, slot: Slot) {
        let stock = &mut *self.stock.borrow_mut();
        stock.idle.push(slot);
        stock.warm += 1;
        // The spare stack is idle as well.
        if stock.warm > IDLE.get().saturating_sub(1) {
            self.cool_down(stock);
        }
    }

    /// Gives back the pages of the longest unused half of the warm stacks. Neighbours go
    /// together, because each call of the system costs more than a microsecond.
    #[cold]
    fn cool_down(&self, stock: &mut Stock) {
        let coldest = stock.idle.len() - stock.warm;
        let cooled = stock.warm.div_ceil(2);
        let slots = &mut stock.idle[coldest..coldest + cooled];
        slots.sort_unstable_by_key(|slot| slot.0.addr());
        let neighbours =
            |low: &Slot, high: &Slot| high.0.addr().get() - low.0.addr().get() == self.stride;
        for run in slots.chunk_by(neighbours) {
            let stack = run[0].0.as_ptr().wrapping_add(self.guard);
            // SAFETY: from the first stack to the end of the last, all idle; the guards between
            // them survive.
            unsafe { mapping::give_back(stack, run.len() * self.stride - self.guard) };
        }
        stock.warm -= cooled;
    }
}

impl Stock {
    fn add_slab(&mut self, stride: usize) -> Result<(), StackError> {
        let there: usize = self.slabs.iter().map(|slab| slab.slots).sum();
        reserve(&mut self.slabs, 1)?;
        let slab = Slab::new(stride, there)?;
        reserve(&mut self.idle, there + slab.slots)?;
        self.slabs.push(slab);
        Ok(())
    }
}

/// Makes room for `count` more.
fn reserve<T>(list: &mut Vec<T>, count: usize) -> Result<(), StackError> {
    list.try_reserve(count).map_err(|_| StackError::OutOfMemory)
}

impl Slab {
    /// Maps a slab for a shelf that has `there` slots: as many again, or fewer if the system
    /// refuses that.
    fn new(stride: usize, there: usize) -> Result<Self, StackError> {
        let most = (MAX_SLAB / stride).max(1);
        let mut slots = there.max(FIRST_SLOTS).min(most);
        loop {
            match map_within_limits(slots.saturating_mul(stride)) {
                Ok(mapping) => {
                    return Ok(Self {
                        mapping,
                        slots,
                        cut: 0,
                        guarded: 0,
                    });
                }
                Err(error) if slots == 1 => return Err(error),
                Err(_) => slots /= 2,
            }
        }
    }

    /// A slot that was never used, with its guard.
    fn cut(&mut self, stride: usize, guard: usize) -> Result<Slot, StackError> {
        if self.cut == self.guarded {
            self.install_guards(stride, guard)?;
        }
        let slot = self.mapping.start().wrapping_add(self.cut * stride);
        self.cut += 1;
        Ok(Slot(
            NonNull::new(slot).expect("a mapping is not at address zero"),
        ))
    }

    fn install_guards(&mut self, stride: usize, guard: usize) -> Result<(), StackError> {
        let count = GUARD_BATCH.min(self.slots - self.guarded);
        for index in self.guarded..self.guarded + count {
            let start = self.mapping.start().wrapping_add(index * stride);
            // SAFETY: the low end of a slot that was never handed out.
            match unsafe { mapping::guard(start, guard) } {
                Ok(()) => self.guarded += 1,
                // Those that have theirs can be used.
                Err(_) if self.cut < self.guarded => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Maps `bytes` if [`HEADROOM`] can be mapped besides.
fn map_within_limits(bytes: usize) -> Result<Mapping, StackError> {
    let mapping = Mapping::new(bytes)?;
    match Mapping::new(HEADROOM) {
        Ok(_) => Ok(mapping),
        Err(StackError::Map { errno, .. }) => Err(StackError::Map { bytes, errno }),
        Err(other) => Err(other),
    }
}

impl Slot {
    /// The address just above its stack, given the bytes from one slot to the next.
    fn top(self, stride: usize) -> NonNull<u8> {
        // Fibonacci hashing: neighbouring slots get colours that are far apart.
        let page = self.0.addr().get() >> 12;
        let colour = (page.wrapping_mul(0x9e37_79b9) >> 16) % COLOURS * COLOUR;
        self.0
            .map_addr(|start| start.saturating_add(stride - colour))
    }

    /// The slot with this top.
    fn below(top: NonNull<u8>, stride: usize) -> Self {
        // A slot ends where a page does, and its stack begins less than all colours below that.
        let end = top.addr().get().next_multiple_of(COLOUR * COLOURS);
        let start = NonZeroUsize::new(end - stride).expect("a mapping is not at address zero");
        Self(top.with_addr(start))
    }
}
