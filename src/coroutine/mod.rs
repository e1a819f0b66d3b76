//! Asymmetric coroutines, on which generators and futures are built: a greenlet that suspends itself to
//! the code that resumed it.
//!
//! The resumer is a root on its own stack, with an inbox of its own (rule s2). So it matters neither which
//! greenlet resumes nor what it receives. A coroutine has one such root, which lives in each resume.

pub(crate) mod future;
pub(crate) mod generator;

use alloc::rc::Rc;
use core::{cell::Cell, convert::Infallible, mem};

use crate::{
    Child, Current, Greenlet, Thrown, host,
    tree::{self, Block, OutOfMemory, Resumer, Settings},
};

/// A function on a stack of its own, which returns an `R`. Dropping it kills the greenlet.
pub(crate) struct Coroutine<'e, S, R>(Option<Unfinished<'e, S, R>>);

struct Unfinished<'e, S, R> {
    greenlet: Greenlet<'e, ()>,
    shared: Rc<Shared<S, R>>,
}

struct Shared<S, R> {
    side: Common<S>,
    end: Cell<Option<End<R>>>,
}

/// What the two sides share, with a state of what is built on this.
struct Common<S> {
    /// It waits in a resume, or is dead.
    resumer: Resumer,
    state: S,
}

/// What the function has ended with.
type End<R> = Result<Result<R, Thrown>, host::Panic>;

/// What a resume came to.
pub(crate) enum Resumed<'a, S, R> {
    Suspended(&'a S),
    Returned(R),
    /// It had finished before.
    Finished,
}

impl<'e, S: 'e, R: 'e> Coroutine<'e, S, R> {
    /// A coroutine in the `enter` of `member`, that has not started.
    pub(crate) fn new(
        settings: impl FnOnce() -> Settings,
        member: &Block,
        state: S,
        body: impl FnOnce(&Side<'_, 'e, S>) -> Result<R, Thrown> + 'e,
    ) -> Result<Self, OutOfMemory> {
        let shared = Rc::new(Shared {
            side: Common {
                resumer: Resumer::new()?,
                state,
            },
            end: Cell::new(None),
        });
        let theirs = Rc::clone(&shared);
        // Its parent is not the greenlet that makes it: that may be suspended with this in its hands,
        // and a child would keep it.
        let own = tree::with_ancestor(member, |parent: &Current<'e, Infallible>| {
            let body = move |me: &Child<'e, (), Infallible>, ()| {
                let side = Side {
                    me,
                    common: &theirs.side,
                };
                let end = host::catch(|| body(&side));
                if matches!(&end, Err(payload) if host::was_exit(payload)) {
                    return Err(Thrown::exit());
                }
                theirs.end.set(Some(end));
                loop {
                    // It is killed here, by the one that hears of the end.
                    side.suspend()?;
                }
            };
            tree::new_borrowing_greenlet(parent, settings, body)
        })?;
        let greenlet = Greenlet::of(own);
        Ok(Self(Some(Unfinished { greenlet, shared })))
    }
}

impl<S, R> Coroutine<'_, S, R> {
    pub(crate) fn has_finished(&self) -> bool {
        self.0.is_none()
    }

    /// Runs it until it suspends itself or ends, after `prepare` if it has not ended yet.
    ///
    /// # Errors
    /// What it ends with; or that it cannot be switched to. It has finished then.
    ///
    /// # Panics
    /// With its panic. It has finished then.
    #[inline]
    pub(crate) fn resume(&mut self, prepare: impl FnOnce(&S)) -> Result<Resumed<'_, S, R>, Thrown> {
        /// Ends what has not suspended itself.
        struct End<'a, C>(&'a mut Option<C>);

        impl<C> Drop for End<'_, C> {
            fn drop(&mut self) {
                *self.0 = None;
            }
        }

        let end = End(&mut self.0);
        let Some(coroutine) = &*end.0 else {
            return Ok(Resumed::Finished);
        };
        prepare(&coroutine.shared.side.state);
        if let Some(value) = coroutine.resume()? {
            return Ok(Resumed::Returned(value));
        }
        mem::forget(end);
        match &self.0 {
            Some(coroutine) => Ok(Resumed::Suspended(&coroutine.shared.side.state)),
            None => Ok(Resumed::Finished),
        }
    }
}

impl<S, R> Unfinished<'_, S, R> {
    /// Runs it until it suspends itself, or returns: then the value.
    #[inline]
    fn resume(&self) -> Result<Option<R>, Thrown> {
        self.shared.side.resumer.run(|root| {
            // SAFETY: it is a root with this inbox, and runs.
            unsafe { Current::<()>::of(root) }.switch(&self.greenlet, ())
        })?;
        match self.shared.end.take() {
            None => Ok(None),
            Some(Ok(outcome)) => outcome.map(Some),
            Some(Err(payload)) => host::resume(payload),
        }
    }
}

/// The function's side of a coroutine.
pub(crate) struct Side<'a, 'e, S> {
    pub(crate) me: &'a Current<'e, ()>,
    common: &'a Common<S>,
}

impl<S> Side<'_, '_, S> {
    /// Returns to the one that has resumed, until the next resume.
    ///
    /// # Errors
    /// As [`Current::switch`]; also if it was resumed by a child of its own that has ended.
    #[cfg_attr(switch_in_line, inline(always))]
    pub(crate) fn suspend(&self) -> Result<(), Thrown> {
        self.me.switch_to(self.common.resumer.block(), ())
    }

    pub(crate) fn state(&self) -> &S {
        &self.common.state
    }
}
