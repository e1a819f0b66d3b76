//! The death of a greenlet that has not started: its body is dropped.

use core::{cell::Cell, ptr};

use super::{Block, refcount, thread};
use crate::host;

/// Ends a new greenlet without running it: its body and its stack are dropped. A panic of a destructor
/// is discarded after the panic hook has run.
///
/// Bodies are dropped one after the other, never one inside another: a chain of new
/// greenlets, each held by the body of the one before, may be long.
pub(crate) fn drop_unstarted(block: &Block) {
    block.set_dead();
    // The block stays until its body is gone.
    block.retain_weakly();
    thread::with_pending_drops(|pending_drops| {
        // SAFETY: null, or a list further down on this stack.
        if let Some(pending) = unsafe { pending_drops.get().as_ref() } {
            block.set_next_pending(pending.replace(block));
            return;
        }
        let pending = Cell::new(ptr::from_ref(block));
        pending_drops.set(&pending);
        drop_bodies(&pending);
        pending_drops.set(ptr::null());
    });
}

/// Drops the bodies that are queued behind the one that the running greenlet is dropping. Called when
/// the `enter` of those greenlets is about to end.
pub(crate) fn finish_pending_drops() {
    thread::with_pending_drops(|pending_drops| {
        // SAFETY: null, or a list further down on this stack.
        if let Some(pending) = unsafe { pending_drops.get().as_ref() } {
            drop_bodies(pending);
        }
    });
}

fn drop_bodies(pending: &Cell<*const Block>) {
    // SAFETY: pending blocks are kept by the weak count that `drop_unstarted` has taken.
    while let Some(block) = unsafe { pending.get().as_ref() } {
        pending.set(block.take_next_pending());
        // SAFETY: new until it died, so the body is there, and it is dropped only here.
        host::contain(|| unsafe { (block.kind().drop_body)(block) });
        block.settings().stack.give_back();
        // SAFETY: the count taken when this block was queued.
        unsafe { refcount::release_weakly(block) };
    }
}
