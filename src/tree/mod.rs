//! The tree of greenlets: blocks, the switch protocol, death, kill, roots.
//!
//! The table is in reading order. Each file depends on those above it, except for three circles: the
//! data of a thread are blocks that refer to one another (up to `refcount.rs`); dropping the last handle
//! of a greenlet kills it (`refcount.rs`, `kill.rs`); a switch calls the hooks of `diagnostics`, such as
//! a tracer.
//!
//! | file | one concept |
//! |---|---|
//! | `memory.rs` | where blocks lie, and how their memory is used again |
//! | `refusal.rs` | why a message is refused |
//! | `locals.rs` | the greenlet-local values of one greenlet |
//! | `state.rs` | the states of a greenlet |
//! | `kind.rs` | what the types of a greenlet's messages and body decide |
//! | `block.rs` | the control block and its invariants |
//! | `exit.rs` | whether a greenlet is being killed, and what it has done since |
//! | `waits.rs` | which greenlet waits for the end of which |
//! | `registry.rs` | the live greenlets of an `enter` or of a thread |
//! | `kill_in_progress.rs` | which greenlets a kill in progress blocks |
//! | `thread.rs` | what a thread remembers: which greenlet runs, which one just left |
//! | `refcount.rs` | the reference counts of a block, and what happens when they reach zero |
//! | `route.rs` | which greenlet receives: the target, or an ancestor in its place |
//! | `message.rs` | what a message holds, and how its content is put in and taken out |
//! | `switch.rs` | leaving one greenlet and arriving in another |
//! | `root.rs` | a greenlet on a stack that is already there |
//! | `kill.rs` | making a suspended greenlet end |
//! | `body.rs` | the function at the bottom of a greenlet's stack, and its death |
//! | `enter.rs` | lending a root to a closure, and ending what was made under it |
//! | `inspect.rs` | inspecting a greenlet that does not run |
//!
//! Everything here belongs to one thread; nothing is atomic.

mod block;
mod body;
mod enter;
mod exit;
#[cfg(feature = "std")]
mod inspect;
mod kill;
mod kill_in_progress;
mod kind;
mod locals;
mod memory;
mod message;
mod refcount;
mod refusal;
mod registry;
mod root;
mod route;
mod state;
mod switch;
pub(crate) mod thread;
mod waits;

pub(crate) use block::{Block, Settings};
pub(crate) use body::{new_borrowing_greenlet, new_greenlet};
pub(crate) use enter::{enter, enter_unscoped, with_inbox};
#[cfg(feature = "std")]
pub(crate) use inspect::{Reach, inspect};
pub(crate) use kill::{Killed, kill};
pub(crate) use kill_in_progress::KillInProgress;
pub(crate) use memory::OutOfMemory;
pub(crate) use message::{
    Content, Unsent, of_thrown, of_value, open_settled, take_thrown, take_value,
};
pub(crate) use refcount::{Own, release_weakly};
pub(crate) use refusal::Refusal;
pub(crate) use registry::{Membership, Registry};
pub(crate) use root::{lies_on_stack, with_current, with_new_root};
pub(crate) use route::{Delivery, admit, receiver, unwind};
pub(crate) use state::State;
pub use state::Status;
pub(crate) use switch::{
    Answer, open, settle_arrival, switch_if_fast_unless_unwinding, switch_slowly, switch_to_active,
};
#[cfg(feature = "std")]
pub(crate) use waits::top_of_stack;
