#![cfg_attr(feature = "std", doc = include_str!("guide/crate.md"))]
#![cfg_attr(not(feature = "std"), doc = include_str!("guide/boards.md"))]
#![cfg_attr(not(feature = "std"), no_std)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs, unsafe_op_in_unsafe_fn)]
// For gdb: goes into programs that have debug information, where it is mapped and not read.
#![cfg_attr(
    feature = "std",
    debugger_visualizer(gdb_script_file = "greenlet-gdb.py")
)]

extern crate alloc;

#[cfg(feature = "trace")]
mod any;
mod arch;
mod builder;
mod current;
#[cfg(feature = "std")]
mod debugger;
mod error;
mod greenlet;
#[cfg(feature = "std")]
pub mod guide;
mod host;
mod local;
#[cfg(feature = "std")]
mod overflow;
pub mod raw;
mod scope;
#[cfg(feature = "std")]
mod snapshot;
mod stack;
mod thread;
mod thrown;
mod tools;
#[cfg(feature = "trace")]
pub mod trace;
#[cfg(not(feature = "trace"))]
mod trace;
mod tree;
#[cfg(feature = "std")]
#[cfg_attr(miri, path = "unwind_in_miri.rs")]
mod unwind;
mod weak;

#[cfg(feature = "trace")]
pub use any::AnyGreenlet;
pub use builder::Builder;
pub use current::Current;
pub use error::{BuildError, KillError, ParentError, SwitchError};
pub use greenlet::Greenlet;
pub use local::LocalKey;
#[cfg(feature = "std")]
pub use overflow::report_stack_overflow;
pub use scope::{Scope, scope};
#[cfg(feature = "std")]
pub use snapshot::{GreenletInfo, Snapshot, StackUsage};
#[cfg(feature = "std")]
pub use stack::local_pool::set_idle_stacks;
pub use stack::{StackError, StackMemory, UnguardedStack};
pub use thrown::{GreenletExit, Thrown};
pub use tree::Status;
pub use weak::WeakGreenlet;

/// Runs `body` as the main greenlet of this thread and returns what it returns (rule s1).
///
/// Inside a greenlet it gives that one's stack a second inbox until `body` is over (rule s2). What
/// is suspended then stays suspended, and is killed when its last handle goes.
///
/// A thread's calls end in the reverse of the order in which they began, unless something other
/// than this crate switches stacks inside them. The process aborts, with a message, when one ends
/// before another that began later.
///
/// ```
/// use greenlet::{Greenlet, enter};
///
/// let answer = enter(|me| {
///     let twice = Greenlet::new(me, |_, n: u32| Ok(n * 2));
///     me.switch(&twice, 21)
/// });
/// assert_eq!(answer.unwrap(), 42);
/// ```
#[cfg(feature = "std")]
pub fn enter<I: 'static, R>(body: impl FnOnce(&Current<I>) -> R) -> R {
    tree::enter(body)
}

/// Runs `body` as the main greenlet and returns what it returns (rules s1, s2).
///
/// Calls end in the reverse of the order in which they began, unless something other than this
/// crate switches stacks inside them. A panic ends the program when one ends before another that
/// began later.
///
/// # Safety
/// Without `std` the crate keeps its state in plain statics. From the first call until the program
/// ends, one thread of execution at the most uses this crate, be it only to read a
/// [`LocalKey`]: one thread, or one core of the board. Interrupt and signal handlers are others:
/// they use nothing of it.
#[cfg(not(feature = "std"))]
pub unsafe fn enter<I: 'static, R>(body: impl FnOnce(&Current<I>) -> R) -> R {
    tree::enter(body)
}

/// Takes and gives a `T`: no other type will do, not even one of another lifetime.
type Invariant<T> = fn(T) -> T;

#[cfg(all(doctest, feature = "std"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[cfg_attr(feature = "std", doc = include_str!("../tests/compile_fail.md"))]
#[cfg_attr(not(feature = "std"), doc = include_str!("../tests/compile_fail_without_std.md"))]
struct DoesNotCompile;
