//! The running greenlet: switching, throwing and killing.

use core::{
    fmt,
    marker::PhantomData,
    mem::{self, ManuallyDrop, MaybeUninit},
    ops::Deref,
    ptr,
};

use crate::{
    Greenlet, GreenletExit, Invariant, KillError, ParentError, SwitchError, Thrown, WeakGreenlet,
    arch::Message,
    diagnostics::trace,
    host,
    tree::{self, Block, Content, Delivery, Killed, Own, Refusal, State, thread},
};

/// The running greenlet, which receives messages of type `I`.
///
/// The closure of [`enter`](crate::enter) is lent a [`Root`](crate::Root) and each body a [`Child`]; both deref to
/// this. Only through it can code switch or throw. Other greenlets also run, without it, while code
/// is inside a nested [`enter`](crate::enter), and while it drops the last handle of a suspended
/// greenlet, which is killed.
///
/// `'e` is the `enter` that the greenlet belongs to. A function that makes greenlets, or returns
/// handles, names it: `fn spawn<'e>(me: &Current<'e, ()>) -> Greenlet<'e, u32>`; one that only switches
/// need not. (Where rustc suggests `&'a Current<'a, _>`, that is one lifetime for two things, and fails
/// at the call.)
///
/// It cannot be kept, cloned or given to another greenlet:
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
    /// # Safety
    /// The block's inbox type is `I`; its greenlet runs, and the reference is used no longer
    /// than its closure or body runs.
    pub(crate) unsafe fn of(block: &Block) -> &Self {
        // SAFETY: `Current` is a transparent wrapper of a block.
        unsafe { &*ptr::from_ref(block).cast::<Self>() }
    }

    #[inline(always)]
    pub(crate) fn block(&self) -> &Block {
        &self.block
    }

    /// A handle to this greenlet, for others to switch to it.
    ///
    /// A greenlet that holds a handle to itself while it is suspended is not killed when the last other
    /// handle goes: give it away, or [`downgrade`](Self::downgrade) instead. For the parent none is
    /// needed: see [`Child::switch_to_parent`].
    #[must_use]
    pub fn handle(&self) -> Greenlet<'e, I> {
        self.block.retain();
        // SAFETY: the count has just been made, in a block that is there while it runs.
        Greenlet::of(unsafe { Own::from_counted(ptr::NonNull::from(&self.block)) })
    }

    /// A handle to this greenlet that does not keep it alive (rule [s18](crate::guide::rules#s18)).
    #[must_use]
    pub fn downgrade(&self) -> WeakGreenlet<'e, I> {
        WeakGreenlet::of(&self.block)
    }

    /// Returns `true` if this greenlet is being killed: it can no longer switch (rule
    /// [s15](crate::guide::rules#s15)). Asking is no attempt at it.
    ///
    /// Code that waits on behalf of others and has ways of its own to say "cancelled" asks this, and
    /// returns: a loop that neither switches nor asks never ends, and the kill with it.
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

    /// Sends `message` to `target`, waits for one of this greenlet's own, and returns it.
    ///
    /// A new target starts, with the message as its first. A suspended one returns it from its own
    /// `switch`. In place of a dead one its first live ancestor receives it, if that takes the type
    /// (rules [s6](crate::guide::rules#s6), [s9](crate::guide::rules#s9)). Switching to oneself
    /// returns the message (rule [s8](crate::guide::rules#s8)).
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
    /// What is thrown at this greenlet while it waits; among that the error of a child, and
    /// [`GreenletExit`] when it is killed. Also, as a [`SwitchError<()>`](SwitchError), a
    /// refusal of [`try_switch`](Self::try_switch); the message is then dropped.
    ///
    /// # Panics
    /// With the panic of a child that ended with one and has this greenlet as its parent (rule
    /// [s11](crate::guide::rules#s11)). A greenlet that was killed is unwound from its third switch
    /// on (rule [s15](crate::guide::rules#s15)).
    #[cfg_attr(switch_in_line, inline(always))]
    pub fn switch<J>(&self, target: &Greenlet<'_, J>, message: J) -> Result<I, Thrown> {
        self.switch_to(target.block(), message)
    }

    /// [`switch`](Self::switch); `target`'s inbox type is `J`.
    #[cfg_attr(switch_in_line, inline(always))]
    pub(crate) fn switch_to<J>(&self, target: &Block, message: J) -> Result<I, Thrown> {
        let message = ManuallyDrop::new(message);
        let sent = tree::of_value(&message);
        // SAFETY: the types are those of the two greenlets, the message is not used here any more, and
        // what has arrived is opened at once.
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

    /// As [`switch`](Self::switch), but a message that is not sent comes back.
    ///
    /// The outer result says whether the message was sent, the inner one what came back.
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
    /// [`SwitchError`], with the message, if nothing was sent.
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

    /// [`try_switch`](Self::try_switch); `target`'s inbox type is `J`.
    #[cfg_attr(switch_in_line, inline(always))]
    fn try_switch_to<J>(
        &self,
        target: &Block,
        message: J,
    ) -> Result<Result<I, Thrown>, SwitchError<J>> {
        let message = ManuallyDrop::new(message);
        let sent = tree::of_value(&message);
        // SAFETY: as in `switch`.
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
    /// A suspended target's `switch` returns it as `Err`. A new one dies without running, and the
    /// error goes to its parent; a dead one's first live ancestor receives it. At oneself it is
    /// returned at once (rule [s12](crate::guide::rules#s12)).
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
        self.try_throw(target, error)
            .unwrap_or_else(|refusal| Err(refused(refusal.map(drop))))
    }

    /// As [`throw`](Self::throw), but an error that is not delivered comes back.
    ///
    /// # Errors
    /// [`SwitchError`], with the error to be thrown, if nothing was.
    ///
    /// # Panics
    /// As [`switch`](Self::switch).
    pub fn try_throw<J>(
        &self,
        target: &Greenlet<'_, J>,
        error: impl Into<Thrown>,
    ) -> Result<Result<I, Thrown>, SwitchError<Thrown>> {
        let target = target.block();
        let sent = tree::of_thrown(error.into());
        // SAFETY: an error is for every inbox type; what arrives is opened at once, and what was not
        // sent is the error.
        let mut thrown = unsafe {
            match tree::switch_if_fast_unless_unwinding(&self.block, target, sent).arrived() {
                Ok(received) => return Ok(tree::open(received)),
                Err((unsent, _)) => tree::take_thrown(unsent),
            }
        };
        let receiver = match self.admit_to(target, Delivery::Thrown) {
            Ok(receiver) => receiver,
            Err(refusal) => return Err(SwitchError::new(refusal, thrown)),
        };
        if !ptr::eq(receiver, target) {
            thrown.exit_becomes_notice();
        }
        if ptr::eq(receiver, &self.block) {
            self.announce_to_itself(true);
            return Ok(Err(thrown));
        }
        // SAFETY: `self` runs and the receiver is suspended (`admit_to`).
        unsafe {
            let received = tree::switch_slowly(&self.block, receiver, Content::Thrown(thrown));
            Ok(tree::open(received))
        }
    }

    /// Ends `target`: its `switch` returns [`GreenletExit`], its locals are dropped, its stack is
    /// given back, and control returns here, whatever its parent (rule
    /// [s14](crate::guide::rules#s14)). A new target dies without running; to a dead one nothing
    /// happens.
    ///
    /// What the target ends with, value, error or panic, is dropped (rule
    /// [s16](crate::guide::rules#s16)).
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
    /// [`KillError`] if the target cannot be dead on return.
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

    /// Runs `body` in a new root greenlet of the same `enter`, and returns what it returns: until then
    /// this stack has a second inbox.
    ///
    /// Unlike that of [`enter`](crate::enter), its type need not be `'static`: what it receives may
    /// borrow, or be a handle. What is made under it lives on when `body` has returned.
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

    /// What came of an answer that is not just a value, [settled](tree::settle_arrival). The answer is
    /// in its parts, which are then not stored in memory where it is a value.
    ///
    /// # Safety
    /// The answer has just been returned by [`tree::switch_if_fast_unless_unwinding`] for a message of the
    /// target's type `J`, which nobody else takes. What is returned is to be opened at once.
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
        // SAFETY: the caller's word; what has arrived has done so just now, and `self` has inbox type I.
        unsafe {
            match answer.arrived() {
                Ok(received) => tree::settle_arrival(received, room),
                Err(_) => self.begin::<J>(word, kind, target, room),
            }
        }
    }

    /// [`receive`](Self::receive) where nothing was sent: the shortest way of a new target, and all ways
    /// of others. A function of its own with the same parameters, so that a call of it is a jump, and
    /// an error that arrives does not pay for its frame.
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
        let (sent, target) = answer.unsent();
        // SAFETY: the message's target, which its caller still has.
        let target = unsafe { &*target };
        let starts = target.state() == State::New
            && !answer.is_refused_in_unwinding()
            && thread::runs_on_fast_path(&self.block)
            // Why it could not be started, the slow path finds out.
            && target.start().is_ok();
        // SAFETY: the target has started, or the rest is the caller's word.
        unsafe {
            let received = if starts {
                tree::switch_to_active(&self.block, target, sent)
            } else {
                self.switch_slowly::<J>(target, sent)
                    .unwrap_or_else(|refusal| {
                        drop(Unsent::<J>::new(sent));
                        tree::of_thrown(refused(SwitchError::new(refusal, ())))
                    })
            };
            tree::settle_arrival(received, room)
        }
    }

    /// [`begin`](Self::begin) for any target. After a refusal the message is still the caller's.
    ///
    /// # Safety
    /// As for [`begin`](Self::begin).
    #[cold]
    #[inline(never)]
    unsafe fn switch_slowly<J>(&self, target: &Block, sent: Message) -> Result<Message, Refusal> {
        // SAFETY: the caller's word.
        let unsent = unsafe { Unsent::<J>::new(sent) };
        let receiver = match self.admit_to(target, Delivery::Value(target.kind.inbox)) {
            Ok(receiver) => receiver,
            Err(refusal) => {
                mem::forget(unsent);
                return Err(refusal);
            }
        };
        if ptr::eq(receiver, &self.block) {
            self.announce_to_itself(false);
            mem::forget(unsent);
            return Ok(sent);
        }
        mem::forget(unsent);
        // SAFETY: `self` runs, the receiver is suspended or ready to start (`admit_to`), and
        // takes messages of the target's type.
        Ok(unsafe { tree::switch_slowly(&self.block, receiver, Content::Value(sent)) })
    }

    /// A switch to oneself is an event, too (rule [s22](crate::guide::rules#s22)).
    fn announce_to_itself(&self, thrown: bool) {
        if trace::is_on() {
            trace::announce(thrown, &self.block, &self.block)
                .unwrap_or_else(|panic| host::resume(panic));
        }
    }

    fn admit_to<'a>(&'a self, target: &'a Block, delivery: Delivery) -> Result<&'a Block, Refusal> {
        tree::admit(&self.block)?;
        let found = tree::receiver(target, delivery).map_err(|(refusal, _)| refusal);
        if let Delivery::Thrown = delivery {
            // Who died of it on the way may have had `self` killed.
            tree::admit(&self.block)?;
        }
        found
    }
}

