//! Which greenlet waits for the end of which: killers for their victims, and greenlets for the roots on
//! their stacks.
//!
//! The links go both ways and make chains. At one end is a greenlet that runs or is suspended; all others
//! are busy.

use core::{cell::Cell, ptr};

use super::{Block, State};

/// # Invariants
/// * `waits_for` is not null exactly while the greenlet is busy, except while it waits for a coroutine
///   that it has resumed. Following it leads to a greenlet that runs or is suspended, also in a
///   coroutine's resume.
/// * `killer` is not null exactly while a greenlet waits in a kill for this one's death. A root's is the
///   greenlet on whose stack the root was entered, which waits for it as well.
/// * A block that one of them points to is not freed while it does.
pub(super) struct Waits {
    waits_for: Cell<*const Block>,
    killer: Cell<*const Block>,
}

impl Waits {
    /// The offset at which a debugger finds `waits_for`.
    #[cfg(feature = "std")]
    pub(super) const DEBUGGED: usize = core::mem::offset_of!(Self, waits_for);

    pub(super) const fn new() -> Self {
        Self {
            waits_for: Cell::new(ptr::null()),
            killer: Cell::new(ptr::null()),
        }
    }
}

impl Block {
    /// Returns the greenlet that must finish before this one resumes, if it waits for one.
    pub(crate) fn waits_for(&self) -> Option<&Block> {
        // SAFETY: null, or a block that is not freed meanwhile (invariant).
        unsafe { self.waits.waits_for.get().as_ref() }
    }

    /// Makes this greenlet, which waits, wait for `other` instead.
    pub(super) fn wait_instead_for(&self, other: &Block) {
        debug_assert_eq!(self.state(), State::Busy);
        self.waits.waits_for.set(other);
    }

    /// Makes this greenlet, which is active, wait for `other`.
    pub(super) fn begin_waiting_for(&self, other: &Block) {
        debug_assert_eq!(self.state(), State::Active);
        self.waits.waits_for.set(other);
        self.set_state(State::Busy);
    }

    /// Makes this greenlet, which runs, wait for a root that is entered on its stack. An unwinder that
    /// comes to this greenlet goes on at that root, which has the newer frames of the stack.
    pub(super) fn begin_waiting_for_root(&self, root: &Block) {
        self.begin_waiting_for(root);
        let link: *const Cell<*const Block> = &raw const self.waits.waits_for;
        self.context.lead_to(link.cast());
    }

    /// Makes this greenlet active again.
    pub(super) fn end_waiting(&self) {
        debug_assert_eq!(self.state(), State::Busy);
        self.waits.waits_for.set(ptr::null());
        self.set_state(State::Active);
    }

    /// Returns the greenlet at the end of the chain of waits that starts here. It runs or is suspended.
    pub(super) fn end_of_waits(&self) -> &Block {
        let mut block = self;
        while let Some(next) = block.waits_for() {
            block = next;
        }
        block
    }

    /// Returns the greenlet at the other end of the chain of waits. No greenlet waits for it.
    pub(super) fn last_waiter(&self) -> &Block {
        let mut block = self;
        while let Some(next) = block.killer() {
            block = next;
        }
        block
    }

    /// Returns the greenlet that waits for this one's end.
    pub(super) fn killer(&self) -> Option<&Block> {
        // SAFETY: null, or a block that is not freed meanwhile (invariant).
        unsafe { self.waits.killer.get().as_ref() }
    }

    /// Returns `true` if it is being killed and no greenlet waits for that: it has killed itself, or its killer was
    /// killed.
    pub(crate) fn exits_by_itself(&self) -> bool {
        self.is_exiting() && self.killer().is_none()
    }

    pub(super) fn set_killer(&self, killer: Option<&Block>) {
        let killer = killer.map_or(ptr::null(), ptr::from_ref);
        self.waits.killer.set(killer);
    }
}

/// Returns the innermost root on the stack of `block`, or `block` itself.
pub(crate) fn top_of_stack(block: &Block) -> &Block {
    let mut top = block;
    while let Some(next) = top.waits_for().filter(|next| next.is_root()) {
        top = next;
    }
    top
}

/// Returns the greenlet whose body is at the bottom of the stack of `block`.
#[cfg(feature = "std")]
pub(super) fn bottom_of_stack(block: &Block) -> &Block {
    let mut bottom = block;
    while let Some(outer) = bottom.killer().filter(|_| bottom.is_root()) {
        bottom = outer;
    }
    bottom
}
