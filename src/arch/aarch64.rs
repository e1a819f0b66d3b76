//! aarch64, AAPCS64. See `asm/aarch64.S` for the frame and the register contract.

use core::{arch::asm, mem::offset_of};

use static_assertions::const_assert_eq;

use super::{Message, StackPointer, Start, core_layout};

/// Alignment of the top of a stack, bytes (AAPCS64 6.4.5.1 "Universal stack constraints").
pub(crate) const STACK_ALIGN: usize = 16;

/// rustc touches every page of a large frame on this target, so one guard page catches it.
#[cfg(feature = "std")]
pub(crate) const STACK_PROBES: bool = true;

/// The registers of a suspended greenlet.
#[repr(C)]
pub(crate) struct Frame {
    x29: usize,
    resume: usize,
    x19: usize,
    x20: usize,
    x21_to_x28: [usize; 8],
    d8_to_d15: [u64; 8],
}

const_assert_eq!(size_of::<Frame>(), core_layout::FRAME_SIZE);
const_assert_eq!(offset_of!(Frame, x29), core_layout::FRAME_POINTER);
const_assert_eq!(offset_of!(Frame, resume), core_layout::RESUME);
const_assert_eq!(offset_of!(Frame, x19), core_layout::START);
const_assert_eq!(offset_of!(Frame, x20), core_layout::ARGUMENT);

impl Frame {
    /// The first frame of a greenlet that begins with `start(argument, …)`.
    pub(crate) fn new(parent_link: *const (), start: Start, argument: *mut ()) -> Self {
        Self {
            x29: parent_link.expose_provenance(),
            resume: core_layout::entry_pc as *const () as usize,
            x19: start as usize,
            x20: argument.expose_provenance(),
            x21_to_x28: [0; 8],
            d8_to_d15: [0; 8],
        }
    }
}

/// Suspends the caller, stores its stack pointer in `save`, resumes the one whose stack pointer
/// is in `to` with `message`; returns when somebody resumes the caller, with what they sent.
///
/// # Safety
/// `save` is valid for a write; `to` holds the stack pointer of a frame that is suspended now
/// and is resumed only this once, on this thread.
#[inline(always)]
pub(crate) unsafe fn switch(
    save: *mut StackPointer,
    to: *const StackPointer,
    message: Message,
) -> Message {
    let (word, kind);
    // SAFETY: the caller vouches for `save` and `to`. The core preserves what the ABI says
    // a callee preserves and hands over word and kind; all else, x30 with it, is declared
    // clobbered.
    unsafe {
        asm!(
            "adr x30, 2f",
            "b {switch}",
            "2:",
            switch = sym core_layout::switch,
            inout("x0") save => _,
            inout("x1") (*to).address() => _,
            inout("x2") message.word => word,
            inout("x3") message.kind => kind,
            clobber_abi("C"),
        );
    }
    Message { word, kind }
}

/// To be called when a context is made ready for its first switch. Nothing is to be done here.
pub(crate) fn prepare_to_switch() {}
