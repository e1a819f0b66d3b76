//! Switching: leaving one greenlet and arriving in another.
//!
//! On the *fast path*, the sender runs with nothing to do but to leave, and the message is a value or an
//! error without flags. On the *slow path* the message's `kind` has flags, and the receiver
//! [settles](settle_arrival) what they ask for: the death of the sender, its kill, the tracer.
//! `Block::needs_slow_path` says when a greenlet must leave by the slow path.

use core::{
    mem::{ManuallyDrop, MaybeUninit},
    ptr,
};

use super::{
    Block, State,
    kill_in_progress::KillInProgress,
    message::{
        Content, DIED, ORPHANED, REFUSED, REFUSED_IN_UNWINDING, TRACED, VALUE, is_settled,
        is_thrown, of_content, of_thrown, of_value, open_settled, take_content,
    },
    refcount, thread,
};
#[cfg(thread_words)]
use crate::arch;
use crate::{Thrown, arch::Message, diagnostics::trace, host};

/// Suspends `me` and resumes `target`. All switches but the last of a greenlet go through this.
///
/// # Safety
/// `me` runs, and `target` is suspended or ready to start.
#[inline(always)]
unsafe fn switch(me: &Block, target: &Block, message: Message) -> Message {
    // SAFETY: `me` runs, and `target` is suspended or prepared on this thread (contract).
    unsafe {
        me.fiber.leave(&target.fiber);
        let message = me.context.switch(&target.context, message);
        me.fiber.arrive();
        message
    }
}

/// What [`switch_if_fast`] returns: what has arrived; or, if nothing was sent, the message and its
/// target. One type for both, so that the usual case is one test, after the switch.
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) message: Message,
    pub(crate) target: *const Block,
}

impl Answer {
    #[inline(always)]
    fn refused(message: Message, target: &Block, kind: usize) -> Self {
        let message = Message { kind, ..message };
        Self { message, target }
    }

    /// Returns `true` if nothing was sent because the thread unwinds.
    #[inline(always)]
    pub(crate) fn is_refused_in_unwinding(&self) -> bool {
        self.message.kind == REFUSED_IN_UNWINDING
    }

    /// Returns `true` in the usual case: a value has arrived, without flags.
    #[inline(always)]
    pub(crate) fn is_value(&self) -> bool {
        self.message.kind == VALUE
    }

    /// Returns what has arrived, which the caller [opens](open) at once. If nothing was sent, returns
    /// the message and its target as an error.
    #[inline(always)]
    pub(crate) fn arrived(self) -> Result<Message, (Message, *const Block)> {
        if self.message.kind & REFUSED != 0 {
            return Err(self.unsent());
        }
        Ok(self.message)
    }

    /// Returns the message that was not sent, and its target.
    #[inline(always)]
    pub(crate) fn unsent(self) -> (Message, *const Block) {
        let Self { message, target } = self;
        let kind = VALUE;
        (Message { kind, ..message }, target)
    }
}

/// Switches from `me` to `target` if the fast path is possible: `me` runs and need not take the slow
/// path, and `target` is active and not `me`. Otherwise returns the message.
///
/// # Safety
/// The message is a value of the target's inbox type, or an error. The thread does not unwind.
#[inline(always)]
unsafe fn switch_if_fast(me: &Block, target: &Block, message: Message) -> Answer {
    #[cfg(thread_words)]
    {
        let (me, to) = (ptr::from_ref(me).cast(), ptr::from_ref(target).cast());
        // SAFETY: `thread` says which greenlet runs, and an active one is suspended, prepared or runs.
        let (message, target) = unsafe { arch::hop(me, to, message) };
        let target = target.cast();
        Answer { message, target }
    }
    #[cfg(not(thread_words))]
    {
        if thread::runs_on_fast_path(me) && target.state() == State::Active && !ptr::eq(me, target)
        {
            // A pointer: the target may have died and been freed when this goes on.
            let left_for = ptr::from_ref(target);
            // SAFETY: `me` runs. `target` is active and does not run: it is suspended or prepared.
            let message = unsafe { switch_to_active(me, target, message) };
            return Answer {
                message,
                target: left_for,
            };
        }
        Answer::refused(message, target, REFUSED)
    }
}

