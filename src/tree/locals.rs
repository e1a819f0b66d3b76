//! The greenlet-local values of one greenlet (rule s23).

use alloc::{boxed::Box, rc::Rc, vec::Vec};
use core::{
    any::Any,
    cell::{Cell, OnceCell, RefCell},
};

use crate::host;

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
    pub(crate) fn get(
        &self,
        key: *const (),
        initial: impl FnOnce() -> Rc<dyn Any>,
    ) -> Option<Rc<dyn Any>> {
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

    /// Has there never been a value?
    #[inline]
    pub(crate) fn are_none(&self) -> bool {
        self.values.get().is_none()
    }

    /// Drops the values: there will be no others.
    #[inline]
    pub(crate) fn drop_all(&self) {
        self.closed.set(true);
        // Nothing is borrowed when destructors ask for other values.
        if let Some(values) = self.values.get().map(|values| values.take()) {
            host::contain(|| drop(values));
        }
    }
}
