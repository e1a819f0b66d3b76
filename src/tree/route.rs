//! Who receives: the target itself, or a live ancestor in its place (rules s7, s9, s12); and
//! who may send (rules s15, s19).

use core::any::TypeId;
use std::{panic, thread::panicking};

use super::{Block, block::State, kill};
use crate::{StackError, stack::pool, thread};

/// Why nothing was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    /// The sender is not the one that runs.
    NotCurrent,
    /// The sender is told to exit.
    Exiting,
    /// The thread is unwinding a panic.
    Unwinding,
    /// The target is dead and no live ancestor takes its messages.
    Dead,
    /// The receiver waits for another to be over.
    Busy,
    /// The receiver could not be started.
    Stack(StackError),
}

/// What is to be delivered, as far as it decides who can receive it.
#[derive(Clone, Copy)]
pub(crate) enum Delivery {
    /// A value. The first receiver in question takes its type; another one does if the type
    /// has this identity.
    Value(Option<TypeId>),
    /// An error or a panic, which every greenlet takes.
    Thrown,
}

/// How many refused switches of an exiting greenlet the crate answers before it concludes
/// that the greenlet will never end (rule s15).
const MAX_REFUSALS: u32 = 1000;

/// The payload that unwinds a greenlet which goes on switching after it was told to exit.
pub(crate) struct ExitUnwind;

/// May `me` send?
///
/// # Panics
/// Unwinds with [`ExitUnwind`] from the second refusal on when `me` is told to exit.
pub(crate) fn admit(me: &Block) -> Result<(), Refusal> {
    if !core::ptr::eq(thread::current(), me) {
        return Err(Refusal::NotCurrent);
    }
    if me.is_exiting() {
        let refusals = me.count_refusal();
        if refusals > MAX_REFUSALS {
            kill::give_up(me);
        }
        if refusals > 1 && !panicking() {
            if cfg!(panic = "abort") {
                kill::give_up(me);
            }
            panic::resume_unwind(Box::new(ExitUnwind));
        }
        return Err(Refusal::Exiting);
    }
    if panicking() {
        return Err(Refusal::Unwinding);
    }
    Ok(())
}

/// Who receives a delivery to `first`. A new greenlet that is to receive a value is started;
/// one that is to receive an error dies instead (rule s12) and its parent is next. A refusal
/// comes with the greenlet at which the search ended.
pub(crate) fn receiver(first: &Block, delivery: Delivery) -> Result<&Block, (Refusal, &Block)> {
    let mut block = first;
    loop {
        let takes = match delivery {
            Delivery::Thrown => true,
            Delivery::Value(identity) => {
                core::ptr::eq(block, first)
                    || (identity.is_some() && identity == (block.kind().inbox)())
            }
        };
        match (block.state(), delivery) {
            (State::Busy, _) => return Err((Refusal::Busy, block)),
            (State::Active, _) if takes => return Ok(block),
            (State::New, Delivery::Value(_)) if takes => {
                let settings = block.settings();
                let stack = pool::acquire(settings.stack_size, settings.guard_size)
                    .map_err(|error| (Refusal::Stack(error), block))?;
                block.start_on(stack);
                return Ok(block);
            }
            (State::New, Delivery::Thrown) => kill::bury(block),
            (State::New | State::Active, _) => return Err((Refusal::Dead, block)),
            (State::Dead, _) => block = ancestor(block).ok_or((Refusal::Dead, block))?,
        }
    }
}

/// The parent, or for a root that is over the thread's main greenlet.
pub(crate) fn ancestor(block: &Block) -> Option<&Block> {
    // SAFETY: null, or a root that lives while anything runs on its thread's stack.
    block
        .parent()
        .or_else(|| unsafe { thread::main().as_ref() })
}
