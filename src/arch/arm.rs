//! 32-bit ARM, AAPCS32. See `asm/arm.S` for the registers and the contract of the switch.

use core::arch::asm;

use super::{Context, Message};

/// Alignment of the top of a stack, bytes (AAPCS32 6.2.1.2, "Stack constraints at a public
/// interface").
pub(crate) const STACK_ALIGN: usize = 8;

/// rustc has no stack probes on this target: a large frame may step over a small guard.
#[cfg(feature = "std")]
pub(crate) const STACK_PROBES: bool = false;

/// r7 and r9: frame pointer in Thumb code, the platform's register.
#[derive(Debug)]
#[repr(C)]
pub(super) struct MoreRegisters([core::cell::Cell<usize>; 2]);

impl MoreRegisters {
    pub(super) const fn new() -> Self {
        Self([const { core::cell::Cell::new(0) }; 2])
    }

    /// A new greenlet begins with the r9 of the one that prepares it.
    #[inline(always)]
    pub(super) fn prepare(&self) {
        let r9;
        // SAFETY: copies a register.
        unsafe { asm!("mov {}, r9", out(reg) r9, options(nomem, nostack, preserves_flags)) };
        self.0[1].set(r9);
    }
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
    // SAFETY: the caller vouches for the contexts. The text preserves r6, r7, r9, r11 and sp
    // and hands over word and kind; all else is declared clobbered.
    unsafe {
        asm!(
            include_str!(concat!(env!("OUT_DIR"), "/switch.s")),
            inout("r0") me => _,
            inout("r1") to => _,
            inout("r2") message.word => word,
            inout("r3") message.kind => kind,
            out("r4") _,
            out("r5") _,
            out("r8") _,
            out("r10") _,
            out("lr") _,
            out("d8") _,
            out("d9") _,
            out("d10") _,
            out("d11") _,
            out("d12") _,
            out("d13") _,
            out("d14") _,
            out("d15") _,
            clobber_abi("aapcs"),
            options(raw),
        );
    }
    Message { word, kind }
}
