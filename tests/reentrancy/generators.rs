//! Generators, and the slots in which everybody reaches them.

use std::{cell::RefCell, mem};

use greenlet::{Generator, Thrown};

use crate::{
    payloads::{A, B, Local, Message},
    program::{AtDrop, GENERATOR_SLOTS},
    world,
};

/// One of `'static`, or one that its frame keeps, which ends before its `enter`.
pub enum Resumable {
    OfA(Generator<'static, A, B>),
    OfB(Generator<'static, B, A>),
}

impl Resumable {
    /// With an `input` that does that when it is dropped. `None` if it has finished.
    pub fn resume(&mut self, input: AtDrop) -> Result<Option<Local>, Thrown> {
        fn resume<T: Message, I: Message>(
            generator: &mut Generator<'_, T, I>,
            input: AtDrop,
        ) -> Result<Option<Local>, Thrown> {
            let item = generator.resume(I::new(input))?;
            Ok(item.map(|item| {
                item.check();
                world::saw("an item");
                item.local()
            }))
        }
        match self {
            Self::OfA(generator) => resume(generator, input),
            Self::OfB(generator) => resume(generator, input),
        }
    }
}

/// A generator that is to be kept longer than the types allow.
pub fn forever<'e, T: 'static, I: 'static>(
    generator: Generator<'e, T, I>,
) -> Generator<'static, T, I> {
    // SAFETY: the two types differ in a lifetime only. Its `enter` ends nothing, or it is a local of a
    // frame in that `enter`.
    unsafe { mem::transmute::<Generator<'e, T, I>, _>(generator) }
}

thread_local! {
    static GENERATORS: RefCell<[Option<Resumable>; GENERATOR_SLOTS]> = RefCell::default();
}

/// Exchanges what is in a slot. Where the thread has dropped its slots, nothing is.
fn replace(slot: u8, generator: Option<Resumable>) -> Option<Resumable> {
    let mut generator = Some(generator);
    let before = GENERATORS.try_with(|slots| {
        let slot = &mut slots.borrow_mut()[usize::from(slot) % GENERATOR_SLOTS];
        mem::replace(slot, generator.take()?)
    });
    before.ok().flatten()
}

/// Puts a generator into a slot; what lay there is dropped.
pub fn put(slot: u8, generator: Resumable) {
    drop(replace(slot, Some(generator)));
}

/// While it is resumed nobody else finds it.
pub fn take(slot: u8) -> Option<Resumable> {
    replace(slot, None)
}

/// Empties all slots, each when it is its turn.
pub fn drop_all() {
    for slot in 0..GENERATOR_SLOTS {
        drop(take(slot.try_into().expect("there are few")));
    }
}
