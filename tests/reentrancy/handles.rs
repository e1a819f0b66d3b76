//! Handles, and the slots in which everybody reaches them.

use std::cell::RefCell;

use greenlet::{Current, Greenlet, KillError, ParentError, WeakGreenlet};

use crate::{
    payloads::{A, B},
    program::SLOTS,
    world,
};

#[derive(Clone)]
pub enum Handle {
    A(Greenlet<A>),
    B(Greenlet<B>),
}

#[derive(Clone)]
pub enum Weak {
    A(WeakGreenlet<A>),
    B(WeakGreenlet<B>),
}

#[macro_export]
macro_rules! either {
    ($handle:expr, $greenlet:ident => $use:expr) => {
        match $handle {
            $crate::handles::Handle::A($greenlet) => $use,
            $crate::handles::Handle::B($greenlet) => $use,
        }
    };
}

impl Handle {
    pub fn kill<I>(&self, me: &Current<I>) -> Result<(), KillError> {
        either!(self, greenlet => me.kill(greenlet))
    }

    pub fn set_parent(&self, parent: &Self) -> Result<(), ParentError> {
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
            Self::A(weak) => Handle::A(weak.upgrade()?),
            Self::B(weak) => Handle::B(weak.upgrade()?),
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
    with_slots(|slots| std::mem::swap(&mut slots[usize::from(slot) % SLOTS], &mut handle));
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
