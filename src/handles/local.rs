//! Values that are each greenlet's own (rule s23), after [`std::thread::LocalKey`].

use alloc::{boxed::Box, rc::Rc, vec::Vec};
use core::{
    any::Any,
    cell::{Cell, OnceCell, RefCell},
    ptr,
};

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

/// A key to a value of which each greenlet has its own; made by [`local!`](crate::local).
///
/// A new greenlet has none; the value is made when it is first asked for and dropped when the
/// greenlet ends, on its own stack. A root (see [`enter`](crate::enter)) is a greenlet too.
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

    /// Calls `use_it` with the running greenlet's value.
    ///
    /// # Panics
    /// Outside every greenlet, and in one that is ending and has dropped its values.
    pub fn with<R>(&'static self, use_it: impl FnOnce(&T) -> R) -> R {
        self.try_with(use_it)
            .expect("a greenlet-local value is used in a greenlet, before it ends")
    }

    /// As [`with`](Self::with), but `None` where that panics.
    pub fn try_with<R>(&'static self, use_it: impl FnOnce(&T) -> R) -> Option<R> {
        // SAFETY: null, or the running greenlet's block, which stays while it runs.
        let block: &Block = unsafe { thread::current().as_ref() }?;
        let value = block
            .locals()
            .get(ptr::from_ref(self).cast(), || Rc::new((self.initial)()))?;
        Some(use_it(
            value
                .downcast_ref()
                .expect("a key's values are of its type"),
        ))
    }
}

/// One greenlet's values.
pub(crate) struct Locals {
    /// Made for the first of them.
    values: OnceCell<Box<RefCell<List>>>,
    /// The greenlet is ending.
    closed: Cell<bool>,
}

/// By the addresses of their keys. They are few, so a list is searched faster than a map.
type List = Vec<(*const (), Rc<dyn Any>)>;

impl Locals {
    pub(crate) const fn new() -> Self {
        Self {
            values: OnceCell::new(),
            closed: Cell::new(false),
        }
    }

    /// The value of `key`, made if there is none; `None` once the greenlet is ending.
    fn get(&self, key: *const (), initial: impl FnOnce() -> Rc<dyn Any>) -> Option<Rc<dyn Any>> {
        let values = self.values.get_or_init(Box::default);
        let find = || {
            let values = values.borrow();
            let (_, value) = values.iter().find(|(owner, _)| *owner == key)?;
            Some(Rc::clone(value))
        };
        if let Some(found) = find() {
            return Some(found);
        }
        if self.closed.get() {
            return None;
        }
        // Nothing is borrowed here: making the value may ask for others, or switch.
        let value = initial();
        // … and may have made this one.
        if let Some(found) = find() {
            return Some(found);
        }
        if !self.closed.get() {
            values.borrow_mut().push((key, Rc::clone(&value)));
        }
        Some(value)
    }

    /// Lets new values be made after a [`close`](Self::close).
    #[inline]
    pub(crate) fn reopen(&self) {
        self.closed.set(false);
    }

    /// Has there never been a value?
    #[inline]
    pub(crate) fn are_none(&self) -> bool {
        self.values.get().is_none()
    }

    /// Takes the values out, to be dropped: there will be no others.
    #[inline]
    pub(crate) fn close(&self) -> Option<impl Sized + use<>> {
        self.closed.set(true);
        // Returned, so that nothing is borrowed when destructors ask for other values.
        self.values.get().map(|values| values.take())
    }
}
