//! What generators and futures share: a greenlet that is resumed by whatever code holds it, and
//! suspends itself to there.
//!
//! The resumer is a root on its own stack, with an inbox of its own (rule s2), made for each resume
//! without the allocator. So it matters neither which greenlet resumes nor what it receives.

pub(crate) mod future;
pub(crate) mod generator;

use alloc::rc::Rc;
use core::{
    cell::{Cell, RefCell},
    convert::Infallible,
    ptr,
};

use crate::{
    Child, Current, Greenlet, SwitchError, Thrown, host,
    tree::{self, Block, OutOfMemory, Settings},
};

/// A function on a stack of its own. Dropping it kills the greenlet.
pub(crate) struct Coroutine<'e, S> {
    greenlet: Greenlet<'e, ()>,
    shared: Rc<Shared<S>>,
}

/// What the two sides share, with a state of what is built on this.
pub(crate) struct Shared<S> {
    /// The root that waits in a resume, or null.
    resumer: Cell<*const Block>,
    end: RefCell<Option<End>>,
    pub(crate) state: S,
}

/// What the function has ended with.
type End = Result<Result<(), Thrown>, host::Panic>;

/// What a resume came to.
pub(crate) enum Resumed {
    Suspended,
    Ended,
}

impl<'e, S: 'e> Coroutine<'e, S> {
    /// A coroutine in the `enter` of `member`, that has not started.
    pub(crate) fn new(
        settings: impl FnOnce() -> Settings,
        member: &Block,
        state: S,
        body: impl FnOnce(&Side<'_, 'e, S>) -> Result<(), Thrown> + 'e,
    ) -> Result<Self, OutOfMemory> {
        let shared = Rc::new(Shared {
            resumer: Cell::new(ptr::null()),
            end: RefCell::new(None),
            state,
        });
        let theirs = Rc::clone(&shared);
        // Its parent is not the greenlet that makes it: that may be suspended with this in its hands,
        // and a child would keep it.
        let own = tree::with_ancestor(member, |parent: &Current<'e, Infallible>| {
            let body = move |me: &Child<'e, (), Infallible>, ()| {
                let me: &Current<'e, ()> = me;
                let shared = &*theirs;
                let end = host::catch(|| body(&Side { me, shared }));
                if matches!(&end, Err(payload) if host::was_exit(payload)) {
                    return Err(Thrown::exit());
                }
                *shared.end.borrow_mut() = Some(end);
                loop {
                    // It is killed here, by the one that hears of the end.
                    suspend(me, shared)?;
                }
            };
            tree::new_borrowing_greenlet(parent, settings, body)
        })?;
        let greenlet = Greenlet::of(own);
        Ok(Self { greenlet, shared })
    }

    /// Runs it until it suspends itself or ends.
    ///
    /// # Errors
    /// What it ends with; or that it cannot be switched to.
    ///
    /// # Panics
    /// With its panic.
    pub(crate) fn resume(&self) -> Result<Resumed, Thrown> {
        let switched = tree::with_passing_root(|root| {
            let _resumed = Resuming::begin(&self.shared.resumer, root);
            // SAFETY: it is a root with this inbox, and runs.
            unsafe { Current::<()>::of(root) }.switch(&self.greenlet, ())
        });
        switched?;
        match self.shared.end.take() {
            None => Ok(Resumed::Suspended),
            Some(Ok(outcome)) => outcome.map(|()| Resumed::Ended),
            Some(Err(payload)) => host::resume(payload),
        }
    }

    pub(crate) fn state(&self) -> &S {
        &self.shared.state
    }
}

/// Says who resumes, for as long as it does.
struct Resuming<'a> {
    resumer: &'a Cell<*const Block>,
    before: *const Block,
}

impl<'a> Resuming<'a> {
    fn begin(resumer: &'a Cell<*const Block>, root: &Block) -> Self {
        let before = resumer.replace(root);
        Self { resumer, before }
    }
}

impl Drop for Resuming<'_> {
    fn drop(&mut self) {
        self.resumer.set(self.before);
    }
}

/// The function's side of a coroutine.
pub(crate) struct Side<'a, 'e, S> {
    pub(crate) me: &'a Current<'e, ()>,
    shared: &'a Shared<S>,
}

impl<S> Side<'_, '_, S> {
    /// Returns to the one that has resumed, until the next resume.
    ///
    /// # Errors
    /// As [`Current::switch`].
    pub(crate) fn suspend(&self) -> Result<(), Thrown> {
        suspend(self.me, self.shared)
    }

    pub(crate) fn state(&self) -> &S {
        &self.shared.state
    }
}

fn suspend<S>(me: &Current<'_, ()>, shared: &Shared<S>) -> Result<(), Thrown> {
    // SAFETY: null, or a root that waits in `resume`.
    match unsafe { shared.resumer.get().as_ref() } {
        Some(resumer) => me.switch_to(resumer, ()),
        // It is being killed: to be told so again is what ends one that does not listen.
        None if me.is_exiting() => me.switch_to(me.block(), ()),
        // It was resumed by a child of its own that has ended.
        None => Err(SwitchError::Dead(()).into()),
    }
}
