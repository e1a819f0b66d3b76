//! The bounds of a stack, and which of its pages are resident.

use super::mapping::{self, first_resident_page, page_size};

/// The addresses of a stack and of its guard.
///
/// It does not keep the stack alive: the stack may have been unmapped since.
///
/// ```
/// use greenlet::raw::Stack;
///
/// let stack = Stack::map(64 * 1024, 4096)?;
/// let limits = stack.limits();
/// assert_eq!(limits.top().addr() - limits.bottom().addr(), limits.size());
/// assert!(limits.is_guard(limits.bottom().wrapping_sub(1)));
/// assert_eq!(limits.peak(), 0);
/// # Ok::<(), greenlet::StackError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackLimits {
    guard: *mut u8,
    bottom: *mut u8,
    top: *mut u8,
}

impl StackLimits {
    pub(crate) fn new(guard: *mut u8, bottom: *mut u8, top: *mut u8) -> Self {
        Self { guard, bottom, top }
    }

    /// Returns the address just above the stack, which grows down from there.
    #[must_use]
    pub fn top(&self) -> *mut u8 {
        self.top
    }

    /// Returns the lowest usable address, just above the guard.
    #[must_use]
    pub fn bottom(&self) -> *mut u8 {
        self.bottom
    }

    /// Returns the usable bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.top.addr() - self.bottom.addr()
    }

    /// Returns the bytes of guard below [`bottom`](Self::bottom).
    #[must_use]
    pub fn guard_size(&self) -> usize {
        self.bottom.addr() - self.guard.addr()
    }

    /// Returns `true` if the address lies in the guard, so that a fault there is an overflow of
    /// this stack. A signal handler may ask.
    #[must_use]
    pub fn is_guard(&self, address: *const u8) -> bool {
        (self.guard.addr()..self.bottom.addr()).contains(&address.addr())
    }

    /// Returns the bytes from the top down to the lowest page in memory: the most that was in use since the
    /// memory was mapped or given back, in whole pages. On macOS it may be more, because the system keeps pages
    /// that were given back until it needs them. On Windows it is always 0, because it is not known.
    ///
    /// The topmost 16 MiB are searched page by page. Below that the search ends at a range that has no page in
    /// memory and is as large as all of the stack above it. Only a frame of that size leaves such a hole; pages
    /// below it are not found. So the time is at most proportional to what is in use, for every size of
    /// stack: one `mincore` for each 256 pages. If the system refuses `mincore`, the result is 0.
    #[must_use]
    pub fn peak(&self) -> usize {
        let lowest = first_resident_page(self.bottom, self.top);
        self.top.addr().saturating_sub(lowest.addr())
    }

    /// Gives the pages below a suspended context's stack pointer, which a deep call has left behind, back to the
    /// system. When they are next touched they read as zeros; on Windows they may have their old contents. This
    /// takes a system call, and later a page fault for each page that is used again.
    ///
    /// A few hundred bytes below `stack_pointer` are not changed: compilers may keep data there (the red zone of
    /// x86_64 and aarch64).
    ///
    /// # Safety
    /// The stack is mapped, no context runs on it, and nothing below `stack_pointer` is needed
    /// any more.
    pub unsafe fn give_back_below(&self, stack_pointer: *const u8) {
        const RED_ZONE: usize = 512;
        let end = stack_pointer.addr().min(self.top.addr()) - RED_ZONE;
        let end = end & !(page_size() - 1);
        let start = self.bottom.addr().next_multiple_of(page_size());
        if start < end {
            // SAFETY: whole pages of the stack, which nothing uses (contract).
            unsafe { mapping::give_back(self.bottom.with_addr(start), end - start) };
        }
    }
}
