//! Stackful, symmetric coroutines in a tree, after Python's greenlet.

#![deny(missing_docs, unsafe_op_in_unsafe_fn)]

mod arch;
mod builder;
mod current;
mod error;
mod greenlet;
pub mod raw;
mod stack;
mod thread;
mod thrown;
mod tree;

pub use builder::Builder;
pub use current::Current;
pub use error::{BuildError, KillError, SwitchError};
pub use greenlet::Greenlet;
pub use stack::StackError;
pub use thrown::{GreenletExit, Thrown};

/// Runs `body` as the main greenlet of this thread and returns what it returns (rules s1, s2).
pub fn enter<I: 'static, R>(body: impl FnOnce(&Current<I>) -> R) -> R {
    tree::enter(body)
}
