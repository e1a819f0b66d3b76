//! The running greenlet: switching, throwing and killing.

use core::{
    fmt,
    marker::PhantomData,
    mem::{self, ManuallyDrop, MaybeUninit},
    ptr,
};

use crate::{
    Greenlet, Invariant, KillError, SwitchError, Thrown, WeakGreenlet,
    arch::Message,
    diagnostics::trace,
    host,
    tree::{self, Block, Content, Delivery, Killed, Own, Refusal, State, thread},
};

/// The running greenlet, which receives messages of type `I`.
///
/// The closure of [`enter`](crate::enter) receives a [`Root`](crate::Root) and each body a
/// [`Child`](crate::Child); both deref to this. Code can switch or throw only through it. Two other
/// operations run greenlets: a nested [`enter`](crate::enter), and the drop of the last handle of a
/// suspended greenlet, which kills it.
///
/// `'e` is the `enter` that the greenlet belongs to. A function that makes greenlets or returns handles
/// names it: `fn spawn<'e>(me: &Current<'e, ()>) -> Greenlet<'e, u32>`. A function that only switches need
/// not. (rustc may suggest `&'a Current<'a, _>`. That uses one lifetime for two things and fails at the
/// call.)
///
/// A `Current` cannot be stored, cloned or used in another greenlet:
///
/// ```compile_fail
/// use greenlet::{Greenlet, enter};
///
/// enter(|me| {
///     let stranger = Greenlet::new(me, move |_, (): ()| me.switch(&me.handle(), ()));
/// });
/// ```
#[repr(transparent)]
pub struct Current<'e, I> {
    block: Block,
    inbox: PhantomData<Invariant<I>>,
    enter: PhantomData<Invariant<&'e ()>>,
}

impl<'e, I> Current<'e, I> {
    /// Views a block as the `Current` of its greenlet.
    ///
    /// # Safety
    /// The block's inbox type is `I`. Its greenlet runs, and the reference is not used after its closure or
    /// body has returned.
    pub(crate) unsafe fn of(block: &Block) -> &Self {
        // SAFETY: `Current` is a transparent wrapper of a block.
        unsafe { &*ptr::from_ref(block).cast::<Self>() }
    }

    #[inline(always)]
    pub(crate) fn block(&self) -> &Block {
        &self.block
    }

