//! The handle of a greenlet.

use core::{fmt, marker::PhantomData};

#[cfg(feature = "std")]
use crate::{Child, Thrown, tree::Settings};
use crate::{
    Current, Invariant, ParentError, Status, WeakGreenlet,
    tree::{self, Block, Own},
};

/// A handle to a greenlet that receives messages of type `I`.
///
/// Cloning a handle increments a reference count. Dropping the last handle of a suspended greenlet kills it,
/// before the drop returns (rule [s14](crate::guide::rules#s14)). A child counts as a handle to its parent.
///
/// `'e` is the [`enter`](crate::enter) under which the greenlet was made. The greenlet ends with that, and no
/// handle leaves it. Handles of an [`Unscoped`](crate::Unscoped) are `'static`.
///
/// A greenlet belongs to the thread that made it:
///
/// ```compile_fail,E0277
/// use greenlet::{Greenlet, enter};
///
/// enter(|me| {
///     let greenlet = Greenlet::new(me, |_, (): ()| Ok(()));
///     std::thread::spawn(move || drop(greenlet));
/// });
/// ```
pub struct Greenlet<'e, I> {
    own: Own,
    inbox: PhantomData<Invariant<I>>,
    enter: PhantomData<Invariant<&'e ()>>,
}

#[cfg(feature = "std")]
impl<'e, I: 'e> Greenlet<'e, I> {
    /// Makes a greenlet whose parent is `parent`, the running one. It has the default stack and no name; a
    /// [`Builder`](crate::Builder) sets others.
    ///
    /// The first switch to it runs `body` with the message. The parent's [`switch`](Current::switch) returns
    /// what `body` returns, so `P` is the parent's inbox type.
    ///
    /// Not available without `std`, which has the stacks: use [`Builder::build`](crate::Builder::build). If
    /// there is no memory for the greenlet, the process aborts, as for a `Box`;
    /// [`Builder::build`](crate::Builder::build) returns an error instead.
    ///
    /// ```
    /// use greenlet::{Greenlet, enter};
    ///
    /// let sum = enter(|me| {
    ///     let adder = Greenlet::new(me, |_, (a, b): (u32, u32)| Ok(a + b));
    ///     me.switch(&adder, (40, 2))
    /// });
    /// assert_eq!(sum.unwrap(), 42);
    /// ```
    pub fn new<P: 'static>(
        parent: &Current<'e, P>,
        body: impl FnOnce(&Child<'e, I, P>, I) -> Result<P, Thrown> + 'e,
    ) -> Self
    where
        I: 'static,
    {
        Self::of(
            tree::new_greenlet(parent, Settings::default, body)
                .unwrap_or_else(|error| error.abort()),
        )
    }

    /// Makes a greenlet as [`new`](Self::new) does, for messages that are not `'static`: references or handles.
    ///
    /// The crate cannot compare types that borrow at run time. So no ancestor receives in place of such a
    /// greenlet or of its parent (rules [s7](crate::guide::rules#s7), [s9](crate::guide::rules#s9)), and only
    /// [`Child::set_parent`] changes its parent.
    ///
    /// ```
    /// use greenlet::{Child, Greenlet, Root, Thrown, enter};
    ///
    /// /// A handle to the greenlet that sent it, and a counter.
    /// struct Ball<'e>(Greenlet<'e, Ball<'e>>, u32);
    ///
    /// fn play<'e>(me: &Child<'e, Ball<'e>, u32>, mut ball: Ball<'e>) -> Result<u32, Thrown> {
    ///     while ball.1 < 10 {
    ///         let back = Ball(me.handle(), ball.1 + 1);
    ///         ball = me.switch(&ball.0, back)?;
    ///     }
    ///     Ok(ball.1)
    /// }
    ///
    /// enter(|me: &Root<u32>| {
    ///     let (left, right) = (Greenlet::borrowing(me, play), Greenlet::borrowing(me, play));
    ///     assert_eq!(me.switch(&left, Ball(right, 0)).unwrap(), 10);
    /// });
    /// ```
    pub fn borrowing<P: 'e>(
        parent: &Current<'e, P>,
        body: impl FnOnce(&Child<'e, I, P>, I) -> Result<P, Thrown> + 'e,
    ) -> Self {
        Self::of(
            tree::new_borrowing_greenlet(parent, Settings::default, body)
                .unwrap_or_else(|error| error.abort()),
        )
    }
}

impl<'e, I> Greenlet<'e, I> {
    pub(crate) fn of(own: Own) -> Self {
        Self {
            own,
            inbox: PhantomData,
            enter: PhantomData,
        }
    }

    #[inline(always)]
    pub(crate) fn block(&self) -> &Block {
        self.own.block()
    }

    /// Runs `body` in a new root greenlet of the same `enter`, as
    /// [`Current::with_inbox`](crate::Current::with_inbox) does, on the stack of the caller. The handle shows that
    /// the `enter` has not ended.
    pub fn with_inbox<J: 'e, R>(&self, body: impl FnOnce(&Current<'e, J>) -> R) -> R {
        tree::with_inbox(self.block(), body)
    }

    /// Returns `true` if it has started and not finished: greenlet's `bool(g)` (rule
    /// [s5](crate::guide::rules#s5)).
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.block().is_active()
    }

    /// Returns `true` if it has finished or was killed.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.block().is_dead()
    }

    /// Returns its state.
    #[must_use]
    pub fn status(&self) -> Status {
        self.block().status()
    }

    /// Changes the parent, in any state of either greenlet (rule [s4](crate::guide::rules#s4)). The new parent
    /// receives the result of this greenlet, and messages that are sent to it when it is dead.
    ///
    /// # Errors
    /// Returns a [`ParentError`] and changes nothing if the new parent would make a cycle or has another inbox
    /// type, or if this greenlet is a root.
    ///
    /// ```
    /// use greenlet::{Greenlet, ParentError, enter};
    ///
    /// enter(|me| {
    ///     let child = Greenlet::new(me, |_, n: u32| Ok(n));
    ///     let parent = Greenlet::new(me, |_, n: u32| Ok(n + 100));
    ///     child.set_parent(&parent).unwrap();
    ///     assert_eq!(parent.set_parent(&child), Err(ParentError::Cycle));
    ///     // The child's value starts its parent, whose value comes here.
    ///     assert_eq!(me.switch(&child, 1).unwrap(), 101);
    /// });
    /// ```
    pub fn set_parent<Q>(&self, parent: &Greenlet<'e, Q>) -> Result<(), ParentError> {
        let block = self.block();
        if block.is_root() {
            return Err(ParentError::Root);
        }
        let returns = (block.kind.returns)();
        if returns.is_none() || returns != (parent.block().kind.inbox)() {
            return Err(ParentError::WrongType);
        }
        let old = block.replace_parent(parent.block());
        old.map(drop).ok_or(ParentError::Cycle)
    }

    /// Returns a handle that does not keep the greenlet alive (rule [s18](crate::guide::rules#s18)).
    #[must_use]
    pub fn downgrade(&self) -> WeakGreenlet<'e, I> {
        WeakGreenlet::of(self.block())
    }

    /// Returns the name that a [`Builder`](crate::Builder) gave it.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.block().settings.name.as_deref()
    }
}

impl<I> Clone for Greenlet<'_, I> {
    fn clone(&self) -> Self {
        Self {
            own: self.own.clone(),
            inbox: PhantomData,
            enter: PhantomData,
        }
    }
}

impl<I> fmt::Debug for Greenlet<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.block().fmt(f)
    }
}
