//! The tree of greenlets: blocks, the switch protocol, death, kill, roots.
//!
//! | file | one concept |
//! |---|---|
//! | `block.rs` | the control block, its states and invariants |
//! | `refcount.rs` | the reference counts of a block, and what happens when they reach zero |
//! | `memory.rs` | where blocks lie, and how their memory is used again |
//! | `message.rs` | what travels in a switch and how it is taken out on arrival |
//! | `route.rs` | who receives: the target, or an ancestor in its place |
//! | `body.rs` | the function at the bottom of a greenlet's stack, and its death |
//! | `kill.rs` | making a suspended greenlet end |
//! | `inspect.rs` | inspecting a greenlet that does not run |
//! | `kill_in_progress.rs` | which greenlets a kill in progress blocks |
//! | `registry.rs` | the live greenlets of an `enter` or of a thread |
//! | `root.rs` | entering: a greenlet on a stack that is already there |
//! | `thread.rs` | what a thread remembers: which greenlet runs, who just left |
//!
//! Everything here belongs to one thread; nothing is atomic.

mod block;
mod body;
#[cfg(feature = "std")]
mod inspect;
mod kill;
mod kill_in_progress;
mod memory;
mod message;
mod refcount;
mod registry;
mod root;
mod route;
pub(crate) mod thread;

pub use block::Status;
pub(crate) use block::{Block, State};
pub(crate) use body::{Settings, new_borrowing_greenlet, new_greenlet};
#[cfg(feature = "std")]
pub(crate) use inspect::{Reach, inspect};
#[cfg(feature = "std")]
pub(crate) use kill::top_of_stack;
pub(crate) use kill::{Killed, kill};
pub(crate) use kill_in_progress::KillInProgress;
pub(crate) use memory::OutOfMemory;
pub(crate) use message::{
    Answer, Content, hop, hop_to_active, hop_with, of_thrown, of_value, open, open_settled,
    settle_arrival, take_thrown, take_value,
};
pub(crate) use refcount::{Own, release_weakly};
pub(crate) use registry::{Membership, Registry};
pub(crate) use root::{Resumer, enter, enter_unscoped, with_ancestor, with_inbox};
pub(crate) use route::{Delivery, Refusal, admit, receiver};
