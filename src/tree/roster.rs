//! Who lives: an intrusive list of a scope's greenlets, or of a thread's unscoped ones.

use core::{cell::Cell, ptr};

use super::Block;

/// The head of a list of blocks.
///
/// # Invariants
/// * It stays where it is while it has members: they point at it.
/// * Every member is there: a block leaves its roster when it dies, before it can be freed.
pub(crate) struct Roster {
    first: Cell<*const Block>,
}

/// A block's place in a roster.
///
/// # Invariants
/// `referrer` is null (in no roster), or the address of the cell that holds this block's
/// address: the roster's `first`, or the `next` of the member before.
pub(crate) struct Membership {
    next: Cell<*const Block>,
    referrer: Cell<*const Cell<*const Block>>,
}

impl Roster {
    pub(crate) const fn new() -> Self {
        Self {
            first: Cell::new(ptr::null()),
        }
    }

    /// Adds a block that is in no roster.
    ///
    /// # Safety
    /// The roster stays where it is, and is there, until the block has died; so does the block.
    pub(crate) unsafe fn add(&self, block: &Block) {
        let membership = block.membership();
        let next = self.first.replace(block);
        membership.next.set(next);
        membership.referrer.set(&raw const self.first);
        // SAFETY: null, or a member, which is there (invariant).
        if let Some(next) = unsafe { next.as_ref() } {
            next.membership().referrer.set(&raw const membership.next);
        }
    }

    /// The member that was added last.
    pub(crate) fn first(&self) -> Option<&Block> {
        // SAFETY: null, or a member, which is there (invariant).
        unsafe { self.first.get().as_ref() }
    }
}

impl Membership {
    pub(crate) const fn none() -> Self {
        Self {
            next: Cell::new(ptr::null()),
            referrer: Cell::new(ptr::null()),
        }
    }

    /// Leaves the roster, if it is in one.
    pub(crate) fn leave(&self) {
        let next = self.next.replace(ptr::null());
        let referrer = self.referrer.replace(ptr::null());
        // SAFETY: null, or a cell of the roster or of a member, both there (invariant).
        let Some(referrer_cell) = (unsafe { referrer.as_ref() }) else {
            return;
        };
        referrer_cell.set(next);
        // SAFETY: null, or a member, which is there (invariant).
        if let Some(next) = unsafe { next.as_ref() } {
            next.membership().referrer.set(referrer);
        }
    }
}
