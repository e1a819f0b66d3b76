//! The addresses of the frames of the current stack, from the unwinder that std is linked with.
//! Its functions are those of the Itanium C++ ABI (part I, "Base ABI", 1.5 and 1.6), and
//! `_Unwind_Backtrace`, which every implementation adds; on 32-bit arm, of the EHABI (section 8).

use core::{
    ffi::{c_int, c_void},
    ptr,
};

/// A frame that the unwinder is at.
#[repr(C)]
struct Frame {
    _opaque: [u8; 0],
}

type Visit = extern "C" fn(*mut Frame, *mut c_void) -> c_int;

/// Tells the unwinder to continue (`_URC_NO_REASON`, `_URC_OK`).
const CONTINUE: c_int = 0;

unsafe extern "C" {
    fn _Unwind_Backtrace(visit: Visit, argument: *mut c_void) -> c_int;

    #[cfg(not(target_arch = "arm"))]
    fn _Unwind_GetIP(frame: *mut Frame) -> usize;

    #[cfg(target_arch = "arm")]
    fn _Unwind_VRS_Get(
        frame: *mut Frame,
        class: c_int,
        register: u32,
        representation: c_int,
        value: *mut c_void,
    ) -> c_int;
}

/// Calls `look` with the address at which each frame resumes, from the innermost outwards.
pub(crate) fn for_each_frame<F: FnMut(usize)>(mut look: F) {
    extern "C" fn visit<F: FnMut(usize)>(frame: *mut Frame, look: *mut c_void) -> c_int {
        // SAFETY: `look` comes from below, and its call waits.
        let look = unsafe { &mut *look.cast::<F>() };
        // SAFETY: the unwinder is at this frame.
        look(unsafe { address(frame) });
        CONTINUE
    }
    // SAFETY: the function fits its argument. That the walk may end early is no fault.
    unsafe { _Unwind_Backtrace(visit::<F>, ptr::from_mut(&mut look).cast()) };
}

/// Returns the address at which a frame continues.
///
/// # Safety
/// The unwinder is at this frame.
#[cfg(not(target_arch = "arm"))]
unsafe fn address(frame: *mut Frame) -> usize {
    // SAFETY: the unwinder is at this frame (contract).
    unsafe { _Unwind_GetIP(frame) }
}

/// Returns the address at which a frame continues.
///
/// # Safety
/// The unwinder is at this frame.
#[cfg(target_arch = "arm")]
unsafe fn address(frame: *mut Frame) -> usize {
    const CORE: c_int = 0;
    const UNSIGNED: c_int = 0;
    const PROGRAM_COUNTER: u32 = 15;
    let mut value: u32 = 0;
    // SAFETY: the unwinder is at this frame (contract). A core register is read into 32 bits.
    unsafe {
        _Unwind_VRS_Get(
            frame,
            CORE,
            PROGRAM_COUNTER,
            UNSIGNED,
            ptr::from_mut(&mut value).cast(),
        )
    };
    value as usize
}
