//! What a message between two greenlets holds, and how its content is put in and taken out.
//!
//! A value of a word or less travels in a register. A larger value stays where it is, on the stack of
//! the suspended sender or in the block of a dead one, and its address travels. Either way the receiver
//! moves it out before other code can run (rule s10).

use alloc::boxed::Box;
use core::{
    marker::PhantomData,
    mem::{ManuallyDrop, MaybeUninit},
    ptr,
};

#[cfg(thread_words)]
use static_assertions::const_assert_eq;

#[cfg(thread_words)]
use crate::arch;
use crate::{Thrown, arch::Message, host};

/// The bits of `Message::kind` that say what `word` is. A plain value is zero, so that the receiver's
/// usual case is one comparison.
const CONTENT: usize = 0b0011;
pub(super) const VALUE: usize = 0b0000;
const THROWN: usize = 0b0001;
const PANIC: usize = 0b0010;
/// The message has no content: it tells a killer that its victim has died.
const NOTHING: usize = 0b0011;
/// A flag in `Message::kind`: the sender has died. The receiver releases its stack, and frees it if no
/// handle is left.
pub(super) const DIED: usize = 0b0100;
/// A flag in `Message::kind`: no handle to the sender is left. The receiver kills it.
pub(super) const ORPHANED: usize = 0b1000;
/// A flag in `Message::kind`: the thread has a tracer. The receiver calls it.
pub(super) const TRACED: usize = 0b1_0000;
/// The `Message::kind` of a message that was not sent. (`HOP_REFUSED` in `asm/x86_64.S`.)
pub(super) const REFUSED: usize = 0b100_0000;
/// The `Message::kind` of a message that was not sent because the thread unwinds.
pub(super) const REFUSED_IN_UNWINDING: usize = 0b1100_0000;

#[cfg(thread_words)]
const_assert_eq!(REFUSED, arch::core_layout::REFUSED);

/// The content of a message.
pub(crate) enum Content<T> {
    Value(T),
    Thrown(Thrown),
    /// In a box of its own, so that a word leads to it. It is made before a receiver is searched: the allocator may
    /// inspect or enter.
    Panic(Box<host::Panic>),
}

/// Returns `true` if a `T` travels in the register itself.
const fn fits_a_word<T>() -> bool {
    size_of::<T>() <= size_of::<usize>()
}

/// Returns a message with `value`. The value stays where it is until the receiver takes it, and belongs
/// to the receiver from then on.
#[inline(always)]
pub(crate) fn of_value<T>(value: &ManuallyDrop<T>) -> Message {
    let mut word = MaybeUninit::uninit();
    if const { fits_a_word::<T>() } {
        // As bytes: a T of no size may be aligned to more than a word.
        let bytes = ptr::from_ref(value).cast::<u8>();
        // SAFETY: `word` has room for a T. The original is never used again, as it is a `ManuallyDrop`.
        unsafe { bytes.copy_to_nonoverlapping((&raw mut word).cast(), size_of::<T>()) };
    } else {
        word.write(ptr::from_ref(value).expose_provenance());
    }
    Message { word, kind: VALUE }
}

/// Takes the value out of a message.
///
/// # Safety
/// The message was made by [`of_value`] with a value of this type. The value lies where it lay then and
/// has not been taken.
#[inline(always)]
pub(crate) unsafe fn take_value<T>(message: Message) -> T {
    let word = message.word;
    if const { fits_a_word::<T>() } {
        // SAFETY: the first bytes of `word` are a T (contract).
        unsafe { (&raw const word).cast::<T>().read_unaligned() }
    } else {
        // SAFETY: `word` is the address of a T that is not used after this (contract).
        unsafe { ptr::with_exposed_provenance::<T>(word.assume_init()).read() }
    }
}

/// A message that is not sent yet. Dropping it drops the value, so that none is lost if something
/// unwinds before it is sent. The value is never moved, which would make a copy of what may be large.
pub(crate) struct Unsent<M>(Message, PhantomData<M>);

