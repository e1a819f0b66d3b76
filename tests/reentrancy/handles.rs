//! Handles, and the slots in which everybody reaches them.

use std::{cell::RefCell, mem};

use greenlet::{Current, Greenlet, GreenletExit, KillError, ParentError, WeakGreenlet};

use crate::{
    payloads::{A, B},
    program::SLOTS,
    world,
};

/// The name of the greenlets of generators.
pub const GENERATOR: &str = "a generator";

/// With the number of the `enter` that ends the greenlet, or 0.
#[derive(Clone)]
pub enum Handle {
    A(Greenlet<'static, A>, u64),
    B(Greenlet<'static, B>, u64),
}

#[derive(Clone)]
pub enum Weak {
    A(WeakGreenlet<'static, A>, u64),
    B(WeakGreenlet<'static, B>, u64),
}

/// A handle that stays when its `enter` has ended.
pub fn forever<'e, I: 'static>(greenlet: Greenlet<'e, I>) -> Greenlet<'static, I> {
    // SAFETY: the two types differ in a lifetime only. The greenlet is dead when that finishes,
    // and `set_parent` has none of another `enter`.
    unsafe { mem::transmute::<Greenlet<'e, I>, _>(greenlet) }
}

#[macro_export]
macro_rules! either {
    ($handle:expr, $greenlet:ident => $use:expr) => {
        match $handle {
            $crate::handles::Handle::A($greenlet, _) => $use,
            $crate::handles::Handle::B($greenlet, _) => $use,
        }
    };
}

impl Handle {
    pub fn kill<I>(&self, me: &Current<I>) -> Result<(), KillError> {
        either!(self, greenlet => me.kill(greenlet))
    }

    /// Returns `true` for the greenlet of a generator's function. If another than its consumer kills it, the consumer
    /// waits for ever (`Yielder`'s documentation), and a root that waits can be reached by nothing.
    pub fn is_generator(&self) -> bool {
        either!(self, greenlet => greenlet.name() == Some(GENERATOR))
    }

    /// Throws an exit at it, and returns whether that was not refused.
    pub fn exit<I>(&self, me: &Current<I>) -> bool {
        either!(self, greenlet => me.try_throw(greenlet, GreenletExit).is_ok())
    }

    fn place(&self) -> u64 {
        match *self {
            Self::A(_, place) | Self::B(_, place) => place,
        }
    }

    pub fn downgrade(&self) -> Weak {
        match self {
            Self::A(greenlet, place) => Weak::A(greenlet.downgrade(), *place),
            Self::B(greenlet, place) => Weak::B(greenlet.downgrade(), *place),
        }
    }

    pub fn set_parent(&self, parent: &Self) -> Result<(), ParentError> {
        if self.place() != parent.place() {
            return Err(ParentError::WrongType);
        }
        either!(self, child => either!(parent, parent => child.set_parent(parent)))
    }

    /// Looks at it in each way that there is.
    pub fn look(&self) {
        either!(self, greenlet => {
            let _ = (greenlet.backtrace(), greenlet.stack_usage(), format!("{greenlet:?}"));
        });
    }
}

impl Weak {
    pub fn upgrade(&self) -> Option<Handle> {
        Some(match self {
            Self::A(weak, place) => Handle::A(weak.upgrade()?, *place),
            Self::B(weak, place) => Handle::B(weak.upgrade()?, *place),
        })
    }
}

thread_local! {
    static HANDLES: RefCell<[Option<Handle>; SLOTS]> = RefCell::default();
}

/// Makes the slots, so that they are dropped before what is made earlier.
pub fn make_slots() {
    HANDLES.with(|_| ());
}

/// Where the thread has dropped its slots there are none.
fn with_slots<R>(use_them: impl FnOnce(&mut [Option<Handle>; SLOTS]) -> R) -> Option<R> {
    HANDLES
        .try_with(|slots| use_them(&mut slots.borrow_mut()))
        .ok()
}

/// Puts a handle into a slot; what lay there is dropped.
pub fn put(slot: u8, handle: Handle) {
    let mut handle = Some(handle);
    with_slots(|slots| mem::swap(&mut slots[usize::from(slot) % SLOTS], &mut handle));
    drop(handle);
}

fn nth_occupied(slots: &mut [Option<Handle>], index: u8) -> Option<&mut Option<Handle>> {
    let occupied = slots.iter().filter(|slot| slot.is_some()).count();
    let nth = usize::from(index).checked_rem(occupied)?;
    slots.iter_mut().filter(|slot| slot.is_some()).nth(nth)
}

pub fn pick(index: u8) -> Option<Handle> {
    with_slots(|slots| nth_occupied(slots, index)?.clone())?
}

pub fn take(index: u8) -> Option<Handle> {
    with_slots(|slots| nth_occupied(slots, index)?.take())?
}

/// Empties all slots, each when it is its turn.
pub fn take_all() -> impl Iterator<Item = Handle> {
    (0..SLOTS).filter_map(|slot| with_slots(|slots| slots[slot].take())?)
}

/// A handle by way of a weak one.
pub fn upgrade(which: u8) -> Option<Handle> {
    world::registered(which)?.upgrade()
}
