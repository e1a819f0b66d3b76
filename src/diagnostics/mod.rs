//! Diagnostics: tracing, snapshots, backtraces, the report of a stack overflow, and what a debugger reads.
//!
//! | file | one concept |
//! |---|---|
//! | `trace.rs` | a callback at every switch (feature `trace`) |
//! | `snapshot.rs` | all greenlets of a thread, and the stacks of those that are suspended |
//! | `frames.rs` | the names of frames, as a snapshot prints them |
//! | `unwind.rs` | the frames of the running stack |
//! | `overflow/` | the report of a stack overflow |
//! | `debugger.rs` | where a debugger finds the greenlets of a stopped process |
//! | `greenlet-gdb.py` | gdb commands that read it |

#[cfg(feature = "std")]
pub(crate) mod debugger;
#[cfg(feature = "std")]
mod frames;
#[cfg(feature = "std")]
pub(crate) mod overflow;
#[cfg(feature = "std")]
pub(crate) mod snapshot;
#[cfg(feature = "trace")]
pub mod trace;
#[cfg(not(feature = "trace"))]
pub(crate) mod trace;
#[cfg(feature = "std")]
#[cfg_attr(miri, path = "unwind_in_miri.rs")]
#[cfg_attr(all(windows, not(miri)), path = "unwind_windows.rs")]
mod unwind;
