//! A value with several owners, after [`Rc`](std::rc::Rc): making one that finds no memory is an
//! error, where that would abort.

use core::{cell::Cell, ops::Deref, ptr::NonNull};
use std::alloc::{Layout, alloc};

use super::StackError;

/// # Invariants
/// It points to a `Counted` that was boxed, of which `owners` is how many `Shared` point there.
pub(super) struct Shared<T>(NonNull<Counted<T>>);

struct Counted<T> {
    owners: Cell<usize>,
    value: T,
}

impl<T> Shared<T> {
    pub(super) fn new(value: T) -> Result<Self, StackError> {
        // SAFETY: it contains a count, so it is not of size zero.
        let memory = unsafe { alloc(Layout::new::<Counted<T>>()) };
        let counted = NonNull::new(memory.cast()).ok_or(StackError::OutOfMemory)?;
        // SAFETY: of the layout of what is written there, and nobody else's.
        unsafe {
            counted.write(Counted {
                owners: Cell::new(1),
                value,
            });
        }
        Ok(Self(counted))
    }

    fn counted(&self) -> &Counted<T> {
        // SAFETY: it is there while this points to it (invariant).
        unsafe { self.0.as_ref() }
    }
}

impl<T> Clone for Shared<T> {
    #[inline]
    fn clone(&self) -> Self {
        // An owner takes more memory than one: the count does not overflow.
        let owners = &self.counted().owners;
        owners.set(owners.get() + 1);
        Self(self.0)
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.counted().value
    }
}

impl<T> Drop for Shared<T> {
    #[inline]
    fn drop(&mut self) {
        let owners = &self.counted().owners;
        owners.set(owners.get() - 1);
        if owners.get() == 0 {
            // SAFETY: from the allocator with the layout that a box of it has, and this was the
            // last that pointed there.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}
