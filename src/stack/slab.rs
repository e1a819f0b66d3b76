//! Slabs: mappings that are cut into the slots of one shape. The pool keeps them.

use core::{num::NonZeroUsize, ptr::NonNull};

use static_assertions::const_assert_eq;

use super::{
    StackError,
    mapping::{self, Mapping, page_size},
};

/// The slots of a slab are at most so many bytes of address space.
const MAX_SLAB: usize = if usize::BITS >= 64 { 1 << 30 } else { 1 << 23 };

/// The first slab of a shelf has this many slots; each further one as many as there are.
const FIRST_SLOTS: usize = 8;

/// After so many slots of a slab one page is left out. A second-level TLB finds a page by the low bits
/// of its number: where slots are an even number of pages, the tops of all stacks would compete for half
/// of it, or less.
const GROUP: usize = 64;

/// Bytes of address space that are left to the rest of the program: it continues when a stack is refused,
/// and its allocator must be able to map memory.
const HEADROOM: usize = if usize::BITS >= 64 { 4 << 20 } else { 1 << 20 };

/// Tops of stacks differ by a multiple of this, a cache line.
pub(super) const COLOUR: usize = 64;
/// Bytes in which tops lie, at the end of each slot. Tops at the same offset in every page would compete for
/// the same few sets of the first-level cache.
pub(super) const COLOURS: usize = 16 * COLOUR;

// Where a page ends, so many bytes do ([`Slot::below`]); no page is smaller than this.
const_assert_eq!(4096 % COLOURS, 0);

/// One mapping, cut into slots.
pub(super) struct Slab {
    mapping: Mapping,
    pub(super) slots: usize,
    /// Slots that have been handed out at least once; they come first.
    cut: usize,
    /// Slots that have their guard; they come first.
    guarded: usize,
}

/// The low end of a slot.
#[derive(Clone, Copy)]
pub(super) struct Slot(pub(super) NonNull<u8>);

impl Slab {
    /// Maps a slab for a shelf that has `there` slots: as many again, or fewer if the system
    /// refuses that.
    pub(super) fn new(stride: usize, there: usize) -> Result<Self, StackError> {
        let most = (MAX_SLAB / stride).max(1);
        let mut slots = there.max(FIRST_SLOTS).min(most);
        loop {
            match map_within_limits(bytes_of(slots, stride)) {
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

    /// Returns `true` if each slot has been handed out at least once.
    pub(super) fn is_used_up(&self) -> bool {
        self.cut == self.slots
    }

    /// The low end of one of its slots.
    fn slot(&self, index: usize, stride: usize) -> *mut u8 {
        self.mapping.start().wrapping_add(bytes_of(index, stride))
    }

    pub(super) fn contains(&self, slot: Slot) -> bool {
        let start = self.mapping.start().addr();
        (start..start + self.mapping.len()).contains(&slot.0.addr().get())
    }

    /// A slot that was never used, with its guard.
    pub(super) fn cut(&mut self, stride: usize, guard: usize) -> Result<Slot, StackError> {
        if self.cut == self.guarded {
            self.install_guards(stride, guard)?;
        }
        let slot = self.slot(self.cut, stride);
        self.cut += 1;
        Ok(Slot(
            NonNull::new(slot).expect("a mapping is not at address zero"),
        ))
    }

    fn install_guards(&mut self, stride: usize, guard: usize) -> Result<(), StackError> {
        // Ahead of their first use, those of one group.
        let count = mapping::MOST_AT_ONCE
            .min(self.slots - self.guarded)
            .min(GROUP - self.guarded % GROUP);
        let first = self.slot(self.guarded, stride);
        // SAFETY: the low ends of slots that were never handed out.
        let at_once = unsafe { mapping::guard_at_once(first, stride, guard, count) };
        self.guarded += at_once;
        for index in at_once..count {
            let start = first.wrapping_add(index * stride);
            // SAFETY: a slot that was never handed out.
            match unsafe { mapping::lay_out(start, guard, stride) } {
                Ok(()) => self.guarded += 1,
                // Those that have theirs can be used.
                Err(_) if self.cut < self.guarded => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Bytes of so many slots of a slab, with the pages between groups of them. They fit: more slots than
/// one are at most [`MAX_SLAB`], and the pages are fewer bytes than the slots.
fn bytes_of(slots: usize, stride: usize) -> usize {
    slots * stride + slots / GROUP * page_size()
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
    /// The address just above its stack, given the bytes from one slot to the next and those that
    /// lie above each stack.
    pub(super) fn top(self, stride: usize, above: usize) -> NonNull<u8> {
        // Fibonacci hashing: neighbouring slots get colours that are far apart.
        let page = self.0.addr().get() >> 12;
        let colour = (page.wrapping_mul(0x9e37_79b9) >> 16) % (COLOURS / COLOUR) * COLOUR;
        self.0
            .map_addr(|start| start.saturating_add(stride - colour - above))
    }

    /// The slot with this top.
    pub(super) fn below(top: NonNull<u8>, stride: usize, above: usize) -> Self {
        // A slot ends where a page does, and what lies above its stack ends less than all colours
        // below that.
        let end = (top.addr().get() + above).next_multiple_of(COLOURS);
        let start = NonZeroUsize::new(end - stride).expect("a mapping is not at address zero");
        Self(top.with_addr(start))
    }
}
