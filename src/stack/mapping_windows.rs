//! As `mapping.rs`, on Windows: `src/host/windows.rs` shows how a stack lies there.

use core::ptr;
use std::{io, sync::OnceLock};

use super::StackError;
use crate::host::windows::{
    self, MEM_COMMIT, MEM_RELEASE, MEM_RESERVE, MEM_RESET, PAGE_GUARD, PAGE_READWRITE,
    VirtualAlloc, VirtualFree,
};

/// Bytes that a guard has at least, if there is one.
pub(super) use crate::host::windows::LEAST_GUARD;

/// Address space, of which stacks are committed one by one; released when dropped.
///
/// # Invariants
/// It is never borrowed as a slice: it belongs to whatever runs on it.
pub(super) struct Mapping {
    start: *mut u8,
    bytes: usize,
}

impl Mapping {
    /// Reserves `bytes`, a multiple of the page size.
    pub(super) fn new(bytes: usize) -> Result<Self, StackError> {
        // A Rust object, and so a mapping, is at most isize::MAX bytes long.
        if bytes > isize::MAX as usize {
            return Err(StackError::TooLarge { bytes });
        }
        // Nothing of it can be touched. But Wine gives pages that it commits itself, for handlers of an
        // overflow, the protection that they were reserved with.
        // SAFETY: new address space, which nobody else uses.
        let start = unsafe { VirtualAlloc(ptr::null_mut(), bytes, MEM_RESERVE, PAGE_READWRITE) };
        if start.is_null() {
            let errno = errno();
            return Err(StackError::Map { bytes, errno });
        }
        Ok(Self {
            start: start.cast(),
            bytes,
        })
    }

    pub(super) fn start(&self) -> *mut u8 {
        self.start
    }

    pub(super) fn len(&self) -> usize {
        self.bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: from VirtualAlloc, and this value's alone.
        unsafe { VirtualFree(self.start.cast(), 0, MEM_RELEASE) };
    }
}

/// Makes a guard of the lowest `guard` of `bytes`, and a stack of the rest.
///
/// The topmost page of the guard is a guard page of the system; the pages below are not committed, and fault too.
/// The stack is committed: it counts against the memory and page files of the system, but takes memory only when
/// it is touched.
///
/// # Safety
/// They are whole pages of a mapping and not in use.
pub(super) unsafe fn lay_out(start: *mut u8, guard: usize, bytes: usize) -> Result<(), StackError> {
    let bottom = start.wrapping_add(guard);
    // SAFETY: the pages are part of a mapping and not in use (contract).
    unsafe {
        if guard > 0 {
            let page = page_size();
            commit(bottom.wrapping_sub(page), page, PAGE_READWRITE | PAGE_GUARD).map_err(
                |errno| StackError::Guard {
                    bytes: guard,
                    errno,
                },
            )?;
        }
        let bytes = bytes - guard;
        commit(bottom, bytes, PAGE_READWRITE).map_err(|errno| StackError::Map { bytes, errno })
    }
}

/// Commits pages of a reservation; the error is the system's number.
///
/// # Safety
/// They are part of a mapping and not in use.
unsafe fn commit(start: *mut u8, bytes: usize, protection: u32) -> Result<(), i32> {
    // SAFETY: the pages are part of a mapping and not in use (contract).
    let done = unsafe { VirtualAlloc(start.cast(), bytes, MEM_COMMIT, protection) };
    if done.is_null() { Err(errno()) } else { Ok(()) }
}

/// Tells the system that whole pages of one stack need not be kept: it takes them when it needs
/// memory. They hold what they held, or zeros.
///
/// # Safety
/// They are part of a mapping and not in use.
pub(super) unsafe fn give_back(start: *mut u8, bytes: usize) {
    // That it fails costs memory only.
    // SAFETY: the pages are part of a mapping and not in use (contract). MEM_RESET ignores the protection.
    unsafe { VirtualAlloc(start.cast(), bytes, MEM_RESET, PAGE_READWRITE) };
}

/// [`give_back`] refuses a range in which something is not committed.
pub(super) const GIVES_BACK_OVER_GUARDS: bool = false;

pub(super) const MOST_AT_ONCE: usize = 32;

/// Never: the pool then guards one after the other.
///
/// # Safety
/// None.
pub(super) unsafe fn guard_at_once(_: *mut u8, _: usize, _: usize, _: usize) -> usize {
    0
}

/// What is in memory is not asked.
pub(super) fn first_resident_page(_bottom: *mut u8, top: *mut u8) -> *mut u8 {
    top
}

pub(crate) fn page_size() -> usize {
    static PAGE_SIZE: OnceLock<usize> = OnceLock::new();
    *PAGE_SIZE.get_or_init(windows::page_size)
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
