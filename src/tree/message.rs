//! What travels in a switch, and how it is taken out on arrival.
//!
//! A value of a word or less travels in a register. A larger one stays on the stack of the suspended
//! sender, or in the block of a greenlet that died, and its address travels. Either way the receiver
//! moves it out before other code can run (rule s10).

use alloc::boxed::Box;
use core::{
    mem::{ManuallyDrop, MaybeUninit},
    ptr,
};

use super::{Block, block::State, kill_in_progress::KillInProgress, refcount, thread};
#[cfg(thread_words)]
use static_assertions::const_assert_eq;

#[cfg(thread_words)]
use crate::arch;
use crate::{Thrown, arch::Message, diagnostics::trace, host};

/// `Message::kind`: what `word` is. A plain value is zero, so that the receiver's usual case
/// is one comparison.
const CONTENT: usize = 0b0011;
const VALUE: usize = 0b0000;
const THROWN: usize = 0b0001;
const PANIC: usize = 0b0010;
/// Nothing: the death of one that was killed.
const NOTHING: usize = 0b0011;
/// `Message::kind`: the one that left has died; its stack is to be released, and it is to be
/// freed if no handle to it is left.
const DIED: usize = 0b0100;
/// `Message::kind`: no handle to the one that left remains; it is to be killed.
const ORPHANED: usize = 0b1000;
/// `Message::kind`: the thread has a tracer, which is to hear of this.
const TRACED: usize = 0b1_0000;

/// What a switch delivers.
pub(crate) enum Content<T> {
    Value(T),
    Thrown(Thrown),
    Panic(host::Panic),
}

/// Does a `T` travel in the register itself?
const fn fits_a_word<T>() -> bool {
    size_of::<T>() <= size_of::<usize>()
}

/// The message that carries `value`, which stays where it is until the receiver, to whom it
/// belongs from then on, takes it.
#[inline(always)]
pub(crate) fn of_value<T>(value: &ManuallyDrop<T>) -> Message {
    let mut word = MaybeUninit::uninit();
    if const { fits_a_word::<T>() } {
        // As bytes: a T of no size may be aligned to more than a word.
        let bytes = ptr::from_ref(value).cast::<u8>();
        // SAFETY: `word` has room for a T; the copy is the one that will be used.
        unsafe { bytes.copy_to_nonoverlapping((&raw mut word).cast(), size_of::<T>()) };
    } else {
        word.write(ptr::from_ref(value).expose_provenance());
    }
    Message { word, kind: VALUE }
}

/// Takes the value out of a message.
///
/// # Safety
/// The message was made by [`of_value`] with this very type; the value has not been taken yet
/// and lies where it lay.
#[inline(always)]
pub(crate) unsafe fn take_value<T>(message: Message) -> T {
    let word = message.word;
    if const { fits_a_word::<T>() } {
        // SAFETY: the first bytes of `word` are a T (contract).
        unsafe { (&raw const word).cast::<T>().read_unaligned() }
    } else {
        // SAFETY: `word` is the address of a T that nobody else will use (contract).
        unsafe { ptr::with_exposed_provenance::<T>(word.assume_init()).read() }
    }
}

fn of_panic(payload: host::Panic) -> Message {
    let thin = Box::into_raw(Box::new(payload));
    Message {
        word: MaybeUninit::new(thin.expose_provenance()),
        kind: PANIC,
    }
}

pub(crate) fn of_thrown(thrown: Thrown) -> Message {
    Message {
        word: MaybeUninit::new(thrown.into_raw().expose_provenance()),
        kind: THROWN,
    }
}

/// The message that carries any content, of which a value is in a message already.
pub(super) fn of_content(content: Content<Message>) -> Message {
    match content {
        Content::Value(message) => message,
        Content::Thrown(thrown) => of_thrown(thrown),
        Content::Panic(payload) => of_panic(payload),
    }
}

/// The last message of `dead`: `outcome`, which if it is a value lies in its block. The
/// greenlet gives back its stack itself if it can; then the receiver has only to take the outcome.
///
/// # Safety
/// The greenlet runs, and leaves with this message before anything else can run.
#[inline(always)]
pub(super) unsafe fn last_of(dead: &Block, mut outcome: Message) -> Message {
    // SAFETY: the caller's word.
    if trace::is_on() || dead.is_abandoned() || !unsafe { dead.settings().stack.give_back_early() }
    {
        outcome.kind |= if trace::is_on() { DIED | TRACED } else { DIED };
        thread::set_departed(dead);
    }
    outcome
}

