//! What a user names: the greenlet and the ways to hold, make and enter one, what travels between
//! greenlets besides messages, and the errors. Each item is exported at the root of the crate.
//!
//! | file | one concept |
//! |---|---|
//! | `greenlet.rs` | a handle of a greenlet |
//! | `weak.rs` | a handle that does not keep it alive |
//! | `any.rs` | a greenlet of any inbox type, in a traced event |
//! | `current.rs` | the running greenlet: switch, throw, kill |
//! | `root.rs` | entering, with bodies that may borrow |
//! | `unscoped.rs` | a greenlet that no `enter` ends |
//! | `builder.rs` | settings of a new greenlet |
//! | `thrown.rs` | an error that one greenlet sends to another |
//! | `error.rs` | why a switch, a kill, a parent or a build was refused |
//! | `local.rs` | values that each greenlet has of its own |

#[cfg(feature = "trace")]
pub(crate) mod any;
pub(crate) mod builder;
pub(crate) mod current;
pub(crate) mod error;
pub(crate) mod greenlet;
pub(crate) mod local;
pub(crate) mod root;
pub(crate) mod thrown;
pub(crate) mod unscoped;
pub(crate) mod weak;