    /// Returns a handle to this greenlet, with which others switch to it.
    ///
    /// Do not hold it over a switch: a suspended greenlet that holds a handle to itself is not killed when
    /// the last other handle is dropped. Give the handle away, or [`downgrade`](Self::downgrade) instead. To
    /// switch to the parent no handle is needed: see
    /// [`Child::switch_to_parent`](crate::Child::switch_to_parent).
    #[must_use]
    pub fn handle(&self) -> Greenlet<'e, I> {
        self.block.retain();
        // SAFETY: `retain` has just made the count, and the block of a running greenlet is not freed.
        Greenlet::of(unsafe { Own::from_counted(ptr::NonNull::from(&self.block)) })
    }

    /// Returns a handle to this greenlet that does not keep it alive (rule [s18](crate::guide::rules#s18)).
    #[must_use]
    pub fn downgrade(&self) -> WeakGreenlet<'e, I> {
        WeakGreenlet::of(&self.block)
    }

    /// Returns `true` if this greenlet is being killed and so can no longer switch (rule
    /// [s15](crate::guide::rules#s15)). The call does not count as an attempt to switch.
    ///
    /// A wrapper that waits for its caller, and reports a cancellation in its own way, should ask this and
    /// return. A loop that neither switches nor asks never ends, and neither does the kill.
    ///
    /// ```
    /// use greenlet::{Greenlet, enter};
    ///
    /// enter(|me| {
    ///     let worker = Greenlet::new(me, |me, ()| {
    ///         while !me.is_exiting() {
    ///             let _error = me.switch_to_parent(());
    ///         }
    ///         Ok(())
    ///     });
    ///     me.switch(&worker, ()).unwrap();
    ///     me.kill(&worker).unwrap();
    /// });
    /// ```
    #[must_use]
    pub fn is_exiting(&self) -> bool {
        self.block.is_exiting()
    }

    /// Sends `message` to `target`, suspends this greenlet until a message for it arrives, and returns that
    /// message.
    ///
    /// A suspended target returns `message` from its own `switch`. A new target starts with it. If the target
    /// is dead, its first live ancestor receives the message, provided that its inbox has the same type
    /// (rules [s6](crate::guide::rules#s6), [s9](crate::guide::rules#s9)). A switch to the running greenlet
    /// itself returns the message (rule [s8](crate::guide::rules#s8)).
    ///
    /// ```
    /// use greenlet::{Greenlet, enter};
    ///
    /// enter(|me| {
    ///     let summer = Greenlet::new(me, |me, mut sum: u32| {
    ///         while sum < 100 {
    ///             sum += me.switch_to_parent(sum)?;
    ///         }
    ///         Ok(sum)
    ///     });
    ///     let sums = [1, 10, 89].map(|n| me.switch(&summer, n).unwrap());
    ///     assert_eq!(sums, [1, 11, 100]);
    ///     assert!(summer.is_dead());
    /// });
    /// ```
    ///
    /// # Errors
    /// Returns an error that is thrown at this greenlet while it waits: by [`throw`](Self::throw), by a child
    /// that ends with an error, or a [`GreenletExit`](crate::GreenletExit) when it is killed. If
    /// nothing was sent, returns the reason as a [`SwitchError<()>`](SwitchError) and drops the message;
    /// [`try_switch`](Self::try_switch) gives it back.
    ///
    /// # Panics
    /// Resumes the panic of a child, if one arrives while this greenlet waits (rule
    /// [s11](crate::guide::rules#s11)). When this greenlet is being killed, its second attempt to switch
    /// since then unwinds it (rule [s15](crate::guide::rules#s15)).
    #[cfg_attr(switch_in_line, inline(always))]
    pub fn switch<J>(&self, target: &Greenlet<'_, J>, message: J) -> Result<I, Thrown> {
        self.switch_to(target.block(), message)
    }

    /// Does what [`switch`](Self::switch) does. The inbox type of `target` is `J`.
    #[cfg_attr(switch_in_line, inline(always))]
    pub(crate) fn switch_to<J>(&self, target: &Block, message: J) -> Result<I, Thrown> {
        let message = ManuallyDrop::new(message);
        let sent = tree::of_value(&message);
        // SAFETY: `J` and `I` are the inbox types of the two greenlets. The message is a `ManuallyDrop` that
        // is not used here again, and what has arrived is opened at once.
        unsafe {
            let answer = tree::switch_if_fast_unless_unwinding(&self.block, target, sent);
            let mut received = answer.message;
            let mut room = MaybeUninit::uninit();
            if !answer.is_value() {
                let Message { word, kind } = received;
                received = self.receive::<J>(word, kind, answer.target, &mut room);
            }
            tree::open_settled(received)
        }
    }

    /// Switches as [`switch`](Self::switch) does, but returns a message that could not be sent.
    ///
    /// The outer result says whether the message was sent. The inner result is what arrived.
    ///
    /// ```
    /// use greenlet::{Greenlet, SwitchError, enter};
    ///
    /// enter(|me| {
    ///     let over = Greenlet::new(me, |_, _: String| Ok(()));
    ///     me.try_switch(&over, "first".to_string()).unwrap().unwrap();
    ///     let refusal = me.try_switch(&over, "second".to_string());
    ///     assert_eq!(refusal.unwrap_err(), SwitchError::Dead("second".to_string()));
    /// });
    /// ```
    ///
    /// # Errors
    /// Returns a [`SwitchError`] with the message if nothing was sent.
    ///
    /// # Panics
    /// As [`switch`](Self::switch).
    #[cfg_attr(switch_in_line, inline(always))]
    pub fn try_switch<J>(
        &self,
        target: &Greenlet<'_, J>,
        message: J,
    ) -> Result<Result<I, Thrown>, SwitchError<J>> {
        self.try_switch_to(target.block(), message)
    }

    /// Does what [`try_switch`](Self::try_switch) does. The inbox type of `target` is `J`.
    #[cfg_attr(switch_in_line, inline(always))]
    pub(super) fn try_switch_to<J>(
        &self,
        target: &Block,
        message: J,
    ) -> Result<Result<I, Thrown>, SwitchError<J>> {
        let message = ManuallyDrop::new(message);
        let sent = tree::of_value(&message);
        // SAFETY: as in `switch_to`.
        unsafe {
            let answer = tree::switch_if_fast_unless_unwinding(&self.block, target, sent);
            let received = match answer.arrived() {
                Ok(received) => received,
                Err((sent, target)) => match self.switch_slowly::<J>(&*target, sent) {
                    Ok(received) => received,
                    Err(refusal) => return Err(not_sent(refusal, sent)),
                },
            };
            Ok(tree::open(received))
        }
    }

    /// Throws `error` at `target` and waits for a message as [`switch`](Self::switch) does.
    ///
    /// The `switch` in which a suspended target waits returns the error as `Err`. A new target dies without
    /// running, and the error goes to its parent. If the target is dead, its first live ancestor receives the
    /// error. Thrown at the running greenlet itself, it is returned at once (rule
    /// [s12](crate::guide::rules#s12)).
    ///
    /// ```
    /// use greenlet::{Greenlet, enter};
    ///
    /// #[derive(Debug)]
    /// struct TimedOut;
    /// # impl std::fmt::Display for TimedOut {
    /// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    /// #         f.write_str("timed out")
    /// #     }
    /// # }
    /// impl std::error::Error for TimedOut {}
    ///
    /// enter(|me| {
    ///     let waiting = Greenlet::new(me, |me, ()| match me.switch_to_parent("waiting") {
    ///         Err(thrown) if thrown.downcast_ref::<TimedOut>().is_some() => Ok("gave up"),
    ///         answer => answer.map(|()| "answered"),
    ///     });
    ///     assert_eq!(me.switch(&waiting, ()).unwrap(), "waiting");
    ///     assert_eq!(me.throw(&waiting, TimedOut).unwrap(), "gave up");
    /// });
    /// ```
    ///
    /// # Errors
    /// As [`switch`](Self::switch).
    ///
    /// # Panics
    /// As [`switch`](Self::switch).
    pub fn throw<J>(
        &self,
        target: &Greenlet<'_, J>,
        error: impl Into<Thrown>,
    ) -> Result<I, Thrown> {
        let received = throw_to(&self.block, target.block(), error.into())
            .unwrap_or_else(|(refusal, _)| tree::of_thrown(refused(refusal)));
        // SAFETY: it has just arrived in `self`, whose inbox type is `I`; or it is an error.
        unsafe { tree::open(received) }
    }

    /// Throws as [`throw`](Self::throw) does, but returns an error that could not be delivered.
    ///
    /// # Errors
    /// Returns a [`SwitchError`] with the error if nothing was thrown.
    ///
    /// # Panics
    /// As [`switch`](Self::switch).
    pub fn try_throw<J>(
        &self,
        target: &Greenlet<'_, J>,
        error: impl Into<Thrown>,
    ) -> Result<Result<I, Thrown>, SwitchError<Thrown>> {
        match throw_to(&self.block, target.block(), error.into()) {
            // SAFETY: it has just arrived in `self`, whose inbox type is `I`.
            Ok(received) => Ok(unsafe { tree::open(received) }),
            Err((refusal, thrown)) => Err(SwitchError::new(refusal, thrown)),
        }
    }

    /// Kills `target`, and returns here when it is dead, whichever greenlet is its parent.
    ///
    /// The `switch` in which a suspended target waits returns [`GreenletExit`](crate::GreenletExit); it drops
    /// its locals and gives back its stack (rule [s14](crate::guide::rules#s14)). A new target dies without
    /// running. A dead target stays as it is. The value, error or panic that the target ends with is dropped
    /// (rule [s16](crate::guide::rules#s16)).
    ///
    /// ```
    /// use greenlet::{Greenlet, KillError, enter};
    ///
    /// enter(|me| {
    ///     let server = Greenlet::new(me, |me, ()| {
    ///         let _closed_by_the_kill = std::net::TcpListener::bind("127.0.0.1:0")?;
    ///         me.switch_to_parent(())
    ///     });
    ///     me.switch(&server, ()).unwrap();
    ///     assert_eq!(me.kill(&server), Ok(()));
    ///     assert!(server.is_dead());
    ///     assert_eq!(me.kill(&me.handle()), Err(KillError::Root));
    /// });
    /// ```
    ///
    /// # Errors
    /// Returns a [`KillError`] if the target is a root or cannot be dead when this returns.
    pub fn kill<J>(&self, target: &Greenlet<'_, J>) -> Result<(), KillError> {
        let target = target.block();
        if target.is_root() && !target.is_dead() {
            return Err(KillError::Root);
        }
        match tree::kill(target) {
            Killed::Dead => Ok(()),
            Killed::Itself => Err(KillError::Itself),
            Killed::Beneath | Killed::InProgress | Killed::Interrupted => Err(KillError::Later),
        }
    }

    /// Runs `body` in a new root greenlet of the same `enter`, and returns its result. Until then this stack
    /// has a second inbox.
    ///
    /// The inbox type need not be `'static`, unlike that of [`enter`](crate::enter): messages may borrow or be
    /// handles. Greenlets made under this root live on when `body` has returned.
    ///
    /// ```
    /// use greenlet::{Current, Greenlet, Root, enter};
    ///
    /// let text = String::from("to be or not");
    /// enter(|me: &Root<()>| {
    ///     me.with_inbox(|me: &Current<Option<&str>>| {
    ///         let words = Greenlet::borrowing(me, |me, ()| {
    ///             for word in text.split(' ') {
    ///                 me.switch_to_parent(Some(word))?;
    ///             }
    ///             Ok(None)
    ///         });
    ///         assert_eq!(me.switch(&words, ())?, Some("to"));
    ///         assert_eq!(me.switch(&words, ())?, Some("be"));
    ///         Ok::<(), greenlet::Thrown>(())
    ///     })
    /// })
    /// # .unwrap();
    /// ```
    pub fn with_inbox<J: 'e, R>(&self, body: impl FnOnce(&Current<'e, J>) -> R) -> R {
        tree::with_inbox(&self.block, body)
    }

    /// Handles an answer that is not simply a value, and returns the message that arrives in the end,
    /// [settled](tree::settle_arrival). The answer is passed in its parts, so that the usual case keeps them
    /// in registers.
    ///
    /// # Safety
    /// [`tree::switch_if_fast_unless_unwinding`] has just returned the answer for a message of the target's
    /// type `J`, which nothing else takes. The caller opens the result at once.
    #[cold]
    #[inline(never)]
    unsafe fn receive<J>(
        &self,
        word: MaybeUninit<usize>,
        kind: usize,
        target: *const Block,
        room: &mut MaybeUninit<ManuallyDrop<I>>,
    ) -> Message {
        let message = Message { word, kind };
        let answer = tree::Answer { message, target };
        // SAFETY: the message has just arrived in `self`, whose inbox type is `I`; or it was not sent, and
        // the contract of `begin` is that of this function.
        unsafe {
            match answer.arrived() {
                Ok(received) => tree::settle_arrival(received, room),
                Err(_) => self.begin::<J>(word, kind, target, room),
            }
        }
    }

    /// As [`receive`](Self::receive), for an answer that says that nothing was sent. Starts a new target, or
    /// takes the slow path. It is separate and has the same parameters so that the call is a jump, and an
    /// error that arrives does not pay for its frame.
    ///
    /// # Safety
    /// As for [`receive`](Self::receive).
    #[cold]
    #[inline(never)]
    unsafe fn begin<J>(
        &self,
        word: MaybeUninit<usize>,
        kind: usize,
        target: *const Block,
        room: &mut MaybeUninit<ManuallyDrop<I>>,
    ) -> Message {
        let message = Message { word, kind };
        let answer = tree::Answer { message, target };
        // SAFETY: the caller of the switch still borrows the target of a message that was not sent.
        let new = unsafe { &*target };
        let starts = new.state() == State::New
            && !answer.is_refused_in_unwinding()
            && thread::runs_on_fast_path(&self.block)
            // If it cannot start, the slow path says why.
            && new.start().is_ok();
        // SAFETY: `self` runs and the target has just been started; or the contract is that of this function.
        unsafe {
            if !starts {
                return self.switch_or_drop::<J>(word, kind, target, room);
            }
            let received = tree::switch_to_active(&self.block, new, answer.unsent().0);
            tree::settle_arrival(received, room)
        }
    }

    /// As [`begin`](Self::begin), by the slow path. After a refusal it drops the message and returns an error.
    ///
    /// # Safety
    /// As for [`receive`](Self::receive).
    #[cold]
    #[inline(never)]
    unsafe fn switch_or_drop<J>(
        &self,
        word: MaybeUninit<usize>,
        kind: usize,
        target: *const Block,
        room: &mut MaybeUninit<ManuallyDrop<I>>,
    ) -> Message {
        let message = Message { word, kind };
        let (sent, target) = tree::Answer { message, target }.unsent();
        // SAFETY: the caller of the switch still borrows the target of a message that was not sent. The message is
        // a `J` that nothing else takes (contract), and after a refusal nothing uses it any more.
        unsafe {
            let received = self
                .switch_slowly::<J>(&*target, sent)
                .unwrap_or_else(|refusal| {
                    drop(tree::Unsent::<J>::new(sent));
                    tree::of_thrown(refused(refusal))
                });
            tree::settle_arrival(received, room)
        }
    }

    /// Sends a message to any target, by the slow path. After a refusal the caller still owns the message.
    ///
    /// # Safety
    /// As for [`begin`](Self::begin).
    #[cold]
    #[inline(never)]
    unsafe fn switch_slowly<J>(&self, target: &Block, sent: Message) -> Result<Message, Refusal> {
        // SAFETY: the message is a `J` that nothing else takes (contract). If this is dropped, which is when
        // `switch_slowly` unwinds, it has not been sent.
        unsafe {
            let unsent = tree::Unsent::<J>::new(sent);
            let received = switch_slowly(&self.block, target, sent);
            mem::forget(unsent);
            received
        }
    }
}