pub(super) const NOTHING_SENT: Message = Message {
    word: MaybeUninit::uninit(),
    kind: NOTHING,
};

/// What a greenlet ends with as a message to the one that killed it: nothing.
pub(super) const KILLED: Content<Message> = Content::Value(NOTHING_SENT);

/// Every switch of the tree, but for the last one of a greenlet.
///
/// # Safety
/// `me` runs and `target` is suspended, or ready to start.
#[inline(always)]
unsafe fn switch(me: &Block, target: &Block, message: Message) -> Message {
    me.fiber().leave(target.fiber());
    // SAFETY: the caller's word.
    let message = unsafe { me.context().switch(target.context(), message) };
    me.fiber().arrive();
    message
}

/// `Message::kind` of what was not sent. (`HOP_REFUSED` in `asm/x86_64.S`.)
const REFUSED: usize = 0b100_0000;
/// The same, where the thread unwinds.
const REFUSED_IN_UNWINDING: usize = 0b1100_0000;

#[cfg(thread_words)]
const_assert_eq!(REFUSED, arch::core_layout::REFUSED);

/// What [`hop`] returns.
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    message: Message,
    target: *const Block,
}

impl Answer {
    pub(crate) fn new(message: Message, target: *const Block) -> Self {
        Self { message, target }
    }

    #[inline(always)]
    fn refused(message: Message, target: &Block, kind: usize) -> Self {
        let message = Message { kind, ..message };
        Self { message, target }
    }

    /// Was nothing sent because the thread unwinds?
    #[inline(always)]
    pub(crate) fn is_refused_in_unwinding(&self) -> bool {
        self.message.kind == REFUSED_IN_UNWINDING
    }

    /// Is it a value, and so the usual case?
    #[inline(always)]
    pub(crate) fn is_value(&self) -> bool {
        self.message.kind == VALUE
    }

    /// What has arrived, which is to be [opened](open) at once; or, if nothing was sent, the message
    /// as it was, and its target.
    #[inline(always)]
    pub(crate) fn arrived(self) -> Result<Message, (Message, *const Block)> {
        if self.message.kind & REFUSED != 0 {
            return Err(self.unsent());
        }
        Ok(self.message)
    }

    /// If nothing was sent, the message as it was, and its target.
    #[inline(always)]
    pub(crate) fn unsent(self) -> (Message, *const Block) {
        let Self { message, target } = self;
        let kind = VALUE;
        (Message { kind, ..message }, target)
    }

    /// What has arrived, if it is known that something has.
    #[inline(always)]
    pub(crate) fn message(self) -> Message {
        self.message
    }

    /// If nothing was sent, the target.
    #[inline(always)]
    pub(crate) fn target(self) -> *const Block {
        self.target
    }
}

/// Switches from `me` to `target`, if `me` runs with nothing to be told to it and `target` is
/// active, and returns what `me` is resumed with. Otherwise returns the message. One answer for both,
/// so that the usual case is one test, after the switch.
///
/// # Safety
/// The message is a value of the target's inbox type, or an error; the thread is not unwinding.
#[inline(always)]
unsafe fn hop(me: &Block, target: &Block, message: Message) -> Answer {
    #[cfg(thread_words)]
    {
        let (me, to) = (ptr::from_ref(me).cast(), ptr::from_ref(target).cast());
        // SAFETY: `thread` says who runs, and an active greenlet is suspended, prepared or runs.
        let (message, target) = unsafe { arch::hop(me, to, message) };
        let target = target.cast();
        Answer { message, target }
    }
    #[cfg(not(thread_words))]
    {
        if thread::runs_undisturbed(me) && target.state() == State::Active && !ptr::eq(me, target) {
            // SAFETY: `me` runs, and an active one that does not is suspended or prepared.
            let message = unsafe { hop_to_active(me, target, message) };
            return Answer { message, target };
        }
        Answer::refused(message, target, REFUSED)
    }
}

/// As [`hop`], and returns the message also where the thread is unwinding (rule s19).
///
/// # Safety
/// As for [`hop`], but the thread may be unwinding.
#[inline(always)]
pub(crate) unsafe fn hop_unless_unwinding(me: &Block, target: &Block, message: Message) -> Answer {
    if host::is_unwinding() {
        return Answer::refused(message, target, REFUSED_IN_UNWINDING);
    }
    // SAFETY: the caller's word, and the thread is not unwinding.
    unsafe { hop(me, target, message) }
}

