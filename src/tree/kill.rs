//! Killing a greenlet, whatever its state (rules s14 to s17).

use core::ptr;

use super::{Block, Content, State, message, refcount, root, switch, thread, waits::top_of_stack};
use crate::{Thrown, host};

/// The result of a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Killed {
    /// The greenlet is dead.
    Dead,
    /// The victim is the running greenlet: its next switch fails.
    Itself,
    /// The victim is being killed. The running greenlet is a root on its stack and is killed too.
    Beneath,
    /// Another greenlet is already killing the victim and waits for its end. Nothing was done.
    InProgress,
    /// The victim is being killed and has not finished. Meanwhile it killed the greenlet that waited
    /// for it, which therefore runs again.
    Interrupted,
}

/// Kills `victim`, whatever its state, and returns in the killer, whatever the victim's parent.
///
/// The caller holds the victim's block, and frees it afterwards if that is necessary.
///
/// A busy victim waits for another greenlet: a nested root on its stack, or one that it is killing. That
/// one must finish first, so the kill begins at the end of the chain of waits. If the chain ends at the
/// running greenlet, the victim's own kill is interrupted.
pub(crate) fn kill(victim: &Block) -> Killed {
    kill_if(victim, false)
}

/// As [`kill`]. With `takes_over` it also goes on if another greenlet is already killing the victim. That
/// greenlet then waits longer.
fn kill_if(victim: &Block, takes_over: bool) -> Killed {
    match victim.state() {
        State::Dead => return Killed::Dead,
        State::New => {
            drop_unstarted(victim);
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
        prolong_wait(first_killer, unsafe { &*current });
    }
    mark_killed(victim, end);
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
            // `end` stops waiting, and the greenlet that it was killing continues to end. The killer
            // that waited for the victim now waits for that one, which ends later.
            let first_killer = victim.killer();
            spared.set_killer(first_killer);
            if let Some(first_killer) = first_killer {
                first_killer.wait_instead_for(spared);
            }
        }
        victim.set_killer(Some(killer));
        killer.begin_waiting_for(victim);
        let content = if interrupts {
            message::NO_CONTENT
        } else {
            Content::Thrown(Thrown::exit())
        };
        // SAFETY: `killer` runs and now waits. `end` is being killed; it is suspended, or it
        // waits in a kill whose victim no longer returns to it.
        unsafe { switch::wait_in_kill(killer, victim, end, content) };
    });
    if victim.is_dead() {
        Killed::Dead
    } else {
        Killed::Interrupted
    }
}

/// Ends a new greenlet without running it: its body and its stack are dropped. A panic of a destructor
/// is discarded after the panic hook has run.
///
/// The caller holds the block: the body may own the last handle.
pub(super) fn drop_unstarted(block: &Block) {
    block.set_dead();
    // SAFETY: new until now, so the body is there, and it is dropped only here.
    host::contain(|| unsafe { (block.kind.drop_body)(block) });
    block.settings.stack.give_back();
}

/// Makes `first_killer`, whose victim `current` takes over, wait longer.
///
/// It waits for `current`, or for the last greenlet of the chain of kills that waits for `current`. That
/// greenlet is then killed. It is never one that existed before `first_killer` began to wait: those do
/// not run meanwhile (`kill_in_progress.rs`).
fn prolong_wait(first_killer: &Block, current: &Block) {
    let last = current.last_waiter();
    mark_killed(last, current);
    last.set_killer(Some(first_killer));
    first_killer.wait_instead_for(last);
}

/// Kills a member at the end of its `enter`, which no member may outlive.
///
/// It takes the victim over from a greenlet that is already killing it. It frees the block if no handle
/// is left, so the caller must not use the argument afterwards.
pub(crate) fn end(victim: &Block) -> Killed {
    refcount::with_weak_count(victim, |victim| {
        let killed = kill_if(victim, true);
        if killed == Killed::Dead && victim.is_abandoned() {
            // SAFETY: it has no strong count, and the weak one keeps it.
            unsafe { refcount::abandoned(victim) };
        }
        killed
    })
}

/// Marks `first` as killed, and each greenlet in its chain of waits up to `last`.
fn mark_killed(first: &Block, last: &Block) {
    let mut next = Some(first);
    while let Some(killed) = next {
        let top = top_of_stack(killed);
        let suspended = top.waits_for().is_none() && !ptr::eq(thread::current(), top);
        killed.mark_killed(suspended);
        next = killed.waits_for().filter(|_| !ptr::eq(killed, last));
    }
}
