//! Asymmetric coroutines, on which generators and futures are built: a greenlet that suspends itself to
//! the code that resumed it.
//!
//! The greenlet that resumes a coroutine is busy meanwhile, as if it had entered (rule s2). So any greenlet can
//! resume one, whatever its inbox type.

pub(crate) mod future;
pub(crate) mod generator;
mod resumer;

use alloc::rc::Rc;
use core::{cell::Cell, convert::Infallible, mem};

use crate::{
    Child, Current, Greenlet, SwitchError, Thrown, host,
    tree::{self, Block, OutOfMemory, Settings},
};
use resumer::Resumer;

/// A function on a stack of its own, which is resumed with an `I`, yields a `Y` and returns an `R`. Both sides
/// share the state `S`. Dropping it kills the greenlet.
pub(crate) struct Coroutine<'e, I, Y, S, R>(Option<Unfinished<'e, I, Y, S, R>>);

struct Unfinished<'e, I, Y, S, R> {
    greenlet: Greenlet<'e, I>,
    shared: Rc<Shared<Y, S, R>>,
}

struct Shared<Y, S, R> {
    common: Common<Y, S>,
    end: Cell<Option<End<R>>>,
}

struct Common<Y, S> {
    resumer: Resumer<Y>,
    state: S,
}

/// The result of the function.
type End<R> = Result<Result<R, Thrown>, host::Panic>;

/// The result of a resume.
pub(crate) enum Resumed<Y, R> {
    Yielded(Y),
    Returned(R),
    /// The function had finished before the resume.
    Finished,
}

impl<'e, I: 'e, Y: 'e, S: 'e, R: 'e> Coroutine<'e, I, Y, S, R> {
    /// Makes a coroutine, which has not started, in the `enter` of `member`.
    pub(crate) fn new(
        settings: impl FnOnce() -> Settings,
        member: &Block,
        state: S,
        body: impl FnOnce(&Side<'_, 'e, I, Y, S>, I) -> Result<R, Thrown> + 'e,
    ) -> Result<Self, OutOfMemory> {
        let shared = Rc::new(Shared {
            common: Common {
                resumer: Resumer::new(),
                state,
            },
            end: Cell::new(None),
        });
        let theirs = Rc::clone(&shared);
        // The parent is not the greenlet that makes it: that may hold the coroutine while it is suspended,
        // and a child would keep it alive.
        let own = with_ancestor(member, |parent: &Current<'e, Infallible>| {
            let body = move |me: &Child<'e, I, Infallible>, first| {
                let common = &theirs.common;
                let end = match host::catch(|| body(&Side { me, common }, first)) {
                    Err(payload) if host::was_exit(&payload) => Ok(Err(Thrown::exit())),
                    end => end,
                };
                theirs.end.set(Some(end));
                loop {
                    // The greenlet that receives this drops the coroutine, which kills it here.
                    common.resumer.suspend_for_good(me)?;
                }
            };
            tree::new_borrowing_greenlet(parent, settings, body)
        })?;
        let greenlet = Greenlet::of(own);
        Ok(Self(Some(Unfinished { greenlet, shared })))
    }
}

/// Calls `make` with a parent for a greenlet that must not hold the greenlet that makes it: the root of
/// the `enter` of `member`, or else a new root that is dead afterwards.
///
/// The parent need not be the running greenlet. It never receives a value, because its inbox type has none.
fn with_ancestor<'e, R>(member: &Block, make: impl FnOnce(&Current<'e, Infallible>) -> R) -> R {
    // SAFETY: null, or the registry of an `enter` that has not ended, and its root.
    match unsafe { member.home().as_ref().map(|home| &*home.root) } {
        // SAFETY: `make` only makes a greenlet under it, and does not switch.
        Some(root) => make(unsafe { Current::of(root) }),
        None => tree::with_inbox(member, make),
    }
}

impl<I, Y, S, R> Coroutine<'_, I, Y, S, R> {
    pub(crate) fn has_finished(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the state, or `None` once the coroutine has finished.
    pub(crate) fn state(&self) -> Option<&S> {
        let Unfinished { shared, .. } = self.0.as_ref()?;
        Some(&shared.common.state)
    }

    /// Resumes the function with `input`, and returns when it suspends itself or ends. After an error or a panic
    /// the coroutine has finished.
    ///
    /// # Errors
    /// Returns the error of the function, or why it cannot be switched to.
    ///
    /// # Panics
    /// Resumes a panic of the function.
    #[inline(always)]
    pub(crate) fn resume(&mut self, input: I) -> Result<Resumed<Y, R>, Thrown> {
        /// Finishes a coroutine that has not yielded, also when a panic arrives.
        struct Finish<'a, C>(&'a mut Option<C>);

        impl<C> Drop for Finish<'_, C> {
            fn drop(&mut self) {
                *self.0 = None;
            }
        }

        let finish = Finish(&mut self.0);
        let Some(Unfinished { greenlet, shared }) = &*finish.0 else {
            return Ok(Resumed::Finished);
        };
        // SAFETY: no greenlet waits in `resumer`, because `self` is borrowed mutably.
        match unsafe { shared.common.resumer.resume(greenlet, input) } {
            Ok(item) => {
                mem::forget(finish);
                Ok(Resumed::Yielded(item))
            }
            Err(thrown) => {
                let end = shared.ended(thrown);
                // Not while `end` is returned: it would leak if a destructor panicked then
                // (rust-lang/rust#47949).
                drop(finish);
                end.map(Resumed::Returned)
            }
        }
    }
}

impl<Y, S, R> Drop for Shared<Y, S, R> {
    /// Drops a result that nobody has asked for. If its destructor panics, whoever ended the function does
    /// not notice it, as in other kills (rule s16).
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            host::contain(|| drop(end));
        }
    }
}

impl<Y, S, R> Shared<Y, S, R> {
    /// Returns the result of the function; or `thrown`, if the function has not ended, or if `thrown` is neither
    /// what an ended function sends nor why it cannot be resumed.
    #[cold]
    fn ended(&self, thrown: Thrown) -> Result<R, Thrown> {
        if !thrown.is_exit() && thrown.downcast_ref::<SwitchError<()>>().is_none() {
            return Err(thrown);
        }
        match self.end.take() {
            None => Err(thrown),
            Some(Ok(outcome)) => outcome,
            Some(Err(payload)) => host::resume(payload),
        }
    }
}

/// The function's side of a coroutine.
pub(crate) struct Side<'a, 'e, I, Y, S> {
    pub(crate) me: &'a Current<'e, I>,
    common: &'a Common<Y, S>,
}

impl<I, Y, S> Side<'_, '_, I, Y, S> {
    /// Yields `item` to the greenlet that resumed this one, and returns the input of the next resume.
    ///
    /// # Errors
    /// As [`Current::switch`].
    #[cfg_attr(switch_in_line, inline(always))]
    pub(crate) fn suspend(&self, item: Y) -> Result<I, Thrown> {
        self.common.resumer.suspend(self.me, item)
    }

    pub(crate) fn state(&self) -> &S {
        &self.common.state
    }
}