/// Switches from the running `me` to the active `target` with a value or an error, and returns what
/// `me` is resumed with, which is to be [opened](open) at once.
///
/// # Safety
/// `me` is running, and nothing is to be told to it. `target` is suspended or ready to start, and
/// the message is a value of its inbox type, or an error.
#[inline(always)]
pub(crate) unsafe fn hop_to_active(me: &Block, target: &Block, message: Message) -> Message {
    thread::set_current_undisturbed(target);
    // SAFETY: who runs and who is suspended is the caller's word.
    unsafe { switch(me, target, message) }
}

/// As [`hop_to_active`], for any content and also when something is to be told to the one that leaves.
///
/// # Safety
/// As for [`hop_to_active`], but `me` may have been abandoned.
pub(crate) unsafe fn hop_with(me: &Block, target: &Block, content: Content<Message>) -> Message {
    let mut message = of_content(content);
    if me.last_waiter().is_abandoned() {
        message.kind |= ORPHANED;
    }
    // SAFETY: the caller's word.
    unsafe { leave(me, target, message) }
}

/// What a switch returns for the message that it was resumed with, or a body begins with.
///
/// There is one way to each variant, and none through memory that a function fills in: so the
/// compiler need not make a large result before the caller takes it apart again.
///
/// # Safety
/// The message has just arrived, in a greenlet whose inbox type is `I`.
#[inline(always)]
pub(crate) unsafe fn open<I>(mut message: Message) -> Result<I, Thrown> {
    let mut room = MaybeUninit::uninit();
    // SAFETY: the caller's word.
    unsafe {
        if message.kind != VALUE {
            message = settle_arrival::<I>(message, &mut room);
        }
        open_settled(message)
    }
}

/// Sees to all that a message brings besides its content, and leaves a value, which may then lie in
/// `room`, or an error.
///
/// # Safety
/// As for [`open`], which is still to be done.
#[inline(always)]
pub(crate) unsafe fn settle_arrival<I>(
    message: Message,
    room: &mut MaybeUninit<ManuallyDrop<I>>,
) -> Message {
    match message.kind {
        VALUE | THROWN => message,
        // SAFETY: the caller's word.
        _ => unsafe { arrive(message, room) },
    }
}

/// [`open`] for a message that is just a value or an error.
///
/// # Safety
/// As for [`open`].
#[inline(always)]
pub(crate) unsafe fn open_settled<I>(message: Message) -> Result<I, Thrown> {
    // SAFETY: the caller's word: a value in a message to this greenlet is of its inbox type, and
    // what is none is an error.
    unsafe {
        if message.kind == VALUE {
            Ok(take_value(message))
        } else {
            Err(take_thrown(message))
        }
    }
}

/// Takes the error out of a message.
///
/// # Safety
/// The word of the message is that of one from [`of_thrown`]; the error has not been taken yet.
#[inline(always)]
pub(crate) unsafe fn take_thrown(message: Message) -> Thrown {
    // SAFETY: the caller's word.
    unsafe { Thrown::from_raw(ptr::with_exposed_provenance_mut(message.word.assume_init())) }
}

/// Switches from `killer` to `end`, which is being killed. Returns when the victim has died, or
/// one that the killer was made to wait for instead, or the killer is interrupted.
///
/// # Safety
/// `killer` runs and waits for `victim`; `end` is suspended and being killed.
pub(super) unsafe fn hop_to_kill(killer: &Block, victim: &Block, end: &Block) {
    // SAFETY: the caller's word.
    unsafe { wait_in_kill(killer, victim, end, of_thrown(Thrown::exit())) };
}

/// Switches from `killer` to `end`, which waits in a kill of its own and is being killed: its
/// kill returns at once. Otherwise as [`hop_to_kill`].
///
/// # Safety
/// `killer` runs and waits for `victim`; `end` waits in [`hop_to_kill`] or here, and nobody's
/// death will resume it any more.
pub(super) unsafe fn hop_to_interrupt(killer: &Block, victim: &Block, end: &Block) {
    let message = Message {
        word: MaybeUninit::uninit(),
        kind: NOTHING,
    };
    // SAFETY: the caller's word.
    unsafe { wait_in_kill(killer, victim, end, message) };
}