/// Sends a value to any target, by the slow path, and returns the message that `me` is resumed with. It unwinds
/// only if the value has not been sent.
///
/// # Safety
/// The value is of the target's inbox type, and nothing else takes it. The caller opens the result at once.
#[inline(never)]
unsafe fn switch_slowly(me: &Block, target: &Block, sent: Message) -> Result<Message, Refusal> {
    let receiver = admit_to(me, target, Delivery::Value(target.kind.inbox))?;
    if ptr::eq(receiver, me) {
        announce_to_itself(me, false);
        return Ok(sent);
    }
    // SAFETY: `me` runs. The receiver is suspended or ready to start, and its inbox type is the target's
    // (`admit_to`).
    Ok(unsafe { tree::switch_slowly(me, receiver, Content::Value(sent)) })
}

/// Throws an error at any target, and returns the message that `me` is resumed with, which the caller
/// [opens](tree::open) at once; or why nothing was thrown, with the error.
#[inline]
fn throw_to(me: &Block, target: &Block, thrown: Thrown) -> Result<Message, (Refusal, Thrown)> {
    let sent = tree::of_thrown(thrown);
    // SAFETY: every inbox type takes an error. A message that was not sent is the one made here.
    unsafe {
        match tree::switch_if_fast_unless_unwinding(me, target, sent).arrived() {
            Ok(received) => Ok(received),
            Err((unsent, _)) => throw_slowly(me, target, tree::take_thrown(unsent)),
        }
    }
}

