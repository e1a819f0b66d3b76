//! As `unwind.rs`, by the unwinder that is part of Windows (Microsoft Learn, "RtlVirtualUnwind").

use core::ptr;

use crate::host::windows::{
    MachineContext, RtlCaptureContext, RtlLookupFunctionEntry, RtlVirtualUnwind, UNW_FLAG_NHANDLER,
};

/// Calls `look` with the address at which each frame resumes, from the innermost outwards.
pub(crate) fn for_each_frame<F: FnMut(usize)>(mut look: F) {
    let mut context = MachineContext::new();
    // SAFETY: writes the registers as they are here.
    unsafe { RtlCaptureContext(&raw mut context) };
    while context.rip != 0 {
        let at = context.rip;
        look(at as usize);
        // SAFETY: the tables tell of frames that wait. Where there is none, the stack is not known.
        unsafe {
            let mut image = 0;
            let function = RtlLookupFunctionEntry(at, &raw mut image, ptr::null_mut());
            if function.is_null() {
                break;
            }
            let (mut data, mut frame) = (ptr::null_mut(), 0);
            RtlVirtualUnwind(
                UNW_FLAG_NHANDLER,
                image,
                at,
                function,
                &raw mut context,
                &raw mut data,
                &raw mut frame,
                ptr::null_mut(),
            );
        }
    }
}
