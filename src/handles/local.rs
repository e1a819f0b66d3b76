//! Greenlet-local values (rule s23), modelled on [`std::thread::LocalKey`].

use alloc::rc::Rc;
use core::ptr;

use crate::tree::{Block, thread};

/// Declares greenlet-local keys, as [`thread_local!`] declares thread-local ones.
///
/// ```
/// use std::cell::Cell;
/// use greenlet::{Greenlet, enter};
///
/// greenlet::local! {
///     static DEPTH: Cell<u32> = Cell::new(0);
/// }
///
/// enter(|me| {
///     DEPTH.with(|depth| depth.set(7));
///     let child = Greenlet::new(me, |_, ()| Ok(DEPTH.with(Cell::get)));
///     assert_eq!(me.switch(&child, ())?, 0);
///     assert_eq!(DEPTH.with(Cell::get), 7);
///     Ok::<(), greenlet::Thrown>(())
/// })
/// # .unwrap();
/// ```
///
/// [`thread_local!`]: https://doc.rust-lang.org/std/macro.thread_local.html
#[macro_export]
macro_rules! local {
    ($($(#[$attribute:meta])* $visibility:vis static $name:ident: $type:ty = $initial:expr;)+) => {
        $($(#[$attribute])*
        $visibility static $name: $crate::LocalKey<$type> = $crate::LocalKey::new(|| $initial);)+
    };
}

/// A key of which each greenlet has its own value; [`local!`](crate::local) declares it.
///
/// A new greenlet has no value. It is made when it is first asked for, and dropped when the greenlet ends, on
/// the greenlet's stack. A root (see [`enter`](crate::enter)) is a greenlet too.
///
/// ```
/// use std::cell::Cell;
/// use greenlet::{LocalKey, enter};
///
/// greenlet::local! {
///     static REQUESTS: Cell<u32> = Cell::new(0);
///     static ERRORS: Cell<u32> = Cell::new(0);
/// }
///
/// fn count(counter: &'static LocalKey<Cell<u32>>) -> u32 {
///     counter.with(|count| count.replace(count.get() + 1))
/// }
///
/// enter(|_me: &greenlet::Root<()>| {
///     assert_eq!((count(&REQUESTS), count(&REQUESTS), count(&ERRORS)), (0, 1, 0));
/// });
/// assert!(REQUESTS.try_with(Cell::get).is_none());
/// ```
#[derive(Debug)]
pub struct LocalKey<T: 'static> {
    initial: fn() -> T,
}

impl<T: 'static> LocalKey<T> {
    #[doc(hidden)]
    #[must_use]
    pub const fn new(initial: fn() -> T) -> Self {
        Self { initial }
    }

    /// Calls `use_it` with the running greenlet's value, and returns the result.
    ///
    /// # Panics
    /// Panics outside every greenlet, and in a greenlet that is ending and has dropped its values.
    pub fn with<R>(&'static self, use_it: impl FnOnce(&T) -> R) -> R {
        self.try_with(use_it)
            .expect("a greenlet-local value is used in a greenlet, before it ends")
    }

    /// Does what [`with`](Self::with) does, but returns `None` where that panics.
    pub fn try_with<R>(&'static self, use_it: impl FnOnce(&T) -> R) -> Option<R> {
        // SAFETY: null, or the running greenlet's block, which stays while it runs.
        let block: &Block = unsafe { thread::current().as_ref() }?;
        let value = block
            .locals
            .get(ptr::from_ref(self).cast(), || Rc::new((self.initial)()))?;
        Some(use_it(
            value
                .downcast_ref()
                .expect("a key's values are of its type"),
        ))
    }
}
