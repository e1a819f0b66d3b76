//! One stack: an anonymous mapping whose lowest part faults when touched.

use core::fmt;
use std::{io, sync::OnceLock};

use memmap2::{MmapOptions, MmapRaw};

use super::StackError;

/// A stack with its guard, unmapped when dropped.
///
/// # Invariants
/// * `map` is `guard + usable` bytes, both multiples of the page size; the lowest `guard`
///   bytes are inaccessible.
/// * The memory is never borrowed as a slice: it belongs to whatever runs on it.
pub struct Stack {
    map: MmapRaw,
    guard: usize,
}

impl Stack {
    /// Maps a stack of at least `size` usable bytes above at least `guard` inaccessible ones,
    /// both rounded up to whole pages. Pages are committed when they are first touched.
    ///
    /// # Errors
    /// [`StackError`] when the sizes do not fit the address space or the system refuses.
    pub fn map(size: usize, guard: usize) -> Result<Self, StackError> {
        let too_large = StackError::TooLarge { bytes: size };
        let usable = round_up_to_page(size).ok_or(too_large)?;
        let guard = round_up_to_page(guard).ok_or(too_large)?;
        let bytes = usable.checked_add(guard).ok_or(too_large)?;
        // A Rust object, and so a mapping, is at most isize::MAX bytes long.
        if bytes > isize::MAX as usize {
            return Err(too_large);
        }
        let map = MmapOptions::new()
            .len(bytes)
            .stack()
            .no_reserve_swap()
            .map_anon()
            .map_err(|error| StackError::Map {
                bytes,
                errno: errno(&error),
            })?;
        let stack = Self {
            map: MmapRaw::from(map),
            guard,
        };
        stack.protect_guard()?;
        Ok(stack)
    }

    fn protect_guard(&self) -> Result<(), StackError> {
        // SAFETY: the range is the lowest part of a mapping that this value owns and that
        // nobody uses yet.
        let done =
            unsafe { libc::mprotect(self.map.as_mut_ptr().cast(), self.guard, libc::PROT_NONE) };
        if done == 0 {
            Ok(())
        } else {
            Err(StackError::Guard {
                bytes: self.guard,
                errno: errno(&io::Error::last_os_error()),
            })
        }
    }

    /// The address just above the stack, which grows down from there; page-aligned.
    #[must_use]
    pub fn top(&self) -> *mut u8 {
        self.map.as_mut_ptr().wrapping_add(self.map.len())
    }

    /// The lowest usable address, just above the guard; page-aligned.
    #[must_use]
    pub fn bottom(&self) -> *mut u8 {
        self.map.as_mut_ptr().wrapping_add(self.guard)
    }

    /// Usable bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.map.len() - self.guard
    }

    /// Bytes of guard below [`bottom`](Self::bottom).
    #[must_use]
    pub fn guard_size(&self) -> usize {
        self.guard
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack")
            .field("bottom", &self.bottom())
            .field("size", &self.size())
            .field("guard_size", &self.guard_size())
            .finish()
    }
}

/// `bytes` rounded up to whole pages; `None` if that overflows.
pub(crate) fn round_up_to_page(bytes: usize) -> Option<usize> {
    bytes.checked_next_multiple_of(page_size())
}

fn page_size() -> usize {
    static PAGE_SIZE: OnceLock<usize> = OnceLock::new();
    *PAGE_SIZE.get_or_init(|| {
        // SAFETY: sysconf has no precondition.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(size).expect("POSIX: the page size is always available")
    })
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}
