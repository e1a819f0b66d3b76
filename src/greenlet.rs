//! Handles.

use core::{fmt, marker::PhantomData};

#[cfg(feature = "std")]
use crate::{
    Current, Thrown,
    tree::{self, Settings},
};
use crate::{
    Invariant, ParentError, Status, WeakGreenlet,
    tree::{Block, Own, State},
};

/// A handle to a greenlet that receives messages of type `I`.
///
/// Cloning it is a reference count. When the last handle goes, a suspended greenlet is killed
/// within that drop (rule s14); a child counts as a handle to its parent.
///
/// `L` is how long the handle may be kept: for ever, or, for a greenlet of a
/// [`Scope`](crate::Scope), as long as that lasts.
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
pub struct Greenlet<I, L = &'static ()> {
    own: Own,
    inbox: PhantomData<Invariant<I>>,
    bound: PhantomData<L>,
}

#[cfg(feature = "std")]
impl<I: 'static> Greenlet<I> {
    /// A new greenlet under `parent`, the running one, with stack and name as a
    /// [`Builder`](crate::Builder) begins with them.
    ///
    /// The first switch to it runs `body` with the message. What `body` returns goes to the
    /// parent: a value or error as what the parent's [`switch`](Current::switch) returns, so
    /// `P` is the parent's inbox type. Without `std`, which has the stacks,
    /// [`Builder::build`](crate::Builder::build) is the way.
    ///
    /// Without memory for it the process aborts, as it does when a `Box` is made;
    /// [`Builder::build`](crate::Builder::build) returns an error.
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
        parent: &Current<P>,
        body: impl FnOnce(&Current<I>, I) -> Result<P, Thrown> + 'static,
    ) -> Self {
        Self::of(
            tree::new_greenlet(parent, Settings::default, body)
                .unwrap_or_else(|error| error.abort()),
        )
    }
}

impl<I, L> Greenlet<I, L> {
    pub(crate) fn of(own: Own) -> Self {
        Self {
            own,
            inbox: PhantomData,
            bound: PhantomData,
        }
    }

    #[inline(always)]
    pub(crate) fn block(&self) -> &Block {
        self.own.block()
    }

    /// Has it started, and is it not over? (greenlet's `bool(g)`, rule s5)
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self.block().state(), State::Active | State::Busy)
    }

    /// Is it over, for ever?
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.block().state() == State::Dead
    }

    /// What it is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        self.block().status()
    }

    /// Makes `parent` the parent, whatever the state: what this greenlet ends with goes there,
    /// and so does what is sent to it when it is dead (rule s4).
    ///
    /// # Errors
    /// [`ParentError`]; nothing is changed then.
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
    pub fn set_parent<Q, M>(&self, parent: &Greenlet<Q, M>) -> Result<(), ParentError> {
        let block = self.block();
        if block.is_root() {
            return Err(ParentError::Root);
        }
        let returns = (block.kind().returns)();
        if returns.is_none() || returns != (parent.block().kind().inbox)() {
            return Err(ParentError::WrongType);
        }
        let old = block.replace_parent(parent.block());
        old.map(drop).ok_or(ParentError::Cycle)
    }

    /// A handle that does not keep the greenlet alive (rule s18).
    #[must_use]
    pub fn downgrade(&self) -> WeakGreenlet<I, L> {
        WeakGreenlet::of(self.block())
    }

    /// The name that a [`Builder`](crate::Builder) gave it.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.block().settings().name.as_deref()
    }
}

impl<I, L> Clone for Greenlet<I, L> {
    fn clone(&self) -> Self {
        Self {
            own: self.own.clone(),
            inbox: PhantomData,
            bound: PhantomData,
        }
    }
}

impl<I, L> fmt::Debug for Greenlet<I, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.block().fmt(f)
    }
}
