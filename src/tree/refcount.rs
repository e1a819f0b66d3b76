//! Who holds a block, and what becomes of it when nobody does (rules s14, s17, s18).

use core::{
    cell::Cell,
    ptr::{self, NonNull},
};

use super::{Block, State, kill, memory, thread};
use crate::host;

/// # Invariants
/// * `strong` counts handles and children. `weak` counts weak handles, and one for as long as
///   `strong` is not zero or the greenlet is not dead. The allocation goes when `weak` is zero.
/// * The parent is counted in its `strong`.
pub(super) struct RefCounts {
    strong: Cell<usize>,
    weak: Cell<usize>,
    /// Has it, dead and without handles, given up what it counted?
    given_up: Cell<bool>,
}

impl RefCounts {
    /// Of a new block: one strong count, which its maker owns.
    pub(super) const fn new() -> Self {
        Self {
            strong: Cell::new(1),
            weak: Cell::new(1),
            given_up: Cell::new(false),
        }
    }
}

impl Block {
    /// Does nobody hold it any more?
    pub(crate) fn is_abandoned(&self) -> bool {
        self.counts().strong.get() == 0
    }

    /// Is its parent counted by others as well?
    #[inline(always)]
    fn shares_its_parent(&self) -> bool {
        self.parent()
            .is_some_and(|parent| parent.counts().strong.get() > 1)
    }

    /// Are there no counts but those that it began with?
    pub(crate) fn is_held_once(&self) -> bool {
        (self.counts().strong.get(), self.counts().weak.get()) == (1, 1)
    }

    #[inline]
    pub(crate) fn retain(&self) {
        count_up(&self.counts().strong);
    }

    pub(crate) fn retain_weakly(&self) {
        count_up(&self.counts().weak);
    }

    /// A strong count, unless the greenlet has finished or is about to.
    pub(crate) fn upgrade(&self) -> Option<Own> {
        if self.state() == State::Dead || self.is_abandoned() {
            return None;
        }
        self.retain();
        // SAFETY: the count has just been made.
        Some(unsafe { Own::from_counted(NonNull::from(self)) })
    }
}

/// One more. A count that would overflow means that handles are forgotten in a loop, which
/// must not end in a count of zero.
fn count_up(count: &Cell<usize>) {
    let Some(more) = count.get().checked_add(1) else {
        host::abort(format_args!("greenlet: more handles than can be counted"));
    };
    count.set(more);
}

/// A strong count of a block.
pub(crate) struct Own(NonNull<Block>);

impl Own {
    /// Takes over a count that somebody owns.
    ///
    /// # Safety
    /// The caller owns one strong count of `block` and gives it up.
    pub(crate) unsafe fn from_counted(block: NonNull<Block>) -> Self {
        Self(block)
    }