impl<M> Unsent<M> {
    /// # Safety
    /// As for [`take_value`], when this is dropped.
    pub(crate) unsafe fn new(message: Message) -> Self {
        Self(message, PhantomData)
    }
}

impl<M> Drop for Unsent<M> {
    fn drop(&mut self) {
        // SAFETY: `new`'s contract, and nobody takes it after this.
        drop(unsafe { take_value::<M>(self.0) });
    }
}

/// Returns a message with an error.
pub(crate) fn of_thrown(thrown: Thrown) -> Message {
    Message {
        word: MaybeUninit::new(thrown.into_raw().expose_provenance()),
        kind: THROWN,
    }
}

/// Takes the error out of a message.
///
/// # Safety
/// The message was made by [`of_thrown`]; its `kind` may have flags since. The error has not been taken.
#[inline(always)]
pub(crate) unsafe fn take_thrown(message: Message) -> Thrown {
    // SAFETY: the word is an error's raw pointer, and is taken once (contract).
    unsafe { Thrown::from_raw(ptr::with_exposed_provenance_mut(message.word.assume_init())) }
}

/// Returns a message with the payload of a panic.
fn of_panic(payload: Box<host::Panic>) -> Message {
    Message {
        word: MaybeUninit::new(Box::into_raw(payload).expose_provenance()),
        kind: PANIC,
    }
}

/// Takes the payload of a panic out of a message.
///
/// # Safety
/// The message was made by [`of_panic`]; its `kind` may have flags since. The payload has not been
/// taken.
unsafe fn take_panic(message: Message) -> Box<host::Panic> {
    // SAFETY: the word is a box's raw pointer, and is taken once (contract).
    unsafe { Box::from_raw(ptr::with_exposed_provenance_mut(message.word.assume_init())) }
}

/// Returns a message with any content. A value is in a message already.
pub(super) fn of_content(content: Content<Message>) -> Message {
    match content {
        Content::Value(message) => message,
        Content::Thrown(thrown) => of_thrown(thrown),
        Content::Panic(payload) => of_panic(payload),
    }
}

/// Takes the content out of a message.
///
/// # Safety
/// The message has content, and a value is a `T`. Otherwise as for [`take_value`].
pub(super) unsafe fn take_content<T>(message: Message) -> Content<T> {
    // SAFETY: the kind says which function has made the message; the rest is the contract.
    unsafe {
        match message.kind & CONTENT {
            VALUE => Content::Value(take_value(message)),
            THROWN => Content::Thrown(take_thrown(message)),
            PANIC => Content::Panic(take_panic(message)),
            _ => unreachable!("only a killer receives nothing"),
        }
    }
}

/// Returns `true` if the message is a value or an error and has no flags, so that
/// [`open_settled`] takes it.
#[inline(always)]
pub(super) fn is_settled(message: Message) -> bool {
    matches!(message.kind, VALUE | THROWN)
}

/// Returns `true` if a message of this kind arrives as an error or a panic.
pub(super) fn is_thrown(kind: usize) -> bool {
    matches!(kind & CONTENT, THROWN | PANIC)
}

/// Takes the content out of a [settled](super::settle_arrival) message.
///
/// # Safety
/// The message is settled, and a value is an `I`. Otherwise as for [`take_value`].
#[inline(always)]
pub(crate) unsafe fn open_settled<I>(message: Message) -> Result<I, Thrown> {
    // SAFETY: settled, so it is a value of this type or an error (contract).
    unsafe {
        if message.kind == VALUE {
            Ok(take_value(message))
        } else {
            Err(take_thrown(message))
        }
    }
}

pub(super) const NOTHING_SENT: Message = Message {
    word: MaybeUninit::uninit(),
    kind: NOTHING,
};

/// What a killed greenlet sends to its killer when it has died: nothing.
pub(super) const NO_CONTENT: Content<Message> = Content::Value(NOTHING_SENT);
