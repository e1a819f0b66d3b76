//! Handles that do not keep a greenlet alive (rule s18).

use core::{fmt, marker::PhantomData, ptr::NonNull};

use crate::{
    Greenlet, Invariant,
    tree::{self, Block},
};

/// A handle to a greenlet that does not keep it alive. `I` and `'e` are those of its [`Greenlet`].
///
/// ```
/// use greenlet::{Greenlet, enter};
///
/// enter(|me| {
///     let greenlet = Greenlet::new(me, |_, ()| Ok(()));
///     let weak = greenlet.downgrade();
///     assert!(weak.upgrade().is_some());
///     me.switch(&greenlet, ()).unwrap();
///     assert!(weak.upgrade().is_none(), "it is dead, though a handle is left");
/// });
/// ```
pub struct WeakGreenlet<'e, I> {
    /// Owns one weak count.
    block: NonNull<Block>,
    inbox: PhantomData<Invariant<I>>,
    enter: PhantomData<Invariant<&'e ()>>,
}

impl<'e, I> WeakGreenlet<'e, I> {
    pub(crate) fn of(block: &Block) -> Self {
        block.retain_weakly();
        Self {
            block: NonNull::from(block),
            inbox: PhantomData,
            enter: PhantomData,
        }
    }

    pub(crate) fn block(&self) -> &Block {
        // SAFETY: this owns a weak count, which keeps the block.
        unsafe { self.block.as_ref() }
    }

    /// Returns a handle, or `None` if the greenlet is dead or its last handle was dropped.
    #[must_use]
    pub fn upgrade(&self) -> Option<Greenlet<'e, I>> {
        self.block().upgrade().map(Greenlet::of)
    }
}

impl<I> Clone for WeakGreenlet<'_, I> {
    fn clone(&self) -> Self {
        Self::of(self.block())
    }
}

impl<I> Drop for WeakGreenlet<'_, I> {
    fn drop(&mut self) {
        // SAFETY: the count that this handle owns.
        unsafe { tree::release_weakly(self.block.as_ptr()) };
    }
}

impl<I> fmt::Debug for WeakGreenlet<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WeakGreenlet").field(self.block()).finish()
    }
}
