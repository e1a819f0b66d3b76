//! aarch64, AAPCS64. See `asm/aarch64.S` for the registers and the contract of the switch.

use core::arch::asm;

use super::{Context, Message};

/// Alignment of the top of a stack, bytes (AAPCS64 6.4.5.1 "Universal stack constraints").
pub(crate) const STACK_ALIGN: usize = 16;

/// rustc touches every page of a large frame on this target, so one guard page catches it.
#[cfg(feature = "std")]
pub(crate) const STACK_PROBES: bool = true;

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
    // SAFETY: the caller vouches for the contexts. The text preserves x19, x29 and sp
    // and hands over word and kind; all else is declared clobbered.
    unsafe {
        asm!(
            include_str!(concat!(env!("OUT_DIR"), "/switch.s")),
            inout("x0") me => _,
            inout("x1") to => _,
            inout("x2") message.word => word,
            inout("x3") message.kind => kind,
            out("x20") _,
            out("x21") _,
            out("x22") _,
            out("x23") _,
            out("x24") _,
            out("x25") _,
            out("x26") _,
            out("x27") _,
            out("x28") _,
            out("v8") _,
            out("v9") _,
            out("v10") _,
            out("v11") _,
            out("v12") _,
            out("v13") _,
            out("v14") _,
            out("v15") _,
            clobber_abi("C"),
            options(raw),
        );
    }
    Message { word, kind }
}
