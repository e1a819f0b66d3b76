//! Memory for greenlets to run on: mapped with a guard below, kept in a per-thread pool.
//!
//! Knows pages and limits; knows nothing of registers or greenlets.

mod error;
mod mapping;
pub(crate) mod pool;
mod single;

pub use error::StackError;
pub use single::Stack;

/// Usable bytes of a stack whose size nobody chose.
pub(crate) const DEFAULT_SIZE: usize = if usize::BITS >= 64 {
    256 * 1024
} else {
    64 * 1024
};

/// The smallest stack a greenlet may have, bytes: enough for the crate's own frames, a panic
/// and its hook.
pub(crate) const MIN_SIZE: usize = 16 * 1024;

/// Bytes of guard below a stack. Where rustc probes the pages of a large frame one page is
/// enough. Elsewhere a frame could step over a page, so the guard is larger; it is address
/// space only.
pub(crate) const DEFAULT_GUARD: usize = if crate::arch::STACK_PROBES {
    4096
} else {
    64 * 1024
};
