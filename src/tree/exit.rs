//! Whether a greenlet is being killed, and what it has done since (rule s15).

use core::cell::Cell;

use super::Block;
use crate::host;

/// # Invariants
/// * `refusals` is zero exactly while the greenlet is not being killed. After that it is one more than the
///   number of its switches that were refused.
/// * A greenlet that is being killed runs or is busy: it is never suspended where another could switch to
///   it.
pub(super) struct Exit {
    refusals: Cell<u16>,
    /// `true` if the thread was unwinding a panic on another stack when the greenlet was killed.
    killed_in_unwinding: Cell<bool>,
    /// `true` once the crate has started to unwind it.
    unwound: Cell<bool>,
}

impl Exit {
    pub(super) const fn new() -> Self {
        Self {
            refusals: Cell::new(0),
            killed_in_unwinding: Cell::new(false),
            unwound: Cell::new(false),
        }
    }
}

impl Block {
    /// Returns `true` if the greenlet is being killed.
    pub(crate) fn is_exiting(&self) -> bool {
        self.exit.refusals.get() != 0
    }

    /// Notes that the greenlet is being killed, unless that has been noted before. `suspended`: its stack
    /// is suspended in a switch, so that a panic that the thread unwinds is on another stack (rule s19).
    pub(super) fn mark_killed(&self, suspended: bool) {
        if !self.is_exiting() {
            self.exit.refusals.set(1);
            self.exit
                .killed_in_unwinding
                .set(suspended && host::is_unwinding());
        }
    }

    /// Returns `true` if the stack of this greenlet, which runs and is being killed, unwinds, as far as
    /// that can be known.
    pub(super) fn unwinds(&self) -> bool {
        if self.exit.killed_in_unwinding.get() {
            self.exit.unwound.get()
        } else {
            host::is_unwinding()
        }
    }

    /// Notes that the crate is about to unwind the greenlet.
    pub(super) fn set_unwound(&self) {
        self.exit.unwound.set(true);
    }

    /// Counts a switch that is refused because the greenlet is being killed. Returns which one it is, from
    /// 1.
    pub(super) fn count_refusal(&self) -> u16 {
        let refusals = self.exit.refusals.get();
        self.exit.refusals.set(refusals.saturating_add(1));
        refusals
    }
}
