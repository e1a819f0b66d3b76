//! `Stackful`: a future whose function waits for other futures from any depth of calls.

use core::{
    cell::RefCell,
    error::Error,
    fmt,
    future::Future,
    ops::Deref,
    pin::{Pin, pin},
    ptr,
    task::{Context, Poll, Waker},
};

use crate::{
    BuildError, Builder, Current,
    coroutine::{Coroutine, Resumed, Side},
    tree::{self, OutOfMemory, Settings},
};

/// The waker of the last poll. A waker's own code may do anything, and so never runs while the cell is borrowed.
type LastWaker = RefCell<Waker>;

/// A function on a stack of its own, as a future.
///
/// The function is plain code. It receives an [`Awaiter`], with which it waits for any future, at any depth of its
/// calls: in closures, callbacks of C and loops of synchronous libraries. While it waits, its thread does
/// something else.
///
/// The function may borrow what outlives the [`enter`](crate::enter) (`'e`). Under an
/// [`Unscoped`](crate::Unscoped) it is `'static`. Dropping the future kills the function: see [`Awaiter::wait`].
///
/// ```
/// use std::{future::Future, pin::pin, task::{Context, Poll, Waker}};
/// use greenlet::{Root, Stackful, enter};
///
/// # fn block_on<F: Future>(future: F) -> F::Output {
/// #     let mut future = pin!(future);
/// #     loop {
/// #         if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
/// #             return value;
/// #         }
/// #     }
/// # }
/// # fn yield_now() -> impl Future<Output = ()> {
/// #     let mut polled = false;
/// #     std::future::poll_fn(move |_| if std::mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending })
/// # }
/// let names = ["a", "b"];
/// let text = enter(|me: &Root<()>| {
///     block_on(Stackful::new(me, |awaiter| {
///         // A closure that knows nothing of futures, in an adapter that knows nothing of them.
///         names.iter().map(|name| {
///             awaiter.wait(yield_now());
///             name.to_uppercase()
///         }).collect::<String>()
///     }))
/// });
/// assert_eq!(text, "AB");
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct Stackful<'e, T> {
    coroutine: Coroutine<'e, (), (), LastWaker, T>,
}

/// Waits for futures in the function of a [`Stackful`], which receives this.
///
/// It derefs to the function's [`Current`], under which the function can make generators. Only the function's own
/// greenlet can wait.
///
/// ```
/// use std::future::Future;
/// use greenlet::{Awaiter, Cancelled};
///
/// /// Plain code: neither this function nor the closure that it is called in is `async`.
/// fn sum<F: Future<Output = u32>>(
///     awaiter: &Awaiter<'_, '_>,
///     numbers: impl Iterator<Item = F>,
/// ) -> u32 {
///     numbers.map(|number| awaiter.wait(number)).sum()
/// }
///
/// /// The same for a callback of C, through which nothing may unwind.
/// extern "C" fn next(awaiter: &Awaiter<'_, '_>) -> i32 {
///     match awaiter.try_wait(std::future::ready(7)) {
///         Ok(number) => number,
///         Err(Cancelled) => -1,
///     }
/// }
/// ```
pub struct Awaiter<'a, 'e> {
    side: &'a Side<'a, 'e, (), (), LastWaker>,
}

/// The error of [`Awaiter::try_wait`]: the [`Stackful`] was dropped, and its function should return.
///
/// ```
/// use greenlet::{Awaiter, Cancelled};
///
/// /// Has a way of its own to say that it has not finished.
/// fn read(awaiter: &Awaiter<'_, '_>, buffer: &mut Vec<u8>) -> std::io::Result<()> {
///     let byte = awaiter.try_wait(async { 7 });
///     buffer.push(byte.map_err(|Cancelled| std::io::ErrorKind::Interrupted)?);
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the future that this function belongs to was dropped")
    }
}

impl Error for Cancelled {}

impl<'e, T: 'e> Stackful<'e, T> {
    /// Makes a future of `function`, in the `enter` of `me`. The function starts at the first poll.
    ///
    /// If there is no memory for it, the process aborts, as for a `Box`.
    #[cfg(feature = "std")]
    pub fn new<P>(me: &Current<'e, P>, function: impl FnOnce(&Awaiter<'_, 'e>) -> T + 'e) -> Self {
        Self::make(Settings::default, me, function).unwrap_or_else(|error| error.abort())
    }

    /// Makes a future as `new` does, with the stack and name of `builder`.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn build<P>(
        builder: Builder,
        me: &Current<'e, P>,
        function: impl FnOnce(&Awaiter<'_, 'e>) -> T + 'e,
    ) -> Result<Self, BuildError> {
        let settings = builder.checked_settings()?;
        Ok(Self::make(|| settings, me, function)?)
    }

    fn make<P>(
        settings: impl FnOnce() -> Settings,
        me: &Current<'e, P>,
        function: impl FnOnce(&Awaiter<'_, 'e>) -> T + 'e,
    ) -> Result<Self, OutOfMemory> {
        let waker = RefCell::new(Waker::noop().clone());
        let coroutine = Coroutine::new(settings, me.block(), waker, move |side, ()| {
            Ok(function(&Awaiter { side }))
        })?;
        Ok(Self { coroutine })
    }
}