/// A message that is not sent yet. It is dropped where it lies, if something unwinds before it is.
/// It is never moved, which would make a copy of what may be large.
struct Unsent<M>(Message, PhantomData<M>);

impl<M> Unsent<M> {
    /// # Safety
    /// The message carries an `M`, which nobody takes as long as this is there.
    unsafe fn new(message: Message) -> Self {
        Self(message, PhantomData)
    }
}

impl<M> Drop for Unsent<M> {
    fn drop(&mut self) {
        // SAFETY: `new`'s contract, and nobody takes it after this.
        drop(unsafe { tree::take_value::<M>(self.0) });
    }
}

/// The refusal of a message that was not sent.
///
/// # Safety
/// The message carries an `M`, which nobody has taken.
#[cold]
#[inline(never)]
unsafe fn not_sent<M>(refusal: Refusal, message: Message) -> SwitchError<M> {
    // SAFETY: the caller's word.
    SwitchError::new(refusal, unsafe { tree::take_value(message) })
}

/// The running greenlet as its body is lent it: a [`Current`] that can also send to its parent.
///
/// `P` is what the body returns, and so what the parent receives.
///
/// ```
/// use greenlet::{Child, Greenlet, Thrown, enter};
///
/// /// Yields `n`, `n - 1`, … 1.
/// fn count_down(me: &Child<(), u32>, n: u32) -> Result<(), Thrown> {
///     if n > 0 {
///         me.switch_to_parent(n)?;
///         count_down(me, n - 1)?;
///     }
///     Ok(())
/// }
///
/// enter(|me| {
///     let counter = Greenlet::new(me, |me, ()| count_down(me, 3).map(|()| 0));
///     let numbers = [(); 4].map(|()| me.switch(&counter, ()).unwrap());
///     assert_eq!(numbers, [3, 2, 1, 0]);
/// });
/// ```
#[repr(transparent)]
pub struct Child<'e, I, P> {
    current: Current<'e, I>,
    returns: PhantomData<Invariant<P>>,
}

