//! The functions of Windows that the crate calls: a few of kernel32, which every program has loaded. They are
//! declared here, because a crate with all of Windows' interfaces would add to every build.
//!
//! The layout of a stack in memory:
//!
//! ```text
//!   top     ->  committed: readable and writable
//!   bottom  ->  committed, one page: PAGE_GUARD
//!               reserved, HANDLERS_ROOM
//!   lowest  ->  (perhaps more that is reserved)
//! ```
//!
//! At the first touch of a PAGE_GUARD page the system reads the fields for the running stack in the thread
//! environment block (`asm/x86_64_windows.S`). For a stack like this they say that only the room for handlers
//! is left. The system commits that and raises STATUS_STACK_OVERFLOW, as for a thread's stack.

use core::{
    ffi::c_void,
    mem::{MaybeUninit, offset_of},
};

use static_assertions::const_assert_eq;

/// Bytes that an overflow leaves for its handlers, and for the system to call them. A thread of std's
/// has 20 KiB of it; hooks may use 8 KiB ([`OverflowHook`](crate::raw::OverflowHook)).
pub(crate) const HANDLERS_ROOM: usize = 32 * 1024;

/// Bytes of the smallest guard: that room and a page that is never committed.
pub(crate) const LEAST_GUARD: usize = HANDLERS_ROOM + 4096;

/// Where a stack lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) bottom: *mut u8,
    pub(crate) top: *mut u8,
    /// A guard of at least [`LEAST_GUARD`] bytes lies below it.
    pub(crate) has_guard: bool,
}

pub(crate) const MEM_COMMIT: u32 = 0x1000;
pub(crate) const MEM_RESERVE: u32 = 0x2000;
pub(crate) const MEM_RELEASE: u32 = 0x8000;
pub(crate) const MEM_RESET: u32 = 0x8_0000;
pub(crate) const PAGE_READWRITE: u32 = 0x04;
pub(crate) const PAGE_GUARD: u32 = 0x100;

/// `MEMORY_BASIC_INFORMATION`.
#[repr(C)]
pub(crate) struct Region {
    pub(crate) base: *mut u8,
    pub(crate) allocation_base: *mut u8,
    pub(crate) allocation_protect: u32,
    pub(crate) partition: u16,
    pub(crate) size: usize,
    pub(crate) state: u32,
    pub(crate) protect: u32,
    pub(crate) kind: u32,
}

#[link(name = "kernel32")]
unsafe extern "system" {
    pub(crate) fn VirtualAlloc(
        at: *mut c_void,
        bytes: usize,
        kind: u32,
        protection: u32,
    ) -> *mut c_void;
    pub(crate) fn VirtualFree(at: *mut c_void, bytes: usize, kind: u32) -> i32;
    fn VirtualQuery(at: *const c_void, region: *mut Region, bytes: usize) -> usize;
    fn GetSystemInfo(info: *mut SystemInfo);
    pub(crate) fn TlsAlloc() -> u32;
    pub(crate) fn TlsFree(key: u32) -> i32;
    pub(crate) fn TlsGetValue(key: u32) -> *mut c_void;
    pub(crate) fn TlsSetValue(key: u32, value: *mut c_void) -> i32;
    safe fn GetCurrentThreadId() -> u32;
    pub(crate) fn AddVectoredExceptionHandler(
        first: u32,
        handler: unsafe extern "system" fn(*const ExceptionPointers) -> i32,
    ) -> *mut c_void;
    pub(crate) fn GetStdHandle(which: u32) -> *mut c_void;
    pub(crate) fn WriteFile(
        file: *mut c_void,
        bytes: *const u8,
        count: u32,
        written: *mut u32,
        overlapped: *mut c_void,
    ) -> i32;
    pub(crate) fn RtlCaptureContext(context: *mut MachineContext);
    pub(crate) fn RtlLookupFunctionEntry(
        address: u64,
        image: *mut u64,
        history: *mut c_void,
    ) -> *mut c_void;
    pub(crate) fn RtlVirtualUnwind(
        kind: u32,
        image: u64,
        address: u64,
        function: *mut c_void,
        context: *mut MachineContext,
        data: *mut *mut c_void,
        frame: *mut u64,
        pointers: *mut c_void,
    ) -> *mut c_void;
}

pub(crate) const UNW_FLAG_NHANDLER: u32 = 0;

