//! Memory for greenlets to run on: a pool of guarded stacks, or what the user brings.
//!
//! Knows pages and limits; knows nothing of registers or greenlets.

mod error;
#[cfg(feature = "std")]
mod mapping;
mod memory;
#[cfg(feature = "std")]
pub(crate) mod pool;
#[cfg(feature = "std")]
mod single;

pub use error::StackError;
pub use memory::StackMemory;
#[cfg(feature = "std")]
pub use single::Stack;

pub(crate) use memory::{Plan, Running};