/// As [`switch_if_fast`], and returns the message also where the thread unwinds (rule s19).
///
/// # Safety
/// As for [`switch_if_fast`], but the thread may unwind.
#[inline(always)]
pub(crate) unsafe fn switch_if_fast_unless_unwinding(
    me: &Block,
    target: &Block,
    message: Message,
) -> Answer {
    if host::is_unwinding() {
        return Answer::refused(message, target, REFUSED_IN_UNWINDING);
    }
    // SAFETY: the message suits the target (contract), and the thread does not unwind.
    unsafe { switch_if_fast(me, target, message) }
}

/// Switches from `me` to `target` on the fast path, and returns the message that `me` is resumed with,
/// which the caller [opens](open) at once.
///
/// # Safety
/// `me` runs and need not take the slow path. `target` is suspended or ready to start. The message is a
/// value of its inbox type, or an error.
#[inline(always)]
pub(crate) unsafe fn switch_to_active(me: &Block, target: &Block, message: Message) -> Message {
    thread::set_current_fast(target);
    // SAFETY: `me` runs, and `target` is suspended or ready to start (contract).
    unsafe { switch(me, target, message) }
}

/// As [`switch_to_active`], with any content and also where `me` must take the slow path.
///
/// # Safety
/// As for [`switch_to_active`], but `me` may need the slow path.
pub(crate) unsafe fn switch_slowly(
    me: &Block,
    target: &Block,
    content: Content<Message>,
) -> Message {
    let mut message = of_content(content);
    if me.last_waiter().is_abandoned() {
        message.kind |= ORPHANED;
    }
    // SAFETY: `me` runs, `target` is suspended or ready to start, and the message suits it (contract).
    unsafe { leave(me, target, message) }
}

/// Switches from `killer` to `end`, the end of the victim's chain of waits. `end` receives `content`: a
/// `GreenletExit`; or nothing if it waits in a kill of its own, which is interrupted. Returns when the
/// victim has died, or another greenlet that the killer was made to wait for, or when the killer itself is
/// interrupted.
///
/// # Safety
/// `killer` runs and waits for `victim`. `end` is suspended; or it waits here, and no death resumes it
/// any more.
pub(super) unsafe fn wait_in_kill(
    killer: &Block,
    victim: &Block,
    end: &Block,
    content: Content<Message>,
) {
    let kill = KillInProgress::new(killer);
    // SAFETY: `end` is called below, when `killer` no longer waits.
    unsafe { kill.begin() };
    // SAFETY: `killer` runs, and `end` is suspended; every inbox type takes an error or nothing (contract).
    let Message { kind, .. } = unsafe { leave(killer, end, of_content(content)) };
    kill.end();
    let departed = thread::take_departed();
    killer.end_waiting();
    thread::set_current(Some(killer));
    let announced = announce_and(kind, departed, killer, || {
        if kind & DIED != 0 {
            // The victim is freed by the caller of the kill, in a loop over its parents. Another greenlet
            // that the killer was made to wait for is freed here.
            // SAFETY: the greenlet that left has set it, and nothing frees that before this.
            unsafe { settle_dead(departed, !ptr::eq(departed, victim)) };
        }
    });
    // A tracer's panic may not go on here: a kill is part of a drop.
    if let Err(panic) = announced {
        host::contain(move || {
            let _dropped = panic;
        });
    }
}

/// Switches on the slow path, and notes `me` as departed if a flag of the message says that the
/// receiver needs it.
///
/// # Safety
/// `me` runs, `target` is suspended or ready to start, and the message is of its inbox type.
unsafe fn leave(me: &Block, target: &Block, mut message: Message) -> Message {
    if trace::is_on() {
        message.kind |= TRACED;
    }
    if message.kind & (TRACED | ORPHANED) != 0 {
        thread::set_departed(me);
    }
    thread::set_current(Some(target));
    // SAFETY: `me` runs, and `target` is suspended or ready to start (contract).
    unsafe { switch(me, target, message) }
}

/// Returns the last message of `dead`. Its outcome, if it is a value, lies in its block. The greenlet
/// gives back its own stack if it can; then the receiver has only to take the outcome.
///
/// # Safety
/// The greenlet runs, and leaves with this message before anything else can run.
#[inline(always)]
pub(super) unsafe fn last_message(dead: &Block, mut outcome: Message) -> Message {
    // SAFETY: the stack is used only up to the switch that follows at once (contract).
    if trace::is_on() || dead.is_abandoned() || !unsafe { dead.settings.stack.give_back_early() } {
        outcome.kind |= if trace::is_on() { DIED | TRACED } else { DIED };
        thread::set_departed(dead);
    }
    outcome
}

