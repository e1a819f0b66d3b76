//! 32-bit ARM, AAPCS32. See `asm/arm.S` for the frame and the register contract.

use core::{arch::asm, mem::offset_of};

use static_assertions::const_assert_eq;

use super::{Message, StackPointer, Start, core_layout};

/// Alignment of the top of a stack, bytes (AAPCS32 6.2.1.2, "Stack constraints at a public
/// interface").
pub(crate) const STACK_ALIGN: usize = 8;

/// rustc has no stack probes on this target: a large frame may step over a small guard.
#[cfg(feature = "std")]
pub(crate) const STACK_PROBES: bool = false;

/// d8-d15, or nothing where the core is assembled for processors without VFP registers.
const VFP_REGISTERS: usize = (core_layout::FRAME_SIZE - core_layout::VFP) / 8;

/// The registers of a suspended greenlet.
#[repr(C)]
pub(crate) struct Frame {
    r11: usize,
    resume: usize,
    r4: usize,
    r5: usize,
    r6_to_r10: [usize; 5],
    unused: usize,
    vfp: [u64; VFP_REGISTERS],
}

const_assert_eq!(size_of::<Frame>(), core_layout::FRAME_SIZE);
const_assert_eq!(offset_of!(Frame, r11), core_layout::FRAME_POINTER);
const_assert_eq!(offset_of!(Frame, resume), core_layout::RESUME);
const_assert_eq!(offset_of!(Frame, r4), core_layout::ARGUMENT);
const_assert_eq!(offset_of!(Frame, r5), core_layout::START);
const_assert_eq!(offset_of!(Frame, vfp), core_layout::VFP);

// Rust code that keeps values in d8-d15 needs a core that saves them.
#[cfg(target_abi = "eabihf")]
const_assert_eq!(VFP_REGISTERS, 8);

impl Frame {
    /// The first frame of a greenlet that begins with `start(argument, …)`.
    pub(crate) fn new(parent_link: *const (), start: Start, argument: *mut ()) -> Self {
        Self {
            r11: parent_link.expose_provenance(),
            resume: core_layout::entry_pc as *const () as usize,
            r4: argument.expose_provenance(),
            r5: start as usize,
            r6_to_r10: [0; 5],
            unused: 0,
            vfp: [0; VFP_REGISTERS],
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
    // a callee preserves and hands over word and kind; all else is declared clobbered.
    unsafe {
        asm!(
            ".if {thumb_1}",
            "bl {switch}", // which leaves in lr what is wanted there
            ".else",
            // No cfg tells which instruction set this becomes, but the assembler knows: a nop
            // has 4 bytes in ARM code and 2 in Thumb code, whose addresses have bit 0 set.
            "adr lr, 2f + (4 - (4f - 3f)) / 2",
            "b {switch}",
            "3: nop", // to be measured, never run
            "4:",
            // In Thumb code adr counts from a multiple of 4, and the compiler, which does not
            // read this, might place the function so that it is another one than assembled for.
            ".p2align 2",
            "2:",
            ".endif",
            thumb_1 = const core_layout::THUMB_1,
            switch = sym core_layout::switch,
            inout("r0") save => _,
            inout("r1") (*to).address() => _,
            inout("r2") message.word => word,
            inout("r3") message.kind => kind,
            out("lr") _,
            // The processor may have them where the ABI, and so the core, has not.
            out("d8") _, out("d9") _, out("d10") _, out("d11") _,
            out("d12") _, out("d13") _, out("d14") _, out("d15") _,
            clobber_abi("aapcs"),
        );
    }
    Message { word, kind }
}

/// To be called when a context is made ready for its first switch. Nothing is to be done here.
pub(crate) fn prepare_to_switch() {}
