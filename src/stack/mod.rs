//! Memory for stacks: a pool of guarded stacks, or memory that the user provides.
//!
//! This layer knows pages and limits. It knows nothing of registers or greenlets.

#[cfg_attr(not(feature = "std"), path = "error_without_std.rs")]
mod error;
#[cfg(feature = "std")]
mod limits;
#[cfg(feature = "std")]
pub(crate) mod local_pool;
#[cfg(feature = "std")]
#[cfg_attr(miri, path = "heap.rs")]
#[cfg_attr(all(windows, not(miri)), path = "mapping_windows.rs")]
mod mapping;
mod memory;
#[cfg(feature = "std")]
mod pages;
#[cfg(feature = "std")]
mod pool;
#[cfg(feature = "std")]
mod shape;
#[cfg(feature = "std")]
mod single;
#[cfg(feature = "std")]
mod slab;
mod unguarded;

pub use error::StackError;
#[cfg(feature = "std")]
pub use limits::StackLimits;
pub use memory::StackMemory;
#[cfg(feature = "std")]
pub use pool::{Pool, PooledStack};
#[cfg(feature = "std")]
pub use single::Stack;
pub use unguarded::UnguardedStack;

pub(crate) use memory::{Brought, Source, Supply};
#[cfg(feature = "std")]
pub(crate) use memory::{DEFAULT_GUARD, DEFAULT_SIZE};
#[cfg(feature = "std")]
pub(crate) use shape::Shape;
