//! `Unscoped`: greenlets that no `enter` ends.

use core::marker::PhantomData;

use crate::{Current, tree};

/// A promise that lets greenlets outlive the `enter` that they were made under. It is for the tasks of an
/// executor, and for handles in statics and thread-locals.
///
/// Greenlets made under [`Unscoped::enter`], and their handles, are `'static`. Such a greenlet ends when its
/// body returns, when it is killed, or when its last handle is dropped.
///
/// ```
/// use std::cell::RefCell;
/// use greenlet::{Current, Greenlet, Unscoped};
///
/// thread_local! {
///     static COUNTER: RefCell<Option<Greenlet<'static, ()>>> = const { RefCell::new(None) };
/// }
///
/// // SAFETY: no greenlet here is suspended while it borrows a thread-local's value. Destructors of
/// // thread-locals use greenlets only to drop a handle of one that borrows no such value.
/// let unscoped = unsafe { Unscoped::new() };
/// unscoped.enter(|me: &Current<u32>| {
///     let counter = Greenlet::new(me, |me, ()| {
///         for n in 0.. {
///             me.switch_to_parent(n)?;
///         }
///         Ok(0)
///     });
///     assert_eq!(me.switch(&counter, ()).unwrap(), 0);
///     COUNTER.set(Some(counter));
/// });
/// unscoped.enter(|me: &Current<u32>| {
///     let counter = COUNTER.take().unwrap();
///     counter.set_parent(&me.handle()).unwrap();
///     assert_eq!(me.switch(&counter, ()).unwrap(), 1);
/// });
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Unscoped {
    // Not `Send`: the promise is about the code of one thread.
    thread: PhantomData<*mut ()>,
}

impl Unscoped {
    /// Makes the promise.
    ///
    /// # Safety
    /// `std` lends a thread-local's value to a closure, and destroys it when the thread ends, or
    /// in [`process::exit`](https://doc.rust-lang.org/std/process/fn.exit.html). It relies on the closure
    /// returning before that. So, for greenlets made under this:
    ///
    /// 1. None is suspended while a call on its own stack lends it a thread-local's value
    ///    (`LocalKey::with`, and what other crates build on it), unless it is certain to leave that call
    ///    before the thread ends and before the process exits. Code that switches inside `with` depends on
    ///    being resumed in time; code that never does keeps this promise.
    /// 2. The initializer or destructor of a thread-local does not switch to one, throw at one, kill
    ///    one or drop the last handle of one that is suspended; except that a destructor may end a
    ///    greenlet (by a kill or the last handle) which on its way out uses no thread-local's value
    ///    that it was lent before.
    ///
    /// Roots are not meant by (1): they end before their thread does. A task may be polled inside
    /// an executor's `with`.
    ///
    /// Without the feature `std`, the caller also promises what that `enter` asks for.
    #[must_use]
    pub const unsafe fn new() -> Self {
        Self {
            thread: PhantomData,
        }
    }

    /// Runs `body` in a new root greenlet, as [`enter`](crate::enter) does. Greenlets made under the root live on
    /// when `body` has returned, and bodies may borrow only what is `'static`.
    pub fn enter<I: 'static, R>(self, body: impl FnOnce(&Current<'static, I>) -> R) -> R {
        tree::enter_unscoped(body)
    }
}
