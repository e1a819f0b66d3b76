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
mod coroutine;
mod current;
#[cfg(feature = "std")]
mod debugger;

mod error;
mod future;
mod generator;
mod greenlet;
#[cfg(feature = "std")]
pub mod guide;
mod host;
mod local;
#[cfg(feature = "std")]
mod overflow;
pub mod raw;
mod root;
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
mod unscoped;
#[cfg(feature = "std")]
#[cfg_attr(miri, path = "unwind_in_miri.rs")]
mod unwind;
mod weak;

#[cfg(feature = "trace")]
pub use any::AnyGreenlet;
pub use builder::Builder;
pub use current::{Child, Current};

pub use error::{BuildError, KillError, ParentError, SwitchError};
pub use future::{Awaiter, Cancelled, Stackful};
pub use generator::{Generator, Yielder};
pub use greenlet::Greenlet;
pub use local::LocalKey;
#[cfg(feature = "std")]
pub use overflow::report_stack_overflow;
pub use root::{Root, enter};
#[cfg(feature = "std")]
pub use snapshot::{GreenletInfo, Snapshot, StackUsage};
#[cfg(feature = "std")]
pub use stack::local_pool::set_idle_stacks;
pub use stack::{StackError, StackMemory, UnguardedStack};
pub use thrown::{ByBox, BySendBox, GreenletExit, OrThrow, SendError, Thrown};
pub use tree::Status;
pub use unscoped::Unscoped;
pub use weak::WeakGreenlet;

/// Takes and gives a `T`: no other type will do, not even one of another lifetime.
type Invariant<T> = fn(T) -> T;

#[cfg(all(doctest, feature = "std"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[cfg_attr(feature = "std", doc = include_str!("../tests/compile_fail.md"))]
#[cfg_attr(not(feature = "std"), doc = include_str!("../tests/compile_fail_without_std.md"))]
struct DoesNotCompile;