impl<'e, T: 'e> Future for Stackful<'e, T> {
    type Output = T;

    /// # Panics
    /// Resumes a panic of the function. Panics if the future is polled after its end, if there is no memory for a
    /// stack, while the thread unwinds a panic (rule [s19](crate::guide::rules#s19)), and in a kill that began
    /// after the future was made (rule [s15](crate::guide::rules#s15)).
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        if let Some(last) = self.coroutine.state() {
            let will_wake = last.borrow().will_wake(context.waker());
            if !will_wake {
                let new = context.waker().clone();
                drop(last.replace(new));
            }
        }
        match self.coroutine.resume(()) {
            Ok(Resumed::Yielded(())) => Poll::Pending,
            Ok(Resumed::Returned(value)) => Poll::Ready(value),
            Ok(Resumed::Finished) => panic!("a `Stackful` is polled after its end"),
            Err(thrown) => panic!("a `Stackful` cannot run: {thrown}"),
        }
    }
}

impl<'e> Awaiter<'_, 'e> {
    /// Waits for `future`, and returns its output.
    ///
    /// If the [`Stackful`] is dropped meanwhile, or a [`GreenletExit`](crate::GreenletExit) is thrown at its
    /// greenlet, this unwinds the function, without the panic hook. Frames of C must not be unwound: use
    /// [`try_wait`](Self::try_wait) in callbacks. Where panics abort, the process aborts here: use `try_wait`
    /// everywhere.
    ///
    /// # Panics
    /// Panics in a greenlet that is not the function's own, and while the thread unwinds a panic (rule
    /// [s19](crate::guide::rules#s19)). Panics if another greenlet throws another error at the function while it
    /// waits, or switches to it and no `poll` is in progress.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        match self.wait_until_told(future) {
            Ok(output) => output,
            // A killed greenlet that goes on switching is unwound (rule s15).
            Err(Cancelled) => tree::unwind(self.side.me.block()),
        }
    }

    /// Waits for `future`, and returns its output, or an error if the [`Stackful`] is dropped.
    ///
    /// It does not unwind, so it may be called in callbacks of C. The function must return after the error: if it
    /// goes on waiting, it never ends, and neither does the drop.
    ///
    /// # Errors
    /// Returns [`Cancelled`] if the [`Stackful`] is dropped meanwhile, or another greenlet throws a
    /// [`GreenletExit`](crate::GreenletExit) at the function, and at once in each later call.
    ///
    /// # Panics
    /// As [`wait`](Self::wait).
    pub fn try_wait<F: Future>(&self, future: F) -> Result<F::Output, Cancelled> {
        if self.is_exiting() {
            return Err(Cancelled);
        }
        self.wait_until_told(future)
    }

    fn wait_until_told<F: Future>(&self, future: F) -> Result<F::Output, Cancelled> {
        // Outlives the future and the waker: if their destructors panic, it is dropped. A value that is being
        // returned would leak then (rust-lang/rust#47949).
        let output;
        {
            let mut future = pin!(future);
            let mut waker = self.waker();
            output = loop {
                let mut context = Context::from_waker(&waker);
                if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                    break Ok(output);
                }
                match self.side.suspend(()) {
                    Ok(()) => {
                        let is_new = !self.side.state().borrow().will_wake(&waker);
                        if is_new {
                            waker = self.waker();
                        }
                    }
                    Err(thrown) if thrown.is_exit() => {
                        // If it was thrown, this begins the kill.
                        tree::kill(self.side.me.block());
                        break Err(Cancelled);
                    }
                    Err(thrown) => panic!("cannot wait here: {thrown}"),
                }
            };
        }
        output
    }

    /// Returns the waker of the last poll.
    fn waker(&self) -> Waker {
        let last = self.side.state();
        loop {
            let none = Waker::noop().clone();
            let table: *const _ = none.vtable();
            let waker = last.replace(none);
            let clone = waker.clone();
            let newer = last.replace(waker);
            if ptr::eq(newer.vtable(), table) {
                return clone;
            }
            // The function was left in the clone, and polled.
            drop(last.replace(newer));
        }
    }
}

impl<'e> Deref for Awaiter<'_, 'e> {
    type Target = Current<'e, ()>;

    fn deref(&self) -> &Current<'e, ()> {
        self.side.me
    }
}

impl<T> fmt::Debug for Stackful<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stackful")
            .field("has_finished", &self.coroutine.has_finished())
            .finish()
    }
}

impl fmt::Debug for Awaiter<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Awaiter").field(self.side.me).finish()
    }
}
