//! riscv64, RISC-V ELF psABI. See `asm/riscv64.S` for the frame and the register contract.

use core::{arch::asm, mem::offset_of};

use static_assertions::const_assert_eq;

use super::{Message, StackPointer, Start, core_layout};

/// Alignment of the top of a stack, bytes (psABI, "Integer Calling Convention").
pub(crate) const STACK_ALIGN: usize = 16;

/// rustc does not probe stacks on this target.
#[cfg(feature = "std")]
pub(crate) const STACK_PROBES: bool = false;

/// The registers of a suspended greenlet.
#[repr(C)]
pub(crate) struct Frame {
    s0: usize,
    resume: usize,
    s1: usize,
    s2: usize,
    s3_to_s11: [usize; 9],
    /// fs0 to fs11 if the ABI passes floating-point values in registers; padding.
    rest: [usize; REST],
}

const REST: usize = core_layout::FRAME_SIZE / size_of::<usize>() - 13;

const_assert_eq!(size_of::<Frame>(), core_layout::FRAME_SIZE);
const_assert_eq!(offset_of!(Frame, s0), core_layout::FRAME_POINTER);
const_assert_eq!(offset_of!(Frame, resume), core_layout::RESUME);
const_assert_eq!(offset_of!(Frame, s1), core_layout::START);
const_assert_eq!(offset_of!(Frame, s2), core_layout::ARGUMENT);
const_assert_eq!(size_of::<Frame>() % STACK_ALIGN, 0);

impl Frame {
    /// The first frame of a greenlet that begins with `start(argument, …)`.
    pub(crate) fn new(parent_link: *const (), start: Start, argument: *mut ()) -> Self {
        Self {
            s0: parent_link.expose_provenance(),
            resume: core_layout::entry_pc as *const () as usize,
            s1: start as usize,
            s2: argument.expose_provenance(),
            s3_to_s11: [0; 9],
            rest: [0; REST],
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
    // a callee preserves and hands over word and kind; all else, ra and the t1 or t2 of
    // `tail` with it, is declared clobbered.
    unsafe {
        asm!(
            "lla ra, 2f",
            "tail {switch}",
            "2:",
            switch = sym core_layout::switch,
            inout("a0") save => _,
            inout("a1") (*to).address() => _,
            inout("a2") message.word => word,
            inout("a3") message.kind => kind,
            // fs0-fs11: the processor may have them where the ABI, and so the core, has not.
            out("f8") _, out("f9") _, out("f18") _, out("f19") _, out("f20") _, out("f21") _,
            out("f22") _, out("f23") _, out("f24") _, out("f25") _, out("f26") _, out("f27") _,
            clobber_abi("C"),
        );
    }
    Message { word, kind }
}

/// To be called when a context is made ready for its first switch. Nothing is to be done here.
pub(crate) fn prepare_to_switch() {}
