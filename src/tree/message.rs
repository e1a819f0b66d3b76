//! What travels in a switch, and how it is taken out on arrival.
//!
//! A value of a word or less travels in a register; a larger one stays on the stack of the
//! sender, which is suspended, or in the block of the one that died, and its address travels.
//! Either way the receiver moves it out before anything else can run (rule s10).

use core::{
    any::Any,
    mem::{self, ManuallyDrop, MaybeUninit},
    ptr,
};
use std::panic;

use super::{
    Block,
    block::{self, State},
    kill,
};
use crate::{
    Thrown,
    arch::Message,
    stack::pool,
    thread,
};

/// `Message::kind`: what `word` is. A plain value is zero, so that the receiver's usual case
/// is one comparison.
const CONTENT: usize = 0b0011;
const VALUE: usize = 0b0000;
const THROWN: usize = 0b0001;
const PANIC: usize = 0b0010;
/// Nothing: the death of one that was killed.
const NOTHING: usize = 0b0011;
/// `Message::kind`: the one that left has died; its stack is to be released.
const DIED: usize = 0b0100;
/// `Message::kind`: nobody holds the one that left; it is to be killed.
const ORPHANED: usize = 0b1000;

/// What a switch delivers.
pub(crate) enum Content<T> {
    Value(T),
    Thrown(Thrown),
    Panic(Box<dyn Any + Send>),
}

impl<T> Content<T> {
    /// What the receiver's switch returns.
    pub(crate) fn receive(self) -> Result<T, Thrown> {
        match self {
            Self::Value(value) => Ok(value),
            Self::Thrown(thrown) => Err(thrown),
            Self::Panic(payload) => panic::resume_unwind(payload),
        }
    }
}

/// Does a `T` travel in the register itself?
const fn fits_a_word<T>() -> bool {
    size_of::<T>() <= size_of::<usize>()
}

/// The message that carries `value`, which stays where it is until the receiver, to whom it
/// belongs from then on, takes it.
#[inline(always)]
pub(super) fn of_value<T>(value: &ManuallyDrop<T>) -> Message {
    let mut word = MaybeUninit::uninit();
    if const { fits_a_word::<T>() } {
        // SAFETY: `word` has room for a T; the copy is the one that will be used.
        unsafe { ptr::from_ref(value).copy_to_nonoverlapping((&raw mut word).cast(), 1) };
    } else {
        word.write(ptr::from_ref(value).expose_provenance());
    }
    Message { word, kind: VALUE }
}

/// Takes the value out of a message.
///
/// # Safety
/// The message was made by [`of_value`] with this very type; the value has not been taken yet
/// and lies where it lay.
#[inline(always)]
unsafe fn take_value<T>(word: MaybeUninit<usize>) -> T {
    if const { fits_a_word::<T>() } {
        // SAFETY: the first bytes of `word` are a T (contract).
        unsafe { (&raw const word).cast::<T>().read_unaligned() }
    } else {
        // SAFETY: `word` is the address of a T that nobody else will use (contract).
        unsafe { ptr::with_exposed_provenance::<T>(word.assume_init()).read() }
    }
}

fn of_panic(payload: Box<dyn Any + Send>) -> Message {
    let thin = Box::into_raw(Box::new(payload));
    Message { word: MaybeUninit::new(thin.expose_provenance()), kind: PANIC }
}

fn of_thrown(thrown: Thrown) -> Message {
    Message { word: MaybeUninit::new(thrown.into_raw().expose_provenance()), kind: THROWN }
}

/// The message of a greenlet that dies and has left its outcome in `content`; a value lies in
/// its block.
pub(super) fn of_outcome(content: Content<Message>) -> Message {
    let mut message = match content {
        Content::Value(message) => message,
        Content::Thrown(thrown) => of_thrown(thrown),
        Content::Panic(payload) => of_panic(payload),
    };
    message.kind |= DIED;
    message
}

/// The message of a greenlet that dies for somebody who killed it.
pub(super) const KILLED: Message = Message { word: MaybeUninit::uninit(), kind: NOTHING | DIED };

/// Switches from the running `me` to the suspended `target` with a value, and returns what
/// `me` is resumed with.
///
/// # Safety
/// `me` is running, nothing is to be told to it, and its inbox type is `I`. `target` is
/// suspended or ready to start, and its inbox type is `J`.
#[inline(always)]
pub(crate) unsafe fn hop<I, J>(me: &Block, target: &Block, value: J) -> Result<I, Thrown> {
    let value = ManuallyDrop::new(value);
    thread::set_current_undisturbed(target);
    // SAFETY: who runs and who is suspended is the caller's word.
    let message = unsafe { me.context().switch(target.context(), of_value(&value)) };
    // SAFETY: it has just arrived, and whoever resumes `me` sends its inbox type, which is I.
    unsafe { open(message) }
}

