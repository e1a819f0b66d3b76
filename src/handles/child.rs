//! The running greenlet as a body receives it: a `Current` that can switch to its parent.

use core::{fmt, marker::PhantomData, ops::Deref, ptr};

use crate::{Current, Greenlet, Invariant, ParentError, SwitchError, Thrown, tree::Block};

/// The running greenlet, as its body receives it: a [`Current`] that can also switch to its parent.
///
/// `P` is the type that the body returns, which is the inbox type of the parent.
///
/// ```
/// use greenlet::{Child, Greenlet, Thrown, enter};
///
/// /// Yields `n`, `n - 1`, … 1.
/// fn count_down(me: &Child<(), u32>, n: u32) -> Result<(), Thrown> {
///     if n > 0 {
///         me.switch_to_parent(n)?;
///         count_down(me, n - 1)?;
///     }
///     Ok(())
/// }
///
/// enter(|me| {
///     let counter = Greenlet::new(me, |me, ()| count_down(me, 3).map(|()| 0));
///     let numbers = [(); 4].map(|()| me.switch(&counter, ()).unwrap());
///     assert_eq!(numbers, [3, 2, 1, 0]);
/// });
/// ```
#[repr(transparent)]
pub struct Child<'e, I, P> {
    current: Current<'e, I>,
    returns: PhantomData<Invariant<P>>,
}

impl<'e, I, P> Child<'e, I, P> {
    /// Views a block as the `Child` of its greenlet.
    ///
    /// # Safety
    /// As for [`Current::of`]; and the body of the greenlet returns a `P`.
    pub(crate) unsafe fn of(block: &Block) -> &Self {
        // SAFETY: `Child` is a transparent wrapper of a `Current`, which is one of a block.
        unsafe { &*ptr::from_ref(block).cast::<Self>() }
    }

    /// Switches to the greenlet that is the parent now, as [`switch`](Current::switch) does.
    ///
    /// The body needs no handle to its parent for this, so it makes no cycle of handles.
    ///
    /// # Errors
    /// As [`switch`](Current::switch).
    ///
    /// # Panics
    /// As [`switch`](Current::switch).
    #[cfg_attr(switch_in_line, inline(always))]
    pub fn switch_to_parent(&self, message: P) -> Result<I, Thrown> {
        self.switch_to(self.parent(), message)
    }

    /// Switches to the greenlet that is the parent now, as [`try_switch`](Current::try_switch) does.
    ///
    /// # Errors
    /// As [`try_switch`](Current::try_switch).
    ///
    /// # Panics
    /// As [`switch`](Current::switch).
    #[cfg_attr(switch_in_line, inline(always))]
    pub fn try_switch_to_parent(&self, message: P) -> Result<Result<I, Thrown>, SwitchError<P>> {
        self.try_switch_to(self.parent(), message)
    }

    /// Changes the parent, as [`Greenlet::set_parent`] does. The compiler checks here that the types are the
    /// same, so they may borrow.
    ///
    /// # Errors
    /// [`ParentError::Cycle`] if the new parent descends from this greenlet.
    pub fn set_parent(&self, parent: &Greenlet<'e, P>) -> Result<(), ParentError> {
        let old = self.current.block().replace_parent(parent.block());
        old.map(drop).ok_or(ParentError::Cycle)
    }

    /// Returns the parent, whose inbox type is `P` (invariant of blocks).
    #[inline(always)]
    fn parent(&self) -> &Block {
        // SAFETY: every greenlet but a root has a parent until it is dead, and no root has a `Child`.
        unsafe { self.current.block().parent().unwrap_unchecked() }
    }
}

impl<'e, I, P> Deref for Child<'e, I, P> {
    type Target = Current<'e, I>;

    #[inline(always)]
    fn deref(&self) -> &Current<'e, I> {
        &self.current
    }
}

impl<I, P> fmt::Debug for Child<'_, I, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.current.block().fmt(f)
    }
}