/// # Safety
/// As for [`hop_to_kill`] and [`hop_to_interrupt`].
unsafe fn wait_in_kill(killer: &Block, victim: &Block, end: &Block, message: Message) {
    let kill = KillInProgress::new(killer);
    // SAFETY: it leaves the list here, where `killer` ceases to wait.
    unsafe { kill.begin() };
    // SAFETY: the caller's word.
    let Message { kind, .. } = unsafe { leave(killer, end, message) };
    kill.end();
    let departed = thread::take_departed();
    killer.end_waiting();
    thread::set_current(Some(killer));
    let told = announce_and(kind, departed, killer, || {
        if kind & DIED != 0 {
            // Who killed the victim frees it, in a loop over its parents. Another one, for
            // which the killer was made to wait, is nobody else's.
            // SAFETY: set by the one that left, and nothing frees it before this.
            unsafe { settle_dead(departed, !ptr::eq(departed, victim)) };
        }
    });
    // A tracer's panic may not go on here: a kill is part of a drop.
    if let Err(panic) = told {
        host::contain(move || {
            let _dropped = panic;
        });
    }
}

/// The switch of the slow path: leaves word of who left, for those who must know.
///
/// # Safety
/// `me` runs, `target` is suspended, and the message is of its inbox type.
unsafe fn leave(me: &Block, target: &Block, mut message: Message) -> Message {
    if trace::is_on() {
        message.kind |= TRACED;
    }
    if message.kind & (TRACED | ORPHANED) != 0 {
        thread::set_departed(me);
    }
    thread::set_current(Some(target));
    // SAFETY: the caller's word.
    unsafe { switch(me, target, message) }
}

/// Takes the content out of a message that is not just a value, and then sees to the one that
/// left. Returns a plain message of a value, which may lie in `room`, or of an error.
///
/// # Safety
/// The message has just arrived, in a greenlet whose inbox type is `I`.
#[cold]
#[inline(never)]
unsafe fn arrive<I>(message: Message, room: &mut MaybeUninit<ManuallyDrop<I>>) -> Message {
    let Message { word, kind } = message;
    let mut content = match kind & CONTENT {
        VALUE => {
            // SAFETY: a value in a message to this greenlet is of its inbox type.
            Content::Value(unsafe { take_value::<I>(message) })
        }
        // SAFETY: such a message is made by `of_thrown`, and has just arrived.
        THROWN => Content::Thrown(unsafe { take_thrown(message) }),
        PANIC => {
            // SAFETY: made by `of_panic`, and taken here once.
            Content::Panic(*unsafe {
                Box::<host::Panic>::from_raw(ptr::with_exposed_provenance_mut(word.assume_init()))
            })
        }
        _ => unreachable!("only a killer receives nothing"),
    };
    let departed = thread::take_departed();
    // SAFETY: the running greenlet's block stays while it runs.
    let me = unsafe { &*thread::current() };
    if let Err(panic) = announce_and(kind, departed, me, || settle(kind, departed)) {
        content = Content::Panic(panic);
    }
    match content {
        Content::Value(value) => of_value(room.write(ManuallyDrop::new(value))),
        Content::Thrown(thrown) => of_thrown(thrown),
        Content::Panic(payload) => host::resume(payload),
    }
}

/// Tells the tracer, if there is one, that `to` was reached by a message of this kind from
/// `departed`, and then sees to that one.
fn announce_and(
    kind: usize,
    departed: *const Block,
    to: &Block,
    see_to_it: impl FnOnce(),
) -> Result<(), host::Panic> {
    if kind & TRACED == 0 {
        see_to_it();
        return Ok(());
    }
    // SAFETY: set by the one that left. The tracer may drop its last handle, so it is kept.
    refcount::with_weak_count(unsafe { &*departed }, |from| {
        let told = trace::announce(matches!(kind & CONTENT, THROWN | PANIC), from, to);
        see_to_it();
        told
    })
}

/// Sees to the one that left: frees the dead, kills the abandoned.
fn settle(kind: usize, departed: *const Block) {
    // SAFETY: set by the one that left, if the kind says so, and nothing frees it before this.
    unsafe {
        if kind & DIED != 0 {
            settle_dead(departed, true);
        } else if kind & ORPHANED != 0 {
            // Of a root that left, the greenlet on whose stack it is may be nobody's any more.
            let block = (*departed).last_waiter();
            if block.is_abandoned() {
                refcount::abandoned(block);
            }
        }
    }
}

/// Gives back the stack of one that is dead and, if that is up to the caller (`frees`), the rest when
/// nobody holds it.
///
/// # Safety
/// It is there.
unsafe fn settle_dead(dead: *const Block, frees: bool) {
    // SAFETY: the caller's word. Its stack may be the user's, and own its last handle: so it is kept.
    refcount::with_weak_count(unsafe { &*dead }, |dead| {
        debug_assert_eq!(dead.state(), State::Dead);
        dead.settings().stack.give_back();
        if frees && dead.is_abandoned() {
            // SAFETY: without a strong count, and kept.
            unsafe { refcount::abandoned(dead) };
        }
    });
}
