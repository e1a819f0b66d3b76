//! How the parts work together. The chapters, in reading order:
//!
//! 1. [`switching`]: start, switch, pass messages
//! 2. [`parents`]: where results go
//! 3. [`throwing_and_killing`]: errors, kills, drops
//! 4. [`entering`]: what greenlets may borrow, how long they live, and what rustc's errors mean
//! 5. [`generators_and_futures`]: iterators and futures made of plain functions
//! 6. [`event_loops`]: two event loops at once
//! 7. [`locals`]: greenlet-local values
//! 8. [`tracing`]: a callback at every switch
//! 9. [`threads`]: one tree for each thread
//! 10. [`stacks`]: sizes, guards, overflow
//! 11. [`embedding`]: other languages and libraries, signals, debuggers, sanitizers
//! 12. [`boards`]: programs without `std`, and programs for boards with Linux
//! 13. [`targets`]: the targets, and what runs the tests of each
//! 14. [`performance`]: what operations cost, and how to keep them cheap
//! 15. [`porting`]: from corosensei and from Python's greenlet
//! 16. [`limits`]: what the crate does not do
//! 17. [`rules`]: the exact behaviour, s1 to s28

#[doc = include_str!("switching.md")]
pub mod switching {}

#[doc = include_str!("parents.md")]
pub mod parents {}

#[doc = include_str!("throwing_and_killing.md")]
pub mod throwing_and_killing {}

#[doc = include_str!("entering.md")]
pub mod entering {}

#[doc = include_str!("generators_and_futures.md")]
pub mod generators_and_futures {}

#[doc = include_str!("event_loops.md")]
pub mod event_loops {}

#[doc = include_str!("locals.md")]
pub mod locals {}

#[doc = include_str!("tracing.md")]
pub mod tracing {}

#[doc = include_str!("threads.md")]
pub mod threads {}

#[doc = include_str!("performance.md")]
pub mod performance {}

#[doc = include_str!("rules.md")]
pub mod rules {}

#[doc = include_str!("stacks.md")]
pub mod stacks {}

#[doc = include_str!("embedding.md")]
pub mod embedding {}

#[doc = include_str!("boards.md")]
pub mod boards {}

#[doc = include_str!("targets.md")]
pub mod targets {}

#[doc = include_str!("porting.md")]
pub mod porting {}

#[doc = include_str!("limits.md")]
pub mod limits {}
