//! Maps address space for stacks, and protects guards in it.

#[cfg(target_os = "linux")]
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::{io, sync::OnceLock};

use memmap2::{MmapOptions, MmapRaw};

use super::StackError;

/// Anonymous memory, committed page by page when first touched, unmapped when dropped.
///
/// # Invariants
/// It is never borrowed as a slice: it belongs to whatever runs on it.
pub(super) struct Mapping {
    map: MmapRaw,
}

impl Mapping {
    /// Maps `bytes`, a multiple of the page size.
    pub(super) fn new(bytes: usize) -> Result<Self, StackError> {
        // A Rust object, and so a mapping, is at most isize::MAX bytes long.
        if bytes > isize::MAX as usize {
            return Err(StackError::TooLarge { bytes });
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
        let map = MmapRaw::from(map);
        // A huge page would commit two megabytes for the first byte of a stack. A kernel without huge pages
        // refuses the advice, which does no harm.
        // SAFETY: the range is a mapping that is this value's alone.
        #[cfg(target_os = "linux")]
        unsafe {
            libc::madvise(map.as_mut_ptr().cast(), bytes, libc::MADV_NOHUGEPAGE);
        }
        Ok(Self { map })
    }

    pub(super) fn start(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }
}

/// Makes the lowest `guard` of `bytes` fault when touched. The others are a stack, as they are.
///
/// # Safety
/// They are whole pages of a mapping and not in use.
pub(super) unsafe fn lay_out(
    start: *mut u8,
    guard: usize,
    _bytes: usize,
) -> Result<(), StackError> {
    if guard == 0 {
        // The page at `start` belongs to the stack: `advice_guards` must not use it.
        return Ok(());
    }
    // SAFETY: the pages are part of a mapping and not in use (contract).
    unsafe {
        #[cfg(target_os = "linux")]
        if advice_guards(start) && advise_guard(start, guard) {
            return Ok(());
        }
        match libc::mprotect(start.cast(), guard, libc::PROT_NONE) {
            0 => Ok(()),
            _ => Err(StackError::Guard {
                bytes: guard,
                errno: errno(&io::Error::last_os_error()),
            }),
        }
    }
}

/// Bytes that a guard has at least, if there is one.
pub(super) const LEAST_GUARD: usize = 1;

/// May a range for [`give_back`] have guards in it?
pub(super) const GIVES_BACK_OVER_GUARDS: bool = true;

/// Gives whole pages back to the system, which takes them at once, or (Apple's) when it needs them;
/// they read as zeros then. Guards stay.
///
/// # Safety
/// They are part of a mapping and not in use.
pub(super) unsafe fn give_back(start: *mut u8, bytes: usize) {
    // Apple's MADV_DONTNEED keeps what the pages hold.
    let advice = if cfg!(target_vendor = "apple") {
        libc::MADV_FREE
    } else {
        libc::MADV_DONTNEED
    };
    // That it fails, on locked memory, costs memory only.
    // SAFETY: the pages are part of a mapping and not in use (contract).
    unsafe { libc::madvise(start.cast(), bytes, advice) };
}

/// `MADV_GUARD_INSTALL` of Linux 6.13 (include/uapi/asm-generic/mman-common.h). It guards
/// pages without splitting the mapping, so that the number of stacks is not limited by
/// vm.max_map_count. The libc crate does not name it on every target.
#[cfg(target_os = "linux")]
const MADV_GUARD_INSTALL: libc::c_int = 102;

/// `process_madvise`, and the descriptor by which it takes the calling process for the other,
/// without one (include/uapi/linux/pidfd.h, Linux 6.14). The number is that of all architectures
/// here.
#[cfg(target_os = "linux")]
const PROCESS_MADVISE: libc::c_long = 440;
#[cfg(target_os = "linux")]
const PIDFD_SELF: libc::c_int = -10000;

/// So many ranges [`guard_at_once`] takes at the most.
pub(super) const MOST_AT_ONCE: usize = 32;

/// Guards the lowest `bytes` of each of `count` slots by one call of the system, which takes two
/// thirds of the time of one for each. Returns of how many, from the first on: none where the
/// system does not have that.
///
/// # Safety
/// They are whole pages of a mapping and not in use.
pub(super) unsafe fn guard_at_once(
    start: *mut u8,
    stride: usize,
    bytes: usize,
    count: usize,
) -> usize {
    #[cfg(target_os = "linux")]
    {
        static IS_REFUSED: AtomicBool = AtomicBool::new(false);

        // Valgrind does not know the call, and says so.
        let is_known = !cfg!(feature = "valgrind") && !IS_REFUSED.load(Ordering::Relaxed);
        if is_known && count > 1 && bytes > 0 && advice_guards(start) {
            let mut ranges = [libc::iovec {
                iov_base: start.cast(),
                iov_len: bytes,
            }; MOST_AT_ONCE];
            let count = count.min(MOST_AT_ONCE);
            for (index, range) in ranges[..count].iter_mut().enumerate() {
                range.iov_base = start.wrapping_add(index * stride).cast();
            }
            // SAFETY: the pages are part of a mapping and not in use (contract).
            let guarded = unsafe {
                let (ranges, flags): (_, libc::c_uint) = (ranges.as_ptr(), 0);
                let advice = MADV_GUARD_INSTALL;
                libc::syscall(PROCESS_MADVISE, PIDFD_SELF, ranges, count, advice, flags)
            };
            if let Ok(guarded @ 1..) = usize::try_from(guarded) {
                return guarded / bytes;
            }
            IS_REFUSED.store(true, Ordering::Relaxed);
        }
    }
    let _ = (start, stride, bytes, count);
    0
}

/// # Safety
/// As for [`guard`].
#[cfg(target_os = "linux")]
unsafe fn advise_guard(start: *mut u8, bytes: usize) -> bool {
    // Refused by older kernels, and on locked memory.
    // SAFETY: the pages are part of a mapping and not in use (contract).
    unsafe { libc::madvise(start.cast(), bytes, MADV_GUARD_INSTALL) == 0 }
}

/// Returns `true` if the guard advice guards. Found out once, on a page of a range that is to be guarded
/// anyway. A success of the call is no proof: qemu's user emulation answers 0 to any advice
/// and does nothing.
#[cfg(target_os = "linux")]
fn advice_guards(page: *mut u8) -> bool {
    const UNKNOWN: u8 = 0;
    const NO: u8 = 1;
    const YES: u8 = 2;
    static ANSWER: AtomicU8 = AtomicU8::new(UNKNOWN);

    match ANSWER.load(Ordering::Relaxed) {
        UNKNOWN => {
            // SAFETY: the caller is about to guard this page. Where that has worked the
            // kernel cannot write an answer there; elsewhere it writes one byte. (Valgrind
            // reads what a system call is to read, and would fault itself.)
            let guards = unsafe {
                advise_guard(page, page_size())
                    && libc::mincore(page.cast(), page_size(), page) == -1
                    && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
            };
            ANSWER.store(if guards { YES } else { NO }, Ordering::Relaxed);
            guards
        }
        answer => answer == YES,
    }
}

/// Pages that one call looks at.
const WINDOW: usize = 256;

/// Windows that are looked at in any case.
const LEAST_WINDOWS: usize = 16;

/// The lowest page in memory from `bottom` up to the one that `top` ends in, or the end of that.
/// Touches none. Looks from the top down, until a range as large as all above it, but no less than
/// [`LEAST_WINDOWS`], has none.
pub(super) fn first_resident_page(bottom: *mut u8, top: *mut u8) -> *mut u8 {
    let page = page_size();
    let end = top.map_addr(|address| address.next_multiple_of(page));
    let pages = (end.addr() - bottom.addr()) / page;
    let mut resident = [0u8; WINDOW];
    // Pages below the end: how many have been looked at, and which is the lowest in memory.
    let (mut seen, mut lowest) = (0, 0);
    while seen < pages && seen < (LEAST_WINDOWS * WINDOW).max(2 * lowest) {
        let count = WINDOW.min(pages - seen);
        seen += count;
        let start = end.wrapping_sub(seen * page);
        // SAFETY: mincore looks at page tables only, and writes a byte for each page, for which
        // there is room.
        let refused =
            unsafe { libc::mincore(start.cast(), count * page, resident.as_mut_ptr().cast()) != 0 };
        if refused {
            // Nothing is in memory, as far as we know.
            break;
        }
        if let Some(index) = resident[..count].iter().position(|&flags| flags & 1 != 0) {
            lowest = seen - index;
        }
    }
    end.wrapping_sub(lowest * page)
}

pub(crate) fn page_size() -> usize {
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