impl<'e, I, P> Child<'e, I, P> {
    /// # Safety
    /// As for [`Current::of`]; and the body of the greenlet returns a `P`.
    pub(crate) unsafe fn of(block: &Block) -> &Self {
        // SAFETY: `Child` is a transparent wrapper of a `Current`, and that of a block.
        unsafe { &*ptr::from_ref(block).cast::<Self>() }
    }

    /// As [`switch`](Current::switch) to the greenlet that is the parent now.
    ///
    /// No handle to the parent is kept, so this makes no cycle of handles.
    ///
    /// # Errors
    /// As [`switch`](Current::switch).
    ///
    /// # Panics
    /// As [`switch`](Current::switch).
    #[cfg_attr(switch_in_line, inline(always))]
    pub fn switch_to_parent(&self, message: P) -> Result<I, Thrown> {
        self.switch_to(self.parent(), message)
    }

    /// As [`try_switch`](Current::try_switch) to the greenlet that is the parent now.
    ///
    /// # Errors
    /// As [`try_switch`](Current::try_switch).
    ///
    /// # Panics
    /// As [`switch`](Current::switch).
    #[cfg_attr(switch_in_line, inline(always))]
    pub fn try_switch_to_parent(&self, message: P) -> Result<Result<I, Thrown>, SwitchError<P>> {
        self.try_switch_to(self.parent(), message)
    }

