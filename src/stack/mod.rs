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
mod shared;
#[cfg(feature = "std")]
mod single;
mod unguarded;

pub use error::StackError;
#[cfg(feature = "std")]
pub(crate) use mapping::first_resident_page;
pub use memory::StackMemory;
#[cfg(feature = "std")]
pub use single::Stack;
pub use unguarded::UnguardedStack;

pub(crate) use memory::{Brought, Source, Supply};
