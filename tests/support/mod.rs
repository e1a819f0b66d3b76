//! Shared by several tests: counted payloads, logs, quiet panics, child processes.

#![allow(dead_code, reason = "no test binary uses all of it")]

pub mod census;
pub mod child;
pub mod echoes;
pub mod log;
pub mod panics;

use std::{cell::RefCell, rc::Rc};

use greenlet::{Child, Current, Greenlet, SwitchError, Thrown, Unscoped};

use crate::machine::page_size;
use log::Log;

/// For tests that keep handles in thread-locals, or longer than an `enter`.
pub fn unscoped() -> Unscoped {
    // SAFETY: no test suspends a greenlet in a closure that was lent a thread-local's value.
    unsafe { Unscoped::new() }
}

/// An error with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(pub u32);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "number {}", self.0)
    }
}

impl std::error::Error for Number {}

/// Returns the number of a thrown [`Number`].
#[track_caller]
pub fn number<T>(outcome: Result<T, Thrown>) -> u32 {
    match outcome {
        Ok(_) => panic!("a value came in place of a number"),
        Err(thrown) => thrown.downcast::<Number>().expect("a number").0,
    }
}

/// Checks that the error is the notice of a child's exit, and not a request to exit.
#[track_caller]
pub fn assert_child_exit<T>(outcome: Result<T, Thrown>) {
    let thrown = outcome.err().expect("a notice, not a value");
    assert!(thrown.is_child_exit(), "{thrown:?}");
    assert!(!thrown.is_exit());
}

/// Returns the refusal of a `switch` or `throw`.
#[track_caller]
pub fn refusal<T>(outcome: Result<T, Thrown>) -> SwitchError<()> {
    outcome
        .err()
        .expect("a refusal, not a value")
        .downcast()
        .expect("a refusal")
}

/// Returns `true` if it has not started.
pub fn is_new<I>(greenlet: &Greenlet<I>) -> bool {
    !greenlet.is_active() && !greenlet.is_dead()
}

/// Returns the resident set size, bytes.
pub fn resident() -> usize {
    statm(1)
}

/// Returns the size of the address space in use, bytes.
pub fn address_space() -> usize {
    statm(0)
}

fn statm(field: usize) -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages = statm
        .split(' ')
        .nth(field)
        .and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("a number") * page_size()
}

/// Returns a suspended greenlet that adds `event` when its locals are dropped.
pub fn suspended<'e>(me: &Current<'e, ()>, log: &Log, event: &'static str) -> Greenlet<'e, ()> {
    let (main, log) = (me.handle(), log.clone());
    let greenlet = Greenlet::new(me, move |me, ()| {
        let _dropped = log.at_drop(event);
        me.switch(&main, ())
    });
    me.switch(&greenlet, ()).unwrap();
    greenlet
}

/// Runs `body` in a child of `me` to which no handle is left.
pub fn run_without_handles<'e, T: 'static>(
    me: &Current<'e, T>,
    body: impl FnOnce(&Child<'e, (), T>) -> Result<T, Thrown> + 'e,
) -> Result<T, Thrown> {
    let slot = Rc::new(RefCell::new(None::<Greenlet<()>>));
    let child = Greenlet::new(me, {
        let slot = Rc::clone(&slot);
        move |me, ()| {
            let holder = slot.take().expect("it was put there");
            me.kill(&holder).expect("it is suspended");
            body(me)
        }
    });
    // This greenlet owns the only handle, and drops it when it is killed.
    let holder = Greenlet::new(me, move |me, ()| {
        me.switch(&child, ()).map(|()| unreachable!("it is killed"))
    });
    slot.replace(Some(holder.clone()));
    me.switch(&holder, ())
}
