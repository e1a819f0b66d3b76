//! A stack with a mapping of its own, for users of the raw layer.

use core::fmt;

use super::{
    StackError, StackLimits,
    mapping::{self, Mapping},
    pages::{round_up_to_page, whole_guard},
};

/// A stack with its guard, unmapped when dropped.
///
/// ```
/// use greenlet::raw::Stack;
///
/// let stack = Stack::map(10_000, 1)?;
/// assert!(stack.size() >= 10_000);
/// assert!(stack.guard_size() >= 1);
/// # Ok::<(), greenlet::StackError>(())
/// ```
pub struct Stack {
    mapping: Mapping,
    /// Bytes at the low end that fault when touched.
    guard: usize,
}

impl Stack {
    /// Maps a stack of at least `size` usable bytes above at least `guard` inaccessible ones,
    /// both rounded up to whole pages. Pages take memory when they are first touched;
    /// on Windows all of them count against what the system can commit.
    /// A frame larger than the guard can step over it, as [`Pool::take`](super::Pool::take) says.
    ///
    /// # Errors
    /// [`StackError`] when the sizes do not fit the address space or the system refuses.
    pub fn map(size: usize, guard: usize) -> Result<Self, StackError> {
        let guard = whole_guard(guard)?;
        let bytes = round_up_to_page(size)?
            .checked_add(guard)
            .ok_or(StackError::TooLarge { bytes: size })?;
        let mapping = Mapping::new(bytes)?;
        // SAFETY: the pages are all those of a new mapping, which nothing uses.
        unsafe { mapping::lay_out(mapping.start(), guard, bytes)? };
        Ok(Self { mapping, guard })
    }

    /// Returns where it lies.
    #[must_use]
    pub fn limits(&self) -> StackLimits {
        let start = self.mapping.start();
        StackLimits::new(start, self.bottom(), self.top())
    }

    /// Returns the address just above the stack, which grows down from there. It is page-aligned.
    #[must_use]
    pub fn top(&self) -> *mut u8 {
        self.mapping.start().wrapping_add(self.mapping.len())
    }

    /// Returns the lowest usable address, just above the guard. It is page-aligned.
    #[must_use]
    pub fn bottom(&self) -> *mut u8 {
        self.mapping.start().wrapping_add(self.guard)
    }

    /// Returns the usable bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.mapping.len() - self.guard
    }

    /// Returns the bytes of guard below [`bottom`](Self::bottom).
    #[must_use]
    pub fn guard_size(&self) -> usize {
        self.guard
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stack").field(&self.limits()).finish()
    }
}
