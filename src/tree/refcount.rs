//! The reference counts of a block, and what happens when they reach zero (rules s14, s17, s18).

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
}

impl RefCounts {
    /// The counts of a new block: one strong count, which its maker owns.
    pub(super) const fn new() -> Self {
        Self {
            strong: Cell::new(1),
            weak: Cell::new(1),
        }
    }
}

impl Block {
    /// Returns `true` if the strong count is zero.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.counts.strong.get() == 0
    }

    /// Returns `true` if others count its parent as well.
    #[inline(always)]
    fn shares_its_parent(&self) -> bool {
        self.parent()
            .is_some_and(|parent| parent.counts.strong.get() > 1)
    }

    #[inline]
    pub(crate) fn retain(&self) {
        count_up(&self.counts.strong);
    }

    pub(crate) fn retain_weakly(&self) {
        count_up(&self.counts.weak);
    }

    /// Returns a strong count, or `None` if the greenlet has finished or is about to.
    pub(crate) fn upgrade(&self) -> Option<Own> {
        if self.state() == State::Dead || self.is_abandoned() {
            return None;
        }
        self.retain();
        // SAFETY: the count has just been made.
        Some(unsafe { Own::from_counted(NonNull::from(self)) })
    }
}

/// Adds one. Aborts where the count would overflow, as `Rc` does: handles were forgotten in a loop.
fn count_up(count: &Cell<usize>) {
    let Some(more) = count.get().checked_add(1) else {
        host::abort(format_args!("greenlet: more handles than can be counted"));
    };
    count.set(more);
}

/// Owns one strong count of a block.
pub(crate) struct Own(NonNull<Block>);

impl Own {
    /// Takes over an existing count.
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
        let strong = &block.counts.strong;
        strong.set(strong.get() - 1);
        if block.is_abandoned() {
            // SAFETY: the last strong count has just been given up.
            unsafe { last_handle_dropped(self.0.as_ptr()) };
        }
    }
}

/// As [`abandoned`], for a greenlet whose last strong count has just been given up. The usual cases are
/// separate, so that they are short.
///
/// # Safety
/// `block` has had a strong count until now, and is there.
#[inline(never)]
unsafe fn last_handle_dropped(block: *const Block) {
    // SAFETY: the block is there and has no strong count any more (contract).
    unsafe {
        if (*block).state() != State::Dead {
            abandoned(block);
        } else if (&*block).counts.weak.get() == 1 && (*block).shares_its_parent() {
            // The one weak count is that of the strong ones: nothing else refers to the block.
            debug_assert!(!(&*block).gave_up_counts.get());
            release_parent((*block).parent_link());
            free(memory::whole(block.addr()));
        } else if (*block).parent_link().is_null() {
            root_abandoned(block);
        } else {
            abandoned(block);
        }
    }
}

/// As [`abandoned`], for one that is dead and has no parent. A function of its own, because the other
/// case is shorter without it.
///
/// # Safety
/// As for [`abandoned`]; and it is dead.
#[inline(never)]
unsafe fn root_abandoned(block: *const Block) {
    // SAFETY: it is dead, there, and has no strong count (contract).
    unsafe { give_up_counts(block) };
}

/// Ends and frees a greenlet whose last handle is gone, as far as that is possible now. Then does the
/// same for its parent, if only this greenlet held it; in a loop, because a chain of parents may be long.
///
/// # Safety
/// `block` has no strong count any more, and is there.
#[cold]
pub(crate) unsafe fn abandoned(block: *const Block) {
    let mut next = block;
    while !next.is_null() {
        // SAFETY: by the function's contract for the first. Each parent is valid and has no strong
        // count any more.
        next = unsafe {
            if (*next).state() == State::Dead {
                give_up_counts(next)
            } else {
                end_abandoned(next)
            }
        };
    }
}

