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

    /// Bytes from the top down to the lowest page that is in memory: the most that was in use
    /// since the memory was mapped or given back, in whole pages. On macOS, where the system takes
    /// what is given back when it needs it, perhaps more. On Windows always 0: it is not known there.
    ///
    /// The topmost 16 MiB are looked at page by page. Below that the search goes on until a range
    /// as large as all of the stack above it has no page in memory; what lies below such a hole,
    /// which only a frame of that size leaves, is not seen. So the time is at most proportional to
    /// what is in use, whatever the size: one `mincore` for each 256 pages. 0 where that is
    /// refused.
    #[must_use]
    pub fn peak(&self) -> usize {
        let lowest = first_resident_page(self.bottom, self.top);
        self.top.addr().saturating_sub(lowest.addr())
    }

    /// Gives the pages below a suspended context's stack pointer back to the system: what a deep
    /// call has left behind. They read as zeros when they are next touched; on Windows perhaps as what
    /// they held. Costs a system call, and a page fault for each page that is used again.
    ///
    /// A few hundred bytes below `stack_pointer` stay as they are: compilers may keep data there
    /// (the red zone of x86_64 and aarch64).
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
            // SAFETY: whole pages of the stack, which nobody uses (contract).
            unsafe { mapping::give_back(self.bottom.with_addr(start), end - start) };
        }
    }
}
