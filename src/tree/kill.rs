//! Making a greenlet end (rules s14 to s17).

use core::ptr;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process,
};

use super::{Block, block, message, root};
use crate::{thread, tree::State};

/// What a kill came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Killed {
    /// The greenlet is dead.
    Dead,
    /// The greenlet is the one that runs: it is told to exit.
    Itself,
    /// The greenlet waits for the one that runs: it is told to exit, and learns it when its
    /// wait is over.
    Later,
}

/// Ends `victim`, whatever its state. Returns in the killer, whatever the victim's parent.
pub(crate) fn kill(victim: &Block) -> Killed {
    match victim.state() {
        State::Dead => return Killed::Dead,
        State::New => {
            bury(victim);
            return Killed::Dead;
        }
        State::Active | State::Busy => {}
    }
    let end = victim.end_of_waits();
    let runs = ptr::eq(thread::current(), end);
    let mut told = victim;
    loop {
        told.tell_to_exit();
        match told.waits_for() {
            // Those further along belong to the one that runs: they are not the victim's to end.
            Some(next) if !runs => told = next,
            _ => break,
        }
    }
    if runs {
        thread::set_current(Some(end));
        return if ptr::eq(victim, end) { Killed::Itself } else { Killed::Later };
    }
    root::with_current(|killer| {
        victim.set_killer(Some(killer));
        killer.begin_waiting_for(victim);
        // The victim's stack starts with a clean slate: what it drops, it drops there and then.
        let under_way = thread::with_burials(|burials| burials.under_way.replace(false));
        // SAFETY: `killer` runs and now waits; `end` is suspended and told to exit.
        unsafe { message::hop_to_kill(killer, end) };
        thread::with_burials(|burials| burials.under_way.set(under_way));
    });
    Killed::Dead
}

/// Ends a new greenlet: it dies without running, its body is dropped. A panic of the body's
/// destructor is discarded after the panic hook has spoken.
///
/// Bodies are dropped one after the other, never one inside another: a chain of new
/// greenlets, each held by the body of the one before, may be long.
pub(crate) fn bury(block: &Block) {
    block.set_dead();
    // The block stays until its body is gone.
    block.retain_weakly();
    thread::with_burials(|burials| {
        block.set_next_burial(burials.pending.get());
        burials.pending.set(block);
        if burials.under_way.replace(true) {
            return;
        }
        // SAFETY: pending blocks are kept by the weak count above.
        while let Some(block) = unsafe { burials.pending.get().as_ref() } {
            burials.pending.set(block.take_next_burial());
            // SAFETY: new until just now, so the body is there, and it is dropped only here.
            contain(|| unsafe { (block.kind().drop_body)(block) });
            // SAFETY: the count taken when this block was queued.
            unsafe { block::release_weakly(block) };
        }
        burials.under_way.set(false);
    });
}

/// Runs destructors whose panic nobody can be told of, beyond what the panic hook said.
pub(crate) fn contain(run: impl FnOnce()) {
    let mut outcome = catch_unwind(AssertUnwindSafe(run));
    // The payload may have a destructor of its own that panics, with a payload …
    while let Err(payload) = outcome {
        outcome = catch_unwind(AssertUnwindSafe(|| drop(payload)));
    }
}

/// The end of a greenlet that does not end: rule s15 leaves no other.
#[cold]
pub(crate) fn give_up(block: &Block) -> ! {
    eprintln!(
        "greenlet {}: killed, but it goes on switching and cannot be unwound; aborting",
        block.settings().display_name()
    );
    process::abort()
}
