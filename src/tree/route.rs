//! Who receives: the target itself, or a live ancestor in its place (rules s7, s9, s12); and
//! who may send (rules s15, s19).

use core::any::TypeId;

use super::{Block, Refusal, block::State, kill_in_progress, refcount, thread, unstarted};
use crate::host;

/// What is to be delivered, as far as it decides who can receive it.
#[derive(Clone, Copy)]
pub(crate) enum Delivery {
    /// A value. The first receiver in question takes its type; another one does if its inbox
    /// type has the same identity as this.
    Value(fn() -> Option<TypeId>),
    /// An error or a panic, which every greenlet takes.
    Thrown,
}

/// How many refused switches of an exiting greenlet the crate answers before it concludes
/// that the greenlet will never end (rule s15).
const MAX_REFUSALS: u32 = 1000;

/// May `me` send?
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
            give_up(me);
        }
        if refusals > 1 && !me.unwinds() {
            if !host::counts_panics() {
                host::abort(format_args!(
                    "{me:?} was killed in a panic hook, but goes on switching"
                ));
            }
            me.set_unwound();
            if !host::unwind_to_exit() {
                give_up(me);
            }
        }
        return Err(Refusal::Exiting);
    }
    if host::is_unwinding() {
        return Err(Refusal::Unwinding);
    }
    Ok(())
}

/// The end of a greenlet that does not end: rule s15 leaves no other.
#[cold]
fn give_up(block: &Block) -> ! {
    host::abort(format_args!(
        "{block:?} was killed, but goes on switching and cannot be unwound"
    ))
}

/// Who receives a delivery to `first`. A new greenlet that is to receive a value is started;
/// one that is to receive an error dies instead (rule s12) and its parent is next. A refusal
/// comes with the greenlet at which the search ended.
pub(crate) fn receiver(first: &Block, delivery: Delivery) -> Result<&Block, (Refusal, &Block)> {
    let mut block = first;
    loop {
        match block.state() {
            State::Dead => {
                block = ancestor(block).ok_or((Refusal::Dead, block))?;
                let Delivery::Value(identity) = delivery else {
                    continue;
                };
                let lives = block.state() != State::Dead;
                let identity = identity();
                if lives && (identity.is_none() || identity != (block.kind().inbox)()) {
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
                    // What its body owns may be all that holds it: it may be gone after this.
                    let next = refcount::kept(block, |block| {
                        unstarted::drop_unstarted(block);
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

/// The parent. For a dead root that a closure had inside an `enter`, the root of that `enter`; for
/// any other dead root, the thread's main greenlet. Never one outside the `enter` of `block`: there
/// the stack may have frames of a thread-local's initializer, and code without a handle must
/// not leave those (`root.rs`).
pub(crate) fn ancestor(block: &Block) -> Option<&Block> {
    block.parent().or_else(|| {
        // SAFETY: null, or a registry whose `enter` has not ended: one that is alive, or has a handle
        // or child in it, leads here. Its root lives as long. The thread's main is null, or a
        // root that lives while anything runs on the thread's stack.
        unsafe {
            match block.home().as_ref() {
                Some(home) => home.root().as_ref(),
                None => thread::main().as_ref(),
            }
        }
    })
}
