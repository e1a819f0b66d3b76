//! How the parts work together, in chapters.

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
