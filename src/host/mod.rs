//! What the crate needs of the system, except memory for stacks: thread-locals, catching panics,
//! aborting. One file is for programs with `std`, one for boards.

#[cfg(miri)]
pub(crate) mod carried;
#[cfg_attr(feature = "std", path = "hosted.rs")]
#[cfg_attr(not(feature = "std"), path = "bare.rs")]
mod imp;

#[cfg(miri)]
pub(crate) use carried::per_thread;
#[cfg(not(feature = "std"))]
pub(crate) use imp::OnlyThread;
#[cfg(not(miri))]
pub(crate) use imp::per_thread;
pub(crate) use imp::{
    Panic, abort, catch, contain, counts_panics, is_unwinding, resume, unwind_to_exit, was_exit,
};
