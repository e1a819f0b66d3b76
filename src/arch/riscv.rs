//! riscv64 and riscv32, RISC-V ELF psABI. See `asm/riscv.S` for the registers and the contract of the switch.

use core::arch::asm;

use super::{Context, Message};

/// Alignment of the top of a stack, bytes (psABI, "Integer Calling Convention").
pub(crate) const STACK_ALIGN: usize = 16;

/// rustc does not probe stacks on this target.
#[cfg(feature = "std")]
pub(crate) const STACK_PROBES: bool = false;

/// None.
#[derive(Debug)]
#[repr(C)]
pub(super) struct MoreRegisters {}

impl MoreRegisters {
    pub(super) const fn new() -> Self {
        Self {}
    }

    /// There is nothing to be done here.
    pub(super) fn prepare(&self) {}
}

/// Suspends the caller, whose context is `me`, and resumes `to` with `message`. Returns what the caller
/// is resumed with.
///
/// # Safety
/// `me` is the context that runs on this thread. `to` is suspended, or prepared, on this thread,
/// and is resumed only this once.
#[inline(always)]
pub(crate) unsafe fn switch(me: *const Context, to: *const Context, message: Message) -> Message {
    let (word, kind);
    // SAFETY: the caller vouches for the contexts. The text preserves s0, s1 and sp
    // and hands over word and kind; all else is declared clobbered.
    unsafe {
        asm!(
            include_str!(concat!(env!("OUT_DIR"), "/switch.s")),
            inout("a0") me => _,
            inout("a1") to => _,
            inout("a2") message.word => word,
            inout("a3") message.kind => kind,
            out("s2") _,
            out("s3") _,
            out("s4") _,
            out("s5") _,
            out("s6") _,
            out("s7") _,
            out("s8") _,
            out("s9") _,
            out("s10") _,
            out("s11") _,
            out("fs0") _,
            out("fs1") _,
            out("fs2") _,
            out("fs3") _,
            out("fs4") _,
            out("fs5") _,
            out("fs6") _,
            out("fs7") _,
            out("fs8") _,
            out("fs9") _,
            out("fs10") _,
            out("fs11") _,
            clobber_abi("C"),
            options(raw),
        );
    }
    Message { word, kind }
}
