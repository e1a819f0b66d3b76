//! Memory for stacks under Miri, which has neither `madvise` nor `mprotect`: it is from the allocator, and
//! guards have no effect.

use std::alloc::{Layout, alloc_zeroed, dealloc};

use super::StackError;

const PAGE: usize = 4096;

/// Miri takes memory for all that is allocated, so no more than this is, bytes.
const MOST: usize = 256 << 20;

/// Zeroed memory, freed when dropped.
///
/// # Invariants
/// `start` is from the allocator with this layout.
pub(super) struct Mapping {
    start: *mut u8,
    layout: Layout,
}

impl Mapping {
    pub(super) fn new(bytes: usize) -> Result<Self, StackError> {
        let layout =
            Layout::from_size_align(bytes, PAGE).map_err(|_| StackError::TooLarge { bytes })?;
        if bytes == 0 || bytes > MOST {
            let errno = if bytes == 0 {
                libc::EINVAL
            } else {
                libc::ENOMEM
            };
            return Err(StackError::Map { bytes, errno });
        }
        // SAFETY: of a size that is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        if start.is_null() {
            return Err(StackError::OutOfMemory);
        }
        // The pool finds slots by their addresses.
        start.expose_provenance();
        Ok(Self { start, layout })
    }

    pub(super) fn start(&self) -> *mut u8 {
        self.start
    }

    pub(super) fn len(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: invariant.
        unsafe { dealloc(self.start, self.layout) };
    }
}

/// Writes to the guard, the lowest `guard` of `bytes`, which nobody may use.
///
/// # Safety
/// They are whole pages of a mapping and not in use.
pub(super) unsafe fn lay_out(
    start: *mut u8,
    guard: usize,
    _bytes: usize,
) -> Result<(), StackError> {
    // SAFETY: the pages are part of a mapping and not in use (contract).
    unsafe { start.write_bytes(0, guard) };
    Ok(())
}

/// Bytes that a guard has at least, if there is one.
pub(super) const LEAST_GUARD: usize = 1;

/// May a range for [`give_back`] have guards in it?
pub(super) const GIVES_BACK_OVER_GUARDS: bool = true;

pub(super) const MOST_AT_ONCE: usize = 32;

/// Never: the pool then guards one after the other.
///
/// # Safety
/// None.
pub(super) unsafe fn guard_at_once(_: *mut u8, _: usize, _: usize, _: usize) -> usize {
    0
}

/// Makes whole pages zero.
///
/// # Safety
/// They are part of a mapping and not in use.
pub(super) unsafe fn give_back(start: *mut u8, bytes: usize) {
    // SAFETY: the pages are part of a mapping and not in use (contract).
    unsafe { start.write_bytes(0, bytes) };
}

/// All is in memory.
pub(super) fn first_resident_page(bottom: *mut u8, _top: *mut u8) -> *mut u8 {
    bottom
}

pub(crate) fn page_size() -> usize {
    PAGE
}