/// What a switch returns for the message that it was resumed with, or a body begins with.
///
/// # Safety
/// The message has just arrived, in a greenlet whose inbox type is `I`.
#[inline(always)]
pub(super) unsafe fn open<I>(message: Message) -> Result<I, Thrown> {
    if message.kind == VALUE {
        // SAFETY: a value in a message to this greenlet is of its inbox type (contract).
        Ok(unsafe { take_value(message.word) })
    } else {
        // SAFETY: the same contract.
        unsafe { arrive::<I>(message) }.receive()
    }
}

/// As [`hop`], for any content and also when something is to be told to the one that leaves.
///
/// # Safety
/// As for [`hop`], but `me` may have been abandoned.
pub(crate) unsafe fn hop_with<I, J>(me: &Block, target: &Block, content: Content<J>) -> Content<I> {
    let slot;
    let mut message = match content {
        Content::Value(value) => {
            slot = ManuallyDrop::new(value);
            of_value(&slot)
        }
        Content::Thrown(thrown) => of_thrown(thrown),
        Content::Panic(payload) => of_panic(payload),
    };
    if me.is_abandoned() {
        thread::set_departed(me);
        message.kind |= ORPHANED;
    }
    thread::set_current(Some(target));
    // SAFETY: who runs and who is suspended is the caller's word.
    unsafe { arrive(me.context().switch(target.context(), message)) }
}

/// Switches from `killer` to `end`, which is told to exit, and returns when somebody dies for
/// the killer.
///
/// # Safety
/// `killer` runs and is busy; `end` is suspended and told to exit.
pub(super) unsafe fn hop_to_kill(killer: &Block, end: &Block) {
    thread::set_current(Some(end));
    let message = of_thrown(Thrown::exit());
    // SAFETY: who runs and who is suspended is the caller's word.
    let message = unsafe { killer.context().switch(end.context(), message) };
    debug_assert_eq!(message.kind, KILLED.kind, "only a death resumes a killer");
    killer.end_waiting();
    settle(message.kind);
}

/// Takes a message out, in the greenlet that it reached, and then sees to the one that left.
///
/// # Safety
/// The message has just arrived, in a greenlet whose inbox type is `I`.
#[cold]
pub(super) unsafe fn arrive<I>(message: Message) -> Content<I> {
    let Message { word, kind } = message;
    let content = match kind & CONTENT {
        // SAFETY: a value in a message to this greenlet is of its inbox type.
        VALUE => Content::Value(unsafe { take_value(word) }),
        THROWN => {
            // SAFETY: made by `of_thrown`, and taken here once.
            Content::Thrown(unsafe {
                Thrown::from_raw(ptr::with_exposed_provenance_mut(word.assume_init()))
            })
        }
        PANIC => {
            // SAFETY: made by `of_panic`, and taken here once.
            Content::Panic(*unsafe {
                Box::<Box<dyn Any + Send>>::from_raw(ptr::with_exposed_provenance_mut(
                    word.assume_init(),
                ))
            })
        }
        _ => unreachable!("only a killer receives nothing"),
    };
    settle(kind);
    content
}

/// Sees to the one that left: buries the dead, kills the abandoned.
fn settle(kind: usize) {
    if kind & (DIED | ORPHANED) == 0 {
        return;
    }
    let departed = thread::take_departed();
    // SAFETY: set by the one that left, just now; nothing has run that could have freed it.
    let block = unsafe { &*departed };
    if kind & DIED != 0 {
        debug_assert_eq!(block.state(), State::Dead);
        if let Some(stack) = block.take_stack() {
            pool::release(stack);
        }
        if block.is_abandoned() {
            // SAFETY: dead, without a strong count, and never freed before: the strong side's
            // weak count is still there.
            unsafe { block::abandoned(departed) };
        }
    } else {
        let _ = kill::kill(block);
    }
}

/// Turns a value of one type into the same value of what is the same type.
///
/// # Safety
/// `A` and `B` are the same type.
pub(crate) unsafe fn same_type<A, B>(value: A) -> B {
    let value = ManuallyDrop::new(value);
    // SAFETY: the same type (contract), and the original is not used again.
    unsafe { mem::transmute_copy(&*value) }
}
