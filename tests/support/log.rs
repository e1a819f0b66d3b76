//! The order of events.

use std::{cell::RefCell, fmt::Debug, rc::Rc};

/// A list of events that the greenlets of a thread share.
#[derive(Debug)]
pub struct Log<T = &'static str>(Rc<RefCell<Vec<T>>>);

impl<T> Clone for Log<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> Log<T> {
    pub fn new() -> Self {
        Self(Rc::default())
    }

    pub fn add(&self, event: T) {
        self.0.borrow_mut().push(event);
    }

    /// Returns the events since the last call.
    pub fn take(&self) -> Vec<T> {
        self.0.take()
    }

    /// Returns a guard that adds the event when it is dropped.
    pub fn at_drop(&self, event: T) -> impl Sized + use<T>
    where
        T: 'static,
    {
        let log = self.clone();
        on_drop(move || log.add(event))
    }
}

/// Calls `run` when it is dropped.
pub fn on_drop<F: FnOnce()>(run: F) -> OnDrop<F> {
    OnDrop(Some(run))
}

pub struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(run) = self.0.take() {
            run();
        }
    }
}
