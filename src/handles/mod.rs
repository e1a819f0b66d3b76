//! The API of greenlets: handles, the running greenlet, roots, builders, errors. The crate's root exports
//! each public item.
//!
//! | file | one concept |
//! |---|---|
//! | `greenlet.rs` | a handle of a greenlet |
//! | `weak.rs` | a handle that does not keep it alive |
//! | `any.rs` | a greenlet of any inbox type, in a traced event |
//! | `current.rs` | the running greenlet: switch, throw, kill |
//! | `child.rs` | the running greenlet with a parent, to which it can switch |
//! | `root.rs` | entering, with bodies that may borrow |
//! | `unscoped.rs` | a greenlet that no `enter` ends |
//! | `builder.rs` | settings of a new greenlet |
//! | `thrown.rs` | an error that one greenlet sends to another |
//! | `boxed_error.rs` | how it holds an error of any type behind one pointer |
//! | `send_error.rs` | how it becomes an error that other threads may have |
//! | `or_throw.rs` | `?` for errors that do not implement `Error` |
//! | `error.rs` | why a switch, a kill, a parent or a build was refused |
//! | `local.rs` | values that each greenlet has of its own |

#[cfg(feature = "trace")]
pub(crate) mod any;
mod boxed_error;
pub(crate) mod builder;
pub(crate) mod child;
pub(crate) mod current;
pub(crate) mod error;
pub(crate) mod greenlet;
pub(crate) mod local;
pub(crate) mod or_throw;
pub(crate) mod root;
pub(crate) mod send_error;
pub(crate) mod thrown;
pub(crate) mod unscoped;
pub(crate) mod weak;
