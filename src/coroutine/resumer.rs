//! The two switches of a coroutine: the resume, and the suspension back to the greenlet that resumed.
//!
//! The greenlet that resumes waits in a switch and is busy meanwhile. So only the coroutine that it has resumed
//! sends it a value, which need not be of its inbox type. Errors for it, and kills, reach it as well.

use core::{
    cell::Cell,
    marker::PhantomData,
    mem::{self, ManuallyDrop},
    ptr,
};

use crate::{
    Current, Greenlet, Invariant, Thrown,
    arch::Message,
    handles::current::refused,
    host,
    tree::{self, Answer, Block, Content, Delivery, Refusal, State, thread},
};

/// The greenlet that waits in a [`resume`](Self::resume) for the next `Y`, or null.
///
/// # Invariants
/// That greenlet is busy, waits for no other greenlet's end, and is suspended in `resume`; or it runs, and is
/// about to switch away or has just resumed.
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

    /// Switches to `target`, and returns the item with which it suspends itself; or an error that arrives
    /// meanwhile. Outside every greenlet a temporary root calls this.
    ///
    /// # Safety
    /// No greenlet waits in this resumer.
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
        // SAFETY: `me` runs. The input is of the target's inbox type and is not used here again. What arrives
        // is opened at once. A value is a `Y`: `me` is busy, so only `suspend` sends one.
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

    /// Handles an answer that is not simply a value.
    ///
    /// # Safety
    /// `me` runs and has just received the answer to an `I`, which nothing else takes.
    #[cold]
    #[inline(never)]
    unsafe fn resumed_otherwise<I>(&self, me: &Block, answer: Answer) -> Result<Y, Thrown> {
        // SAFETY: the message is the answer, or the `I` that was not sent (contract). The caller of `resume`
        // borrows the target.
        unsafe {
            let received = match answer.arrived() {
                Ok(received) => received,
                Err(_) if tree::lies_on_stack(me) => {
                    // An error may end `me` while a tracer that is told of this switch is suspended.
                    return tree::with_new_root(|root| self.resumed_otherwise::<I>(root, answer));
                }
                Err((sent, target)) => {
                    self.resume_slowly(me, &*target, sent).map_err(|refusal| {
                        drop(tree::Unsent::<I>::new(sent));
                        refused(refusal)
                    })?
                }
            };
            tree::open(received)
        }
    }

    /// Resumes `target` by the slow path. A greenlet that is being killed may do this too, because it could
    /// enter and do the same there.
    ///
    /// # Safety
    /// `me` runs, and the message is of the target's inbox type.
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

    /// Sends `item` to the greenlet that has resumed `me`, and waits for the next message.
    ///
    /// # Errors
    /// As [`Current::switch`]; also if no greenlet waits.
    #[cfg_attr(switch_in_line, inline(always))]
    pub(super) fn suspend<I>(&self, me: &Current<'_, I>, item: Y) -> Result<I, Thrown> {
        let item = ManuallyDrop::new(item);
        let sent = tree::of_value(&item);
        // SAFETY: `waits` is null or a greenlet that waits for a `Y` (invariant). The item is not used here
        // again. What arrives is opened at once.
        unsafe {
            if let Some(waits) = self.waits.get().as_ref() {
                // The fast path switches only to an active greenlet.
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

    /// Does what [`suspend`](Self::suspend) does, by the slow path.
    ///
    /// # Safety
    /// The message holds a `Y`, which has not been taken.
    #[cold]
    unsafe fn suspend_slowly<I>(&self, me: &Current<'_, I>, sent: Message) -> Result<I, Thrown> {
        // SAFETY: the message holds a `Y`, which has not been taken (contract). This drops it if `admit` unwinds.
        let unsent = unsafe { tree::Unsent::<Y>::new(sent) };
        let waits = self.admit(me)?;
        mem::forget(unsent);
        // SAFETY: `waits` is suspended and takes a `Y`; `me` runs, and opens what arrives at once.
        unsafe {
            let received = tree::switch_slowly(me.block(), waits, Content::Value(sent));
            tree::open(received)
        }
    }

    /// Sends a `GreenletExit` to the greenlet that has resumed `me`, because the function has ended. The function may
    /// have killed its own greenlet.
    ///
    /// # Errors
    /// As [`suspend`](Self::suspend).
    pub(super) fn suspend_for_good<I>(&self, me: &Current<'_, I>) -> Result<I, Thrown> {
        let waits = match self.waits() {
            Some(waits) if me.block().exits_by_itself() => waits,
            _ => self.admit(me)?,
        };
        // SAFETY: `waits` is suspended, and an error is for every inbox; `me` runs, and opens what arrives
        // at once. It is busy meanwhile, as nothing but its kill or an error is to resume it.
        unsafe {
            let exit = Content::Thrown(Thrown::exit());
            me.block().set_state(State::Busy);
            let received = tree::switch_slowly(me.block(), waits, exit);
            me.block().set_state(State::Active);
            tree::open(received)
        }
    }

    /// Checks that `me` may switch, and returns the greenlet that waits.
    ///
    /// # Errors
    /// Returns why `me` may not switch, or that no greenlet waits.
    fn admit<I>(&self, me: &Current<'_, I>) -> Result<&Block, Thrown> {
        tree::admit(me.block())
            .and_then(|()| self.waits().ok_or(Refusal::Dead))
            .map_err(refused)
    }

    /// Returns the greenlet that waits.
    fn waits(&self) -> Option<&Block> {
        // SAFETY: null, or a greenlet that waits (invariant) and is not freed before it resumes.
        unsafe { self.waits.get().as_ref() }
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
