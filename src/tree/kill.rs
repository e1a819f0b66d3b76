//! Making a greenlet end (rules s14 to s17).

use core::ptr;

use super::{Block, State, message, refcount, root, thread, unstarted};

/// What a kill came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Killed {
    /// The greenlet is dead.
    Dead,
    /// The greenlet is the one that runs: it is being killed.
    Itself,
    /// The greenlet is being killed. The one that runs is a root on its stack and is told too.
    Beneath,
    /// Another greenlet is already killing this one and waits for its end. Nothing was done.
    InProgress,
    /// The greenlet is being killed and goes on with it, but while it did, the one that runs
    /// was killed in turn, and no longer waits.
    Interrupted,
}

/// Ends `victim`, whatever its state. Returns in the killer, whatever the victim's parent. The
/// caller keeps the victim's block and frees it, if need be, afterwards.
///
/// A victim that is busy is ended from the far end of its waits, because whoever it waits for
/// must finish before it can go on: a nested root on its stack, or one that it is killing.
/// If that chain of waits leads to the one that runs, the victim's own kill is interrupted.
pub(crate) fn kill(victim: &Block) -> Killed {
    kill_if(victim, false)
}

/// `takes_over`: also if another greenlet is already killing the victim; that one then waits longer.
fn kill_if(victim: &Block, takes_over: bool) -> Killed {
    match victim.state() {
        State::Dead => return Killed::Dead,
        State::New => {
            unstarted::drop_unstarted(victim);
            return Killed::Dead;
        }
        State::Active | State::Busy => {}
    }
    #[cfg(feature = "std")]
    thread::refuse_while_inspecting();
    let current = thread::current();
    let end = victim.end_of_waits();
    let interrupts = ptr::eq(current, end);
    let end = if interrupts {
        top_of_stack(victim)
    } else {
        end
    };
    if let (false, Some(first_killer)) = (interrupts, victim.killer()) {
        if !takes_over {
            return Killed::InProgress;
        }
        // SAFETY: null only outside every greenlet, where no kill is in progress.
        hand_on(first_killer, unsafe { &*current });
    }
    tell_to_exit(victim, end);
    if ptr::eq(current, end) {
        thread::set_current(Some(end));
        return if ptr::eq(victim, end) {
            Killed::Itself
        } else {
            Killed::Beneath
        };
    }
    root::with_current(|killer| {
        if let (true, Some(spared)) = (interrupts, end.waits_for()) {
            // `end` stops waiting. Who it was killing goes on dying; whoever has been waiting
            // for the victim until now waits for that one, which ends later.
            let first_killer = victim.killer();
            spared.set_killer(first_killer);
            if let Some(first_killer) = first_killer {
                first_killer.wait_instead_for(spared);
            }
        }
        victim.set_killer(Some(killer));
        killer.begin_waiting_for(victim);
        // SAFETY: `killer` runs and now waits. `end` is being killed; it is suspended, or it
        // waits in a kill that nobody will answer any more.
        unsafe {
            if interrupts {
                message::hop_to_interrupt(killer, victim, end);
            } else {
                message::hop_to_kill(killer, victim, end);
            }
        }
    });
    if victim.state() == State::Dead {
        Killed::Dead
    } else {
        Killed::Interrupted
    }
}

/// Makes `first_killer`, whose victim `current` takes over, wait longer: for `current`, or for the
/// one that waits, in kills, for `current`. That one is being killed. It is never one that was
/// there before `first_killer` began to wait: those do not run meanwhile (`kill_in_progress.rs`).
fn hand_on(first_killer: &Block, current: &Block) {
    let last = current.last_waiter();
    tell_to_exit(last, current);
    last.set_killer(Some(first_killer));
    first_killer.wait_instead_for(last);
}

/// As [`kill`], for the end of an `enter`, which no member may outlive: takes the victim over from
/// whichever greenlet is killing it, and frees it if no handle to it is left, so the caller must not use the
/// argument afterwards.
pub(crate) fn end(victim: &Block) -> Killed {
    refcount::kept(victim, |victim| {
        let killed = kill_if(victim, true);
        if killed == Killed::Dead && victim.is_abandoned() {
            // SAFETY: without a strong count, and kept.
            unsafe { refcount::abandoned(victim) };
        }
        killed
    })
}

/// Tells `first` to exit, and all that it waits for as far as `last`.
fn tell_to_exit(first: &Block, last: &Block) {
    let mut next = Some(first);
    while let Some(told) = next {
        let top = top_of_stack(told);
        let asleep = top.state() == State::Active && !ptr::eq(thread::current(), top);
        told.tell_to_exit(asleep);
        next = told.waits_for().filter(|_| !ptr::eq(told, last));
    }
}

/// The innermost root on the stack of `block`, or `block` itself.
pub(crate) fn top_of_stack(block: &Block) -> &Block {
    let mut top = block;
    while let Some(next) = top.waits_for().filter(|next| next.is_root()) {
        top = next;
    }
    top
}

/// Which greenlet began the stack that `block` is on: of a root, the one in which it was entered.
#[cfg(feature = "std")]
pub(crate) fn bottom_of_stack(block: &Block) -> &Block {
    let mut bottom = block;
    while let Some(outer) = bottom.killer().filter(|_| bottom.is_root()) {
        bottom = outer;
    }
    bottom
}
