#![cfg_attr(feature = "std", doc = include_str!("guide/crate.md"))]
#![cfg_attr(not(feature = "std"), doc = include_str!("guide/boards.md"))]
#![cfg_attr(not(feature = "std"), no_std)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs, unsafe_op_in_unsafe_fn)]
// For gdb: goes into programs that have debug information, where it is mapped and not read.
#![cfg_attr(
    feature = "std",
    debugger_visualizer(gdb_script_file = "diagnostics/greenlet-gdb.py")
)]

extern crate alloc;

mod arch;
mod coroutine;
mod diagnostics;
#[cfg(feature = "std")]
pub mod guide;
#[cfg(all(doc, not(feature = "std")))]
pub mod guide {
    //! The guide is in the documentation with `std`, as it is about both.

    pub mod rules {
        //! The [rules](https://docs.rs/greenlet/latest/greenlet/guide/rules/index.html), s1 to s28, are in
        //! the documentation with `std`.
    }
}
mod handles;
mod host;
pub mod raw;
mod sanitizers;
mod stack;
mod tree;

pub use coroutine::{
    future::{Awaiter, Cancelled, Stackful},
    generator::{Generator, Yielder},
};
#[cfg(feature = "trace")]
pub use diagnostics::trace;
#[cfg(feature = "std")]
pub use diagnostics::{
    overflow::report_stack_overflow,
    snapshot::{GreenletInfo, Snapshot, StackUsage},
};
#[cfg(feature = "trace")]
pub use handles::any::AnyGreenlet;
pub use handles::{
    builder::Builder,
    child::Child,
    current::Current,
    error::{BuildError, KillError, ParentError, SwitchError},
    greenlet::Greenlet,
    local::LocalKey,
    or_throw::{ByBox, BySendBox, OrThrow},
    root::{Root, enter},
    send_error::SendError,
    thrown::{GreenletExit, Thrown},
    unscoped::Unscoped,
    weak::WeakGreenlet,
};
#[cfg(feature = "std")]
pub use stack::local_pool::set_idle_stacks;
pub use stack::{StackError, StackMemory, UnguardedStack};
pub use tree::Status;

/// Takes and gives a `T`: no other type will do, not even one of another lifetime.
type Invariant<T> = fn(T) -> T;

#[cfg(all(doctest, feature = "std"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[cfg_attr(feature = "std", doc = include_str!("../tests/compile_fail.md"))]
#[cfg_attr(not(feature = "std"), doc = include_str!("../tests/compile_fail_without_std.md"))]
struct DoesNotCompile;
