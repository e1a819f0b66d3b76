//! The live greenlets of an `enter`, or those of a thread that no `enter` ends: an intrusive list.
//! The registry of the thread also has all roots, by which the registries of `enter`s are found.
//!
//! A stack may overflow inside the functions here, and the signal handler that names the greenlet walks
//! the lists. So a list can be walked forwards at every step: a new member has its `next` before
//! anything points to it, and a removed member keeps its `next`.

use core::{
    cell::Cell,
    ptr,
    sync::atomic::{Ordering, compiler_fence},
};

use super::Block;

/// The head of a list of blocks.
///
/// # Invariants
/// * It does not move while it has members: they point to it.
/// * Every member is valid: a block leaves its registry when it dies, before it can be freed.
pub(crate) struct Registry {
    first: Cell<*const Block>,
    /// The root of the `enter`; null for the thread's.
    pub(crate) root: *const Block,
}

/// A block's place in a registry.
///
/// # Invariants
/// * `referrer` is null if the block is in no registry. Otherwise it is the address of the cell that holds this
///   block's address: the registry's `first`, or the `next` of the member before.
/// * While the block is in a registry, `next` is the next member, or null.
pub(crate) struct Membership {
    next: Cell<*const Block>,
    referrer: Cell<*const Cell<*const Block>>,
}

impl Registry {
    /// Where a debugger finds the first member, and the root.
    #[cfg(feature = "std")]
    pub(crate) const DEBUGGED: [usize; 2] = [
        core::mem::offset_of!(Self, first),
        core::mem::offset_of!(Self, root),
    ];

    /// Makes the registry of the `enter` with this root; or of a thread, if `root` is null.
    pub(crate) const fn new(root: *const Block) -> Self {
        Self {
            first: Cell::new(ptr::null()),
            root,
        }
    }

    /// Calls `inspect` with each member. `inspect` must neither add nor remove any.
    #[cfg(feature = "std")]
    pub(crate) fn for_each(&self, mut inspect: impl FnMut(&Block)) {
        let mut member = self.first();
        while let Some(block) = member {
            inspect(block);
            // SAFETY: null, or a member, which is there (invariant).
            member = unsafe { block.membership.next.get().as_ref() };
        }
    }

    /// Adds a block that is in no registry.
    ///
    /// # Safety
    /// The registry stays where it is, and is there, until the block has died; so does the block.
    pub(crate) unsafe fn add(&self, block: &Block) {
        let membership = &block.membership;
        let next = self.first.get();
        membership.next.set(next);
        membership.referrer.set(&raw const self.first);
        compiler_fence(Ordering::Release);
        self.first.set(block);
        // SAFETY: null, or a member, which is there (invariant).
        if let Some(next) = unsafe { next.as_ref() } {
            next.membership.referrer.set(&raw const membership.next);
        }
    }

    /// Returns the member that was added last.
    pub(crate) fn first(&self) -> Option<&Block> {
        // SAFETY: null, or a member, which is there (invariant).
        unsafe { self.first.get().as_ref() }
    }
}

impl Membership {
    /// Where a debugger finds the next member.
    #[cfg(feature = "std")]
    pub(crate) const DEBUGGED: usize = core::mem::offset_of!(Self, next);

    pub(crate) const fn none() -> Self {
        Self {
            next: Cell::new(ptr::null()),
            referrer: Cell::new(ptr::null()),
        }
    }

    /// Leaves the registry, if it is in one.
    pub(crate) fn leave(&self) {
        let next = self.next.get();
        let referrer = self.referrer.replace(ptr::null());
        // SAFETY: null, or a cell of the registry or of a member, both there (invariant).
        let Some(referrer_cell) = (unsafe { referrer.as_ref() }) else {
            return;
        };
        referrer_cell.set(next);
        // SAFETY: null, or a member, which is there (invariant).
        if let Some(next) = unsafe { next.as_ref() } {
            next.membership.referrer.set(referrer);
        }
    }
}
