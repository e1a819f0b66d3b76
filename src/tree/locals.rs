//! The greenlet-local values of one greenlet (rule s23).

use alloc::{boxed::Box, rc::Rc, vec::Vec};
use core::{
    any::Any,
    cell::{Cell, OnceCell, RefCell},
};

use crate::host;

/// The greenlet-local values of one greenlet.
pub(crate) struct Locals {
    /// Allocated for the first value.
    values: OnceCell<Box<RefCell<List>>>,
    /// `true` once the greenlet is ending.
    closed: Cell<bool>,
}

/// Values with the addresses of their keys. There are few, so searching a list is faster than a map.
type List = Vec<(*const (), Rc<dyn Any>)>;

impl Locals {
    pub(crate) const fn new() -> Self {
        Self {
            values: OnceCell::new(),
            closed: Cell::new(false),
        }
    }

    /// Returns the value of `key`, and makes it if there is none; returns `None` once the greenlet is ending.
    pub(crate) fn get(
        &self,
        key: *const (),
        initial: impl FnOnce() -> Rc<dyn Any>,
    ) -> Option<Rc<dyn Any>> {
        let values = self.list();
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
        // Nothing is borrowed here: `initial` may ask for other values, switch, or make this very value.
        let value = initial();
        make_room(values);
        if let Some(found) = find() {
            return Some(found);
        }
        if !self.closed.get() {
            values.borrow_mut().push((key, Rc::clone(&value)));
        }
        Some(value)
    }

    /// Returns the list, and makes it if there is none.
    fn list(&self) -> &RefCell<List> {
        self.values.get().unwrap_or_else(|| {
            // The allocator may ask for a value and make the list itself.
            let _unused = self.values.set(Box::default());
            self.values.get().expect("there is one")
        })
    }

    /// Returns `true` if there has never been a value.
    #[inline]
    pub(crate) fn are_none(&self) -> bool {
        self.values.get().is_none()
    }

    /// Drops the values. No others are made after that.
    #[inline]
    pub(crate) fn drop_all(&self) {
        self.closed.set(true);
        // Nothing is borrowed when destructors ask for other values.
        if let Some(values) = self.values.get().map(|values| values.take()) {
            host::contain(|| drop(values));
        }
    }
}

/// Makes room for one more value. Nothing is borrowed while the allocator runs, which may ask for values.
fn make_room(values: &RefCell<List>) {
    let is_full = |list: &List| list.len() == list.capacity();
    while is_full(&values.borrow()) {
        let count = values.borrow().len();
        let mut larger = List::with_capacity(2 * count + 4);
        // The allocator may have made room, and more values.
        if larger.capacity() > values.borrow().len() {
            larger.append(&mut values.borrow_mut());
            drop(values.replace(larger));
        }
    }
}
