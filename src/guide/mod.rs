//! How the parts work together, in chapters. In reading order:
//!
//! 1. [`switching`]: start, switch, pass messages
//! 2. [`parents`]: where results go
//! 3. [`throwing_and_killing`]: errors, kills, drops
//! 4. [`entering`]: what greenlets may borrow, and how long they live
//! 5. [`generators_and_futures`]: functions that suspend themselves to whoever resumes them
//! 6. [`stacks`]: sizes, guards, overflow
//! 7. [`embedding`]: what the crate does to a program; C and C++, other libraries, signals, tools
//! 8. [`boards`]: without `std`; and how to get a program to a board
//! 9. [`porting`]: from corosensei and from Python's greenlet
//! 10. [`limits`]: all in one place
//! 11. [`rules`]: the exact behaviour, s1 to s28

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

#[doc = include_str!("rules.md")]
pub mod rules {}

#[doc = include_str!("stacks.md")]
pub mod stacks {}

#[doc = include_str!("embedding.md")]
pub mod embedding {}

#[doc = include_str!("boards.md")]
pub mod boards {}

#[doc = include_str!("porting.md")]
pub mod porting {}

#[doc = include_str!("limits.md")]
pub mod limits {}
