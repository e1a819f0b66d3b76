//! What the crate needs of the system, except memory for stacks: thread-locals, catching panics,
//! aborting. One file is for programs with `std`, one for boards, one for what is called of Windows.

#[cfg(miri)]
pub(crate) mod carried;
#[cfg_attr(feature = "std", path = "hosted.rs")]
#[cfg_attr(not(feature = "std"), path = "bare.rs")]
mod imp;
#[cfg(tls_keys)]
pub(crate) mod tls_keys;
#[cfg(windows)]
#[cfg_attr(
    not(tls_keys),
    allow(
        dead_code,
        reason = "keys are for std of gnu; without std little is called"
    )
)]
pub(crate) mod windows;

#[cfg(miri)]
pub(crate) use carried::per_thread;
#[cfg(not(feature = "std"))]
pub(crate) use imp::OnlyThread;
#[cfg(not(any(miri, tls_keys)))]
pub(crate) use imp::per_thread;
pub(crate) use imp::{
    Panic, abort, catch, contain, counts_panics, is_unwinding, resume, unwind_to_exit, was_exit,
};
#[cfg(tls_keys)]
pub(crate) use tls_keys::per_thread;
