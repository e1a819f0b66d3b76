//! Stackful, symmetric coroutines in a tree, after Python's greenlet.

#![deny(missing_docs, unsafe_op_in_unsafe_fn)]

mod any;
mod arch;
mod builder;
mod current;
mod error;
mod greenlet;
mod local;
pub mod raw;
mod scope;
mod stack;
mod thread;
mod thrown;
#[cfg(feature = "trace")]
pub mod trace;
#[cfg(not(feature = "trace"))]
mod trace;
mod tree;
mod weak;

pub use any::AnyGreenlet;
pub use builder::Builder;
pub use current::Current;
pub use error::{BuildError, KillError, ParentError, SwitchError};
pub use greenlet::Greenlet;
pub use local::LocalKey;
pub use scope::{Scope, scope};
pub use stack::{StackError, pool::set_idle_stacks};
pub use thrown::{GreenletExit, Thrown};
pub use weak::WeakGreenlet;

/// Runs `body` as the main greenlet of this thread and returns what it returns (rules s1, s2).
pub fn enter<I: 'static, R>(body: impl FnOnce(&Current<I>) -> R) -> R {
    tree::enter(body)
}

/// Takes and gives a `T`: no other type will do, not even one of another lifetime.
type Invariant<T> = fn(T) -> T;