/// Does what [`throw_to`] does, by the slow path.
#[cold]
#[inline(never)]
fn throw_slowly(
    me: &Block,
    target: &Block,
    mut thrown: Thrown,
) -> Result<Message, (Refusal, Thrown)> {
    let receiver = match admit_to(me, target, Delivery::Thrown) {
        Ok(receiver) => receiver,
        Err(refusal) => return Err((refusal, thrown)),
    };
    if !ptr::eq(receiver, target) {
        thrown.exit_becomes_notice();
    }
    if ptr::eq(receiver, me) {
        announce_to_itself(me, true);
        return Ok(tree::of_thrown(thrown));
    }
    // SAFETY: `me` runs and the receiver is suspended (`admit_to`).
    Ok(unsafe { tree::switch_slowly(me, receiver, Content::Thrown(thrown)) })
}

/// Checks that `me` may send, and returns the greenlet that receives a delivery to `target`.
fn admit_to<'a>(
    me: &'a Block,
    target: &'a Block,
    delivery: Delivery,
) -> Result<&'a Block, Refusal> {
    tree::admit(me)?;
    let found = tree::receiver(target, delivery).map_err(|(refusal, _)| refusal);
    if let Delivery::Thrown = delivery {
        // New greenlets may have died of the error, and their destructors may have killed `me`.
        tree::admit(me)?;
    }
    found
}

/// Calls the tracer for a switch of the running greenlet to itself (rule s22).
fn announce_to_itself(me: &Block, thrown: bool) {
    if trace::is_on() {
        trace::announce(thrown, me, me).unwrap_or_else(|panic| host::resume(panic));
    }
}

/// Returns the refusal of a message, with the message.
///
/// # Safety
/// The message holds an `M`, which has not been taken.
#[cold]
#[inline(never)]
unsafe fn not_sent<M>(refusal: Refusal, message: Message) -> SwitchError<M> {
    // SAFETY: the message holds an `M`, which has not been taken (contract).
    SwitchError::new(refusal, unsafe { tree::take_value(message) })
}

/// Returns the error of `switch` and `throw` for a refusal.
pub(crate) fn refused(refusal: Refusal) -> Thrown {
    match refusal {
        Refusal::Exiting => Thrown::exit(),
        refusal => SwitchError::new(refusal, ()).into(),
    }
}

impl<I> fmt::Debug for Current<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.block.fmt(f)
    }
}
