//! A greenlet that waits for one other: the two directions of a coroutine.
//!
//! The greenlet that resumes waits in a switch of its own, whatever it receives otherwise. It is busy
//! meanwhile, so nobody but the one that it has resumed sends to it. Errors that are meant for it, and
//! kills, reach it.

use core::{
    cell::Cell,
    marker::PhantomData,
    mem::{self, ManuallyDrop},
    ptr,
};

use crate::{
    Current, Greenlet, Invariant, SwitchError, Thrown,
    arch::Message,
    handles::current::refused,
    host,
    tree::{self, Answer, Block, Content, Delivery, Refusal, State, thread},
};

/// Who waits in a [`resume`](Self::resume) for the greenlet that [suspends](Self::suspend) itself with
/// this, or null. A `Y` is what it waits for.
///
/// # Invariants
/// That one is busy, waits for nobody's end, and is suspended in `resume`; or it runs, and is about
/// to leave or to go on.
pub(super) struct Resumer<Y> {
    waits: Cell<*const Block>,
    yields: PhantomData<Invariant<Y>>,
}

impl<Y> Resumer<Y> {
    pub(super) const fn new() -> Self {
        Self {
            waits: Cell::new(ptr::null()),
            yields: PhantomData,
        }
    }

    /// Runs `target` until it suspends itself, or something else resumes the greenlet that calls this.
    /// Outside every greenlet there is one for as long as that takes.
    ///
    /// # Safety
    /// Nobody waits here.
    #[inline(always)]
    pub(super) unsafe fn resume<I>(&self, target: &Greenlet<'_, I>, input: I) -> Result<Y, Thrown> {
        // SAFETY: null, or the running greenlet's block, which stays while it runs.
        match unsafe { thread::current().as_ref() } {
            Some(me) => self.resume_from(me, target, input),
            None => self.resume_from_outside(target, input),
        }
    }

    #[cold]
    fn resume_from_outside<I>(&self, target: &Greenlet<'_, I>, input: I) -> Result<Y, Thrown> {
        tree::with_current(|me| self.resume_from(me, target, input))
    }

    #[inline(always)]
    fn resume_from<I>(&self, me: &Block, target: &Greenlet<'_, I>, input: I) -> Result<Y, Thrown> {
        let input = ManuallyDrop::new(input);
        let sent = tree::of_value(&input);
        self.begin(me);
        // SAFETY: `me` is current, and the input is of the target's type and not used here any more.
        // What arrives is opened at once; a value is a `Y`, as `me` is busy: it comes from `suspend`.
        unsafe {
            let answer = tree::switch_if_fast_unless_unwinding(me, target.block(), sent);
            self.end(me);
            if answer.is_value() {
                Ok(tree::take_value(answer.message))
            } else {
                self.resumed_otherwise::<I>(me, answer)
            }
        }
    }

    /// # Safety
    /// `me` runs and has just had the answer to an `I`, which nobody else takes.
    #[cold]
    #[inline(never)]
    unsafe fn resumed_otherwise<I>(&self, me: &Block, answer: Answer) -> Result<Y, Thrown> {
        // SAFETY: the caller's word, and the target is the caller's.
        unsafe {
            let received = match answer.arrived() {
                Ok(received) => received,
                Err((sent, target)) => {
                    self.resume_slowly(me, &*target, sent).map_err(|refusal| {
                        drop(tree::Unsent::<I>::new(sent));
                        refused(SwitchError::new(refusal, ()))
                    })?
                }
            };
            tree::open(received)
        }
    }

    /// Also for a greenlet that is being killed: it could enter, and do the same there.
    ///
    /// # Safety
    /// `me` runs, and the message is of the type of the target.
    unsafe fn resume_slowly(
        &self,
        me: &Block,
        target: &Block,
        sent: Message,
    ) -> Result<Message, Refusal> {
        if host::is_unwinding() {
            return Err(Refusal::Unwinding);
        }
        let receiver = tree::receiver(target, Delivery::Value(target.kind.inbox));
        let receiver = receiver.map_err(|(refusal, _)| refusal)?;
        if ptr::eq(receiver, me) {
            // It would wait for itself.
            return Err(Refusal::Busy);
        }
        // Only now: the target may have been started, which may run the user's code on this stack.
        self.begin(me);
        // SAFETY: the receiver is suspended or ready to start; the rest is the contract.
        let received = unsafe { tree::switch_slowly(me, receiver, Content::Value(sent)) };
        self.end(me);
        // The one that was resumed need not have known that this one is being killed.
        thread::set_current(Some(me));
        Ok(received)
    }

    /// Hands `item` to the greenlet that has resumed `me`, and waits for the next message.
    ///
    /// # Errors
    /// As [`Current::switch`]; also if nobody waits.
    #[cfg_attr(switch_in_line, inline(always))]
    pub(super) fn suspend<I>(&self, me: &Current<'_, I>, item: Y) -> Result<I, Thrown> {
        let item = ManuallyDrop::new(item);
        let sent = tree::of_value(&item);
        // SAFETY: null, or one that waits (invariant), for a `Y`, which is not used here any more. What
        // arrives is opened at once.
        unsafe {
            if let Some(waits) = self.waits.get().as_ref() {
                // As any that can be switched to, for the look at it.
                waits.set_state(State::Active);
                let answer = tree::switch_if_fast_unless_unwinding(me.block(), waits, sent);
                if let Ok(received) = answer.arrived() {
                    return tree::open(received);
                }
                waits.set_state(State::Busy);
            }
            self.suspend_slowly(me, sent)
        }
    }

    /// # Safety
    /// The message carries a `Y`, which nobody has taken.
    #[cold]
    unsafe fn suspend_slowly<I>(&self, me: &Current<'_, I>, sent: Message) -> Result<I, Thrown> {
        // SAFETY: the contract. It is dropped if the admission unwinds.
        let unsent = unsafe { tree::Unsent::<Y>::new(sent) };
        let waits = self.admit(me)?;
        mem::forget(unsent);
        // SAFETY: `waits` is suspended and takes a `Y`; `me` runs, and opens what arrives at once.
        unsafe {
            let received = tree::switch_slowly(me.block(), waits, Content::Value(sent));
            tree::open(received)
        }
    }

    /// Lets the greenlet that has resumed `me` go on with an exit: nothing more comes.
    ///
    /// # Errors
    /// As [`suspend`](Self::suspend).
    pub(super) fn suspend_for_good<I>(&self, me: &Current<'_, I>) -> Result<I, Thrown> {
        let waits = self.admit(me)?;
        // SAFETY: `waits` is suspended, and an error is for every inbox; `me` runs, and opens what arrives
        // at once.
        unsafe {
            let exit = Content::Thrown(Thrown::exit());
            tree::open(tree::switch_slowly(me.block(), waits, exit))
        }
    }

    /// Checks that `me` may switch. Returns the one that waits.
    ///
    /// # Errors
    /// Why not; or that nobody waits.
    fn admit<I>(&self, me: &Current<'_, I>) -> Result<&Block, Thrown> {
        tree::admit(me.block())
            // SAFETY: null, or one that waits (invariant), whose block stays until it has gone on.
            .and_then(|()| unsafe { self.waits.get().as_ref() }.ok_or(Refusal::Dead))
            .map_err(|refusal| refused(SwitchError::new(refusal, ())))
    }

    #[inline(always)]
    fn begin(&self, me: &Block) {
        me.set_state(State::Busy);
        self.waits.set(me);
    }

    #[inline(always)]
    fn end(&self, me: &Block) {
        self.waits.set(ptr::null());
        me.set_state(State::Active);
    }
}