pub(crate) const EXCEPTION_ACCESS_VIOLATION: u32 = 0xc000_0005;
pub(crate) const EXCEPTION_STACK_OVERFLOW: u32 = 0xc000_00fd;
pub(crate) const EXCEPTION_CONTINUE_SEARCH: i32 = 0;
/// -12.
pub(crate) const STD_ERROR_HANDLE: u32 = 0xffff_fff4;

/// `EXCEPTION_POINTERS`.
#[repr(C)]
pub(crate) struct ExceptionPointers {
    pub(crate) record: *const ExceptionRecord,
    pub(crate) context: *const MachineContext,
}

/// `EXCEPTION_RECORD`.
#[repr(C)]
pub(crate) struct ExceptionRecord {
    pub(crate) code: u32,
    flags: u32,
    next: *const ExceptionRecord,
    address: *const c_void,
    pub(crate) parameters: u32,
    pub(crate) information: [usize; 15],
}

/// `CONTEXT`, of which the crate reads two registers.
#[repr(C, align(16))]
pub(crate) struct MachineContext {
    before: [u64; 19],
    pub(crate) rsp: u64,
    between: [u64; 11],
    pub(crate) rip: u64,
    after: [u64; 122],
}

const_assert_eq!(size_of::<MachineContext>(), 1232);
const_assert_eq!(offset_of!(MachineContext, rsp), 0x98);
const_assert_eq!(offset_of!(MachineContext, rip), 0xf8);

impl MachineContext {
    pub(crate) const fn new() -> Self {
        Self {
            before: [0; 19],
            rsp: 0,
            between: [0; 11],
            rip: 0,
            after: [0; 122],
        }
    }
}

/// `SYSTEM_INFO`.
#[repr(C)]
struct SystemInfo {
    architecture: u32,
    page_size: u32,
    rest: [usize; 5],
}

pub(crate) fn page_size() -> usize {
    let mut info = MaybeUninit::<SystemInfo>::uninit();
    // SAFETY: writes all of it.
    let info = unsafe {
        GetSystemInfo(info.as_mut_ptr());
        info.assume_init()
    };
    info.page_size as usize
}

/// By which a debugger knows the thread.
pub(crate) fn thread_number() -> u64 {
    GetCurrentThreadId().into()
}

/// The pages from that of `address` on that are alike.
fn region_at(address: *const u8) -> Option<Region> {
    let mut region = MaybeUninit::<Region>::uninit();
    // SAFETY: asks only.
    let written = unsafe { VirtualQuery(address.cast(), region.as_mut_ptr(), size_of::<Region>()) };
    // SAFETY: it says how many bytes it has written.
    (written == size_of::<Region>()).then(|| unsafe { region.assume_init() })
}

impl Room {
    /// The memory below `top` that is like that just below it, as the system knows it: for a stack
    /// of which nothing else is known.
    pub(crate) fn below(top: *mut u8) -> Self {
        let last = top.wrapping_sub(1);
        let unknown = Self {
            bottom: last,
            top,
            has_guard: false,
        };
        let Some(there) = region_at(last) else {
            return unknown;
        };
        let holds_last = |address: *mut u8| {
            region_at(address).is_some_and(|region| {
                let end = region.base.addr() + region.size;
                region.allocation_base == there.allocation_base && end > last.addr()
            })
        };
        // From the allocation's first page to that of `last`: the first from which on all is alike.
        let page = 4096;
        let (mut low, mut high) = (0, (there.base.addr() - there.allocation_base.addr()) / page);
        let at = |index: usize| there.allocation_base.wrapping_add(index * page);
        // The stack is most likely small and the allocation large.
        let mut step = 1;
        while step <= high - low && holds_last(at(high - step)) {
            high -= step;
            step *= 2;
        }
        low = low.max((high + 1).saturating_sub(step));
        while low < high {
            let middle = low + (high - low) / 2;
            if holds_last(at(middle)) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        let bottom = at(high);
        let has_guard = high > 0
            && region_at(at(high - 1)).is_some_and(|region| {
                region.protect & PAGE_GUARD != 0
                    && high * page >= LEAST_GUARD
                    && region_at(at(high - LEAST_GUARD / page)).is_some_and(|reserved| {
                        reserved.state != MEM_COMMIT
                            && reserved.base.addr() + reserved.size >= bottom.addr() - page
                    })
            });
        Self {
            bottom,
            top,
            has_guard,
        }
    }
}
