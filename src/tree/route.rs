//! Which greenlet receives a message: the target, or a live ancestor in its place (rules s7, s9, s12).
//! Which greenlet may send one (rules s15, s19).

use core::any::TypeId;

use super::{Block, Refusal, State, kill, kill_in_progress, refcount, thread};
use crate::host;

/// What kind of message is delivered: that decides which greenlets can receive it.
#[derive(Clone, Copy)]
pub(crate) enum Delivery {
    /// A value. The target has its type; an ancestor receives it if its inbox type has this identity.
    Value(fn() -> Option<TypeId>),
    /// An error or a panic, which every greenlet takes.
    Thrown,
}

/// After how many refused switches of a killed greenlet the crate aborts (rule s15).
const MAX_REFUSALS: u16 = 1000;

/// Checks that `me` may send.
///
/// # Panics
/// Unwinds ([`host::unwind_to_exit`]) from the second refusal on when `me` is being killed.
pub(crate) fn admit(me: &Block) -> Result<(), Refusal> {
    if !core::ptr::eq(thread::current(), me) {
        return Err(Refusal::NotCurrent);
    }
    if me.is_exiting() {
        let refusals = me.count_refusal();
        if refusals > MAX_REFUSALS {
            abort_unending(me);
        }
        if refusals > 1 && !me.unwinds() {
            unwind(me);
        }
        return Err(Refusal::Exiting);
    }
    if host::is_unwinding() {
        return Err(Refusal::Unwinding);
    }
    Ok(())
}

/// Unwinds the stack of `me`, which runs and is being killed. Aborts where that is impossible.
#[cold]
pub(crate) fn unwind(me: &Block) -> ! {
    if !host::counts_panics() {
        host::abort(format_args!(
            "{me:?} was killed in a panic hook, but goes on switching"
        ));
    }
    me.set_unwound();
    // It returns where panics abort.
    host::unwind_to_exit();
    abort_unending(me)
}

/// Aborts because a killed greenlet does not end (rule s15).
#[cold]
fn abort_unending(block: &Block) -> ! {
    host::abort(format_args!(
        "{block:?} was killed, but goes on switching and cannot be unwound"
    ))
}

/// Returns the greenlet that receives a delivery to `first`.
///
/// A new greenlet is started for a value. For an error it dies instead (rule s12), and the search goes
/// on with its parent. A refusal is returned with the greenlet at which the search ended.
pub(crate) fn receiver(first: &Block, delivery: Delivery) -> Result<&Block, (Refusal, &Block)> {
    let mut block = first;
    loop {
        match block.state() {
            State::Dead => {
                block = ancestor(block).ok_or((Refusal::Dead, block))?;
                let Delivery::Value(identity) = delivery else {
                    continue;
                };
                let lives = !block.is_dead();
                let identity = identity();
                if lives && (identity.is_none() || identity != (block.kind.inbox)()) {
                    return Err((Refusal::Dead, block));
                }
            }
            State::Busy => return Err((Refusal::Busy, block)),
            State::Active | State::New if kill_in_progress::is_blocked(block) => {
                return Err((Refusal::Busy, block));
            }
            State::Active => return Ok(block),
            State::New => match delivery {
                Delivery::Value(_) => {
                    return match block.start() {
                        Ok(()) => Ok(block),
                        Err(error) => Err((Refusal::Stack(error), block)),
                    };
                }
                Delivery::Thrown => {
                    // Its body may own the last handle to it, so the block may be freed by this.
                    let next = refcount::with_weak_count(block, |block| {
                        kill::drop_unstarted(block);
                        ancestor(block)
                    });
                    let Some(next) = next else {
                        unreachable!("whoever throws runs, so the thread has a main greenlet");
                    };
                    block = next;
                }
            },
        }
    }
}

/// Returns the parent, or for a dead root without one the root of the `enter` that it was in, or else
/// the thread's main greenlet.
///
/// It is never outside the `enter` of `block`. Outside, the stack may have frames of a thread-local's
/// initializer, and code without a handle must not leave those (`handles/root.rs`).
pub(crate) fn ancestor(block: &Block) -> Option<&Block> {
    block.parent().or_else(|| {
        // SAFETY: null, or a registry whose `enter` has not ended: one that is alive, or has a handle
        // or child in it, leads here. Its root lives as long. The thread's main is null, or a
        // root that lives while anything runs on the thread's stack.
        unsafe {
            match block.home().as_ref() {
                Some(home) => home.root.as_ref(),
                None => thread::main().as_ref(),
            }
        }
    })
}
