//! Expected panics: not printed, and counted by the panic hook.

use std::{
    any::Any,
    cell::Cell,
    panic::{self, AssertUnwindSafe},
    sync::Once,
    thread,
};

use super::log::on_drop;
use crate::shared_by_greenlets;

shared_by_greenlets! {
    static HEARD: Cell<usize> = Cell::new(0);
    static QUIET: Cell<bool> = Cell::new(false);
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            HEARD.set(HEARD.get() + 1);
            if !QUIET.get() {
                before(info);
            }
        }));
    });
}

/// Silences the panic hook on this thread while `run` runs. Returns how often the hook was called.
pub fn heard<R>(run: impl FnOnce() -> R) -> (R, usize) {
    install();
    let before = HEARD.get();
    let quiet = QUIET.replace(true);
    let restore = on_drop(move || QUIET.set(quiet));
    let result = run();
    drop(restore);
    (result, HEARD.get() - before)
}

/// Silences the panic hook on this thread while `run` runs.
pub fn quietly<R>(run: impl FnOnce() -> R) -> R {
    heard(run).0
}

/// Catches a panic, with a silent panic hook.
pub fn catch<R>(run: impl FnOnce() -> R) -> thread::Result<R> {
    quietly(|| panic::catch_unwind(AssertUnwindSafe(run)))
}

/// Returns the message with which `run` panics.
#[track_caller]
pub fn panic_text<R>(run: impl FnOnce() -> R) -> String {
    match catch(run) {
        Ok(_) => panic!("no panic"),
        Err(payload) => text_of(&*payload).to_string(),
    }
}

pub fn text_of(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .expect("a panic with a text")
}
