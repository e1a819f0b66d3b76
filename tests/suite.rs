//! Tests of the crate's promises that can share one process: a module for each file.
//!
//! Tests that need their own allocator, build or process-wide limits are in other programs, see
//! `tests/README.md`.

mod cases;
mod future;
mod generator;
mod inspect;
mod lsan;
mod machine;
mod order;
mod process;
mod raw_runtime;
mod rules;
#[cfg(all(target_os = "linux", not(miri)))]
#[path = "../src/sanitizers/runtime.rs"]
mod runtime;
mod support;
mod tsan;