/// Opens the message that a switch was resumed with, or that a body starts with.
///
/// Each variant is made in one place, and not by way of memory that a function fills in. So the
/// compiler need not build a large result before the caller takes it apart again.
///
/// # Safety
/// The message has just arrived, in a greenlet whose inbox type is `I`.
#[inline(always)]
pub(crate) unsafe fn open<I>(mut message: Message) -> Result<I, Thrown> {
    let mut room = MaybeUninit::uninit();
    // SAFETY: the message has just arrived, in a greenlet whose inbox type is `I` (contract).
    unsafe {
        if message.kind != VALUE {
            message = settle_arrival::<I>(message, &mut room);
        }
        open_settled(message)
    }
}

/// Does what the flags of a message ask for. Returns a message without flags, of a value, which may lie
/// in `room`, or of an error; the caller opens it with [`open_settled`].
///
/// # Safety
/// As for [`open`].
#[inline(always)]
pub(crate) unsafe fn settle_arrival<I>(
    message: Message,
    room: &mut MaybeUninit<ManuallyDrop<I>>,
) -> Message {
    if is_settled(message) {
        return message;
    }
    // SAFETY: the message has just arrived, in a greenlet whose inbox type is `I` (contract).
    unsafe { settle_slowly(message, room) }
}

/// As [`settle_arrival`], for a message with flags, or with a panic, which this resumes.
///
/// # Safety
/// As for [`open`].
#[cold]
#[inline(never)]
unsafe fn settle_slowly<I>(message: Message, room: &mut MaybeUninit<ManuallyDrop<I>>) -> Message {
    let kind = message.kind;
    // SAFETY: it has just arrived, and a value in a message to this greenlet is of its inbox type.
    let content = unsafe { take_content::<I>(message) };
    if let Err(panic) = settle_departed(kind) {
        drop(content);
        host::resume(panic);
    }
    match content {
        Content::Value(value) => of_value(room.write(ManuallyDrop::new(value))),
        Content::Thrown(thrown) => of_thrown(thrown),
        Content::Panic(payload) => host::resume(*payload),
    }
}

/// Calls the tracer, if the message is traced, with the switch from `departed` to `to`. Then calls
/// `settle`.
fn announce_and(
    kind: usize,
    departed: *const Block,
    to: &Block,
    settle: impl FnOnce(),
) -> Result<(), host::Panic> {
    if kind & TRACED == 0 {
        settle();
        return Ok(());
    }
    // SAFETY: the greenlet that left has set it. The tracer may drop its last handle, so a count keeps it. No count
    // keeps a root on the stack. It leaves on the slow path only to kill a greenlet, on whose way out this is.
    refcount::with_weak_count(unsafe { &*departed }, |from| {
        let announced = trace::announce(is_thrown(kind), from, to);
        settle();
        announced
    })
}

/// Handles the greenlet that left with a message of this kind: calls the tracer, frees that greenlet if it is
/// dead and has no handle, kills it if it is alive and has none. Returns the panic of a tracer as an error.
fn settle_departed(kind: usize) -> Result<(), host::Panic> {
    let departed = thread::take_departed();
    // SAFETY: the running greenlet's block stays while it runs.
    let me = unsafe { &*thread::current() };
    // SAFETY: the greenlet that left has set it if the kind says so, and nothing frees that before this.
    announce_and(kind, departed, me, || unsafe {
        if kind & DIED != 0 {
            settle_dead(departed, true);
        } else if kind & ORPHANED != 0 {
            // If a root left, the greenlet without a handle may be the one on whose stack the root is.
            let block = (*departed).last_waiter();
            if block.is_abandoned() {
                refcount::abandoned(block);
            }
        }
    })
}

/// Gives back the stack of a dead greenlet. If `frees` and no handle is left, also gives up its counts.
///
/// # Safety
/// The block has not been freed.
unsafe fn settle_dead(dead: *const Block, frees: bool) {
    // SAFETY: the block has not been freed (contract). A stack that the user brought may own its last handle,
    // so a count keeps it.
    refcount::with_weak_count(unsafe { &*dead }, |dead| {
        debug_assert_eq!(dead.state(), State::Dead);
        dead.settings.stack.give_back();
        if frees && dead.is_abandoned() {
            // SAFETY: it has no strong count, and the weak one keeps it.
            unsafe { refcount::abandoned(dead) };
        }
    });
}