/// As [`abandoned`], for a greenlet that is not dead yet. Returns the parent if that has no strong count
/// any more.
///
/// # Safety
/// As for [`abandoned`].
#[inline(never)]
unsafe fn end_abandoned(block: *const Block) -> *const Block {
    // SAFETY: the block is there (contract). `with_weak_count` keeps it while destructors and other greenlets
    // run. It may be freed when that returns: nothing here uses it then.
    with_weak_count(unsafe { &*block }, |block| {
        let dead = match block.state() {
            State::Active if ptr::eq(thread::current(), block) => {
                // This happens when it is left, or dies.
                thread::set_current(Some(block));
                false
            }
            // This happens when its wait has ended and it is left, or dies.
            State::Busy if ptr::eq(thread::current(), block.end_of_waits()) => {
                thread::set_current(Some(block.end_of_waits()));
                false
            }
            _ => kill::kill(block) == kill::Killed::Dead,
        };
        if dead && block.is_abandoned() {
            // SAFETY: it is dead and has no strong count.
            unsafe { give_up_counts(block) }
        } else {
            ptr::null()
        }
    })
}

/// Releases, once, what a dead greenlet without handles counts: its parent, and the weak count that all
/// strong counts share, after which the block may be freed. Returns the parent if that has no strong
/// count any more.
///
/// # Safety
/// The greenlet is dead and has no strong count, and the block is there.
#[inline(always)]
unsafe fn give_up_counts(block: *const Block) -> *const Block {
    // SAFETY: the block is there (contract). The counts are its own, and are given up only once.
    unsafe {
        // Two callers may get here: the one that waited for the death, and the one that dropped the
        // last handle while the first was still waiting.
        if (&*block).gave_up_counts.replace(true) {
            return ptr::null();
        }
        let parent = if (&*block).counts.weak.get() == 1 {
            // No weak handle is left through which the link could be seen.
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

/// Releases the count that a child has of its parent. Returns the parent if that was the last one.
///
/// # Safety
/// The caller owns that count.
#[inline(always)]
unsafe fn release_parent(parent: *const Block) -> *const Block {
    // SAFETY: counted, so it is there.
    let count = unsafe { &(&*parent).counts.strong };
    count.set(count.get() - 1);
    if count.get() == 0 {
        parent
    } else {
        ptr::null()
    }
}

/// Holds a weak count of `block` while `run` runs, in which the greenlet may die. The block may be freed
/// before this returns, although the argument is a reference to it: see [`Block`].
pub(super) fn with_weak_count<'a, R>(block: &'a Block, run: impl FnOnce(&'a Block) -> R) -> R {
    block.retain_weakly();
    let result = run(block);
    // SAFETY: the count made above.
    unsafe { release_weakly(block) };
    result
}

/// Releases a weak count.
///
/// # Safety
/// The caller owns one weak count of `block`.
#[inline]
pub(crate) unsafe fn release_weakly(block: *const Block) {
    // SAFETY: counted, so it is there.
    let weak = unsafe { &(&*block).counts.weak };
    weak.set(weak.get() - 1);
    if weak.get() == 0 {
        // SAFETY: the last count of any kind is gone.
        unsafe { free(memory::whole(block.addr())) };
    }
}

/// Drops a block and frees its memory.
///
/// # Safety
/// `block` has no count of either kind any more, and the pointer is valid for the whole allocation.
unsafe fn free(block: *mut Block) {
    // SAFETY: it is valid until now. The memory is from `memory::allocate` with its kind's size
    // class, and its body is gone since it died.
    unsafe {
        if (*block).owns_memory() {
            return drop_and_free(block);
        }
        memory::free(block.cast(), (&*block).kind.size_class);
    }
}

/// As [`free`], for a block that has something to drop.
///
/// # Safety
/// As for [`free`].
#[cold]
unsafe fn drop_and_free(block: *mut Block) {
    // SAFETY: as in `free`.
    unsafe {
        let kind = (&*block).kind;
        block.drop_in_place();
        memory::free(block.cast(), kind.size_class);
    }
}