    #[inline(always)]
    pub(crate) fn block(&self) -> &Block {
        // SAFETY: counted, so it is there.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for Own {
    #[inline]
    fn clone(&self) -> Self {
        self.block().retain();
        Self(self.0)
    }
}

impl Drop for Own {
    #[inline]
    fn drop(&mut self) {
        let block = self.block();
        let strong = &block.counts().strong;
        strong.set(strong.get() - 1);
        if block.is_abandoned() {
            // SAFETY: the last strong count has just been given up.
            unsafe { abandoned(self.0.as_ptr()) };
        }
    }
}

/// The last handle of `block` is gone: ends what can be ended and frees what can be freed,
/// and then the same for its parent if this was all that held it.
///
/// # Safety
/// `block` has no strong count any more, and is there.
#[inline(never)]
pub(crate) unsafe fn abandoned(block: *const Block) {
    // SAFETY: the caller's word.
    unsafe {
        // The usual case apart: nothing is called but what it ends with.
        if (*block).state() == State::Dead && (*block).shares_its_parent() {
            give_up_counts(block);
        } else {
            all_abandoned(block);
        }
    }
}

/// As [`abandoned`]. A loop, because a chain of parents may be long.
///
/// # Safety
/// As for [`abandoned`].
#[cold]
unsafe fn all_abandoned(block: *const Block) {
    let mut next = block;
    while !next.is_null() {
        // SAFETY: by the function's contract for the first; each parent is there, and nobody holds
        // it any more.
        next = unsafe {
            if (*next).state() == State::Dead {
                give_up_counts(next)
            } else {
                end_abandoned(next)
            }
        };
    }
}

/// As [`abandoned`], for one that is not dead yet, and without the loop: returns the parent if
/// nobody holds that any more.
///
/// # Safety
/// As for [`abandoned`].
#[inline(never)]
unsafe fn end_abandoned(block: *const Block) -> *const Block {
    // SAFETY: the caller's word. It stays while destructors and other greenlets run, as `kept`
    // counts it, and may be freed when that returns: nothing here uses it then.
    kept(unsafe { &*block }, |block| {
        let over = match block.state() {
            State::Active if ptr::eq(thread::current(), block) => {
                // It comes to this when it is left, or dies.
                thread::set_current(Some(block));
                false
            }
            // It comes to this when its wait has ended and it leaves, or dies.
            State::Busy if ptr::eq(thread::current(), block.end_of_waits()) => {
                thread::set_current(Some(block.end_of_waits()));
                false
            }
            _ => kill::kill(block) == kill::Killed::Dead,
        };
        if over && block.is_abandoned() {
            // SAFETY: dead, and without a strong count.
            unsafe { give_up_counts(block) }
        } else {
            ptr::null()
        }
    })
}

/// Gives up what a dead greenlet without handles counts, once: its parent, and with the weak count of
/// its strong side itself, so that the block may go. Returns the parent if nobody
/// holds that any more.
///
/// # Safety
/// The greenlet is dead and has no strong count, and the block is there.
#[inline(always)]
unsafe fn give_up_counts(block: *const Block) -> *const Block {
    // SAFETY: the caller's word; the counts are this block's, given up this once.
    unsafe {
        // Two may come here: whoever waited for the death, and whoever dropped the last handle
        // while the first was still waiting.
        if (*block).counts().given_up.replace(true) {
            return ptr::null();
        }
        let parent = if (*block).counts().weak.get() == 1 {
            // Nobody sees the link any more.
            (*block).parent_link()
        } else {
            (*block).take_parent()
        };
        let orphaned = if parent.is_null() {
            ptr::null()
        } else {
            release_parent(parent)
        };
        release_weakly(block);
        orphaned
    }
}

/// Gives up the count that a child has of its parent; returns the parent if nobody holds it any
/// more.
///
/// # Safety
/// The caller owns that count.
#[inline(always)]
unsafe fn release_parent(parent: *const Block) -> *const Block {
    // SAFETY: counted, so it is there.
    let count = unsafe { &(*parent).counts().strong };
    count.set(count.get() - 1);
    if count.get() == 0 {
        parent
    } else {
        ptr::null()
    }
}

/// Keeps `block`, which may die, while `run` runs. It may be freed before this returns, though the
/// argument names it: see [`Block`].
pub(super) fn kept<'a, R>(block: &'a Block, run: impl FnOnce(&'a Block) -> R) -> R {
    block.retain_weakly();
    let result = run(block);
    // SAFETY: the count made above.
    unsafe { release_weakly(block) };
    result
}

/// Gives up a weak count.
///
/// # Safety
/// The caller owns one weak count of `block`.
#[inline]
pub(crate) unsafe fn release_weakly(block: *const Block) {
    // SAFETY: counted, so it is there.
    let weak = unsafe { &(*block).counts().weak };
    weak.set(weak.get() - 1);
    if weak.get() == 0 {
        // SAFETY: the last count of any kind is gone.
        unsafe { free(memory::whole(block.addr())) };
    }
}

/// Drops a block and frees its memory.
///
/// # Safety
/// Nobody has a count of `block` any more, and it points to all of the allocation.
unsafe fn free(block: *mut Block) {
    // SAFETY: it is there until now. The memory is from `memory::allocate` with its kind's size
    // class, and its body is gone since it died.
    unsafe {
        if (*block).owns_memory() {
            return drop_and_free(block);
        }
        memory::free(block.cast(), (*block).kind().size_class);
    }
}

/// As [`free`], for one that has something to drop.
///
/// # Safety
/// As for [`free`].
#[cold]
unsafe fn drop_and_free(block: *mut Block) {
    // SAFETY: as in `free`.
    unsafe {
        let kind = (*block).kind();
        block.drop_in_place();
        memory::free(block.cast(), kind.size_class);
    }
}