    /// Changes the parent, as [`Greenlet::set_parent`] does. The types are known here to be the same,
    /// so they may borrow.
    ///
    /// # Errors
    /// [`ParentError::Cycle`].
    pub fn set_parent(&self, parent: &Greenlet<'e, P>) -> Result<(), ParentError> {
        let old = self.block.replace_parent(parent.block());
        old.map(drop).ok_or(ParentError::Cycle)
    }

    /// Receives a `P` (invariant of blocks).
    #[inline(always)]
    fn parent(&self) -> &Block {
        // SAFETY: all but roots, which are lent no `Child`, have a parent until they have died.
        unsafe { self.block.parent().unwrap_unchecked() }
    }
}

impl<'e, I, P> Deref for Child<'e, I, P> {
    type Target = Current<'e, I>;

    #[inline(always)]
    fn deref(&self) -> &Current<'e, I> {
        &self.current
    }
}

impl<I, P> fmt::Debug for Child<'_, I, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.block.fmt(f)
    }
}

/// What `switch` and `throw` say where their `try_` forms give something back.
pub(crate) fn refused(refusal: SwitchError<()>) -> Thrown {
    match refusal {
        SwitchError::Exiting(()) => GreenletExit.into(),
        refusal => refusal.into(),
    }
}

impl<I> fmt::Debug for Current<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.block.fmt(f)
    }
}
