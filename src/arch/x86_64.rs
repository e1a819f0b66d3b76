//! x86_64, of System V's ABI and of Windows'. See `asm/x86_64.S` and `asm/x86_64_windows.S` for the
//! registers and the contract of the switch.

#[cfg(windows)]
#[path = "x86_64_windows.rs"]
mod windows;

use core::arch::asm;

#[cfg(any(thread_words, windows, feature = "fp-control"))]
use super::core_layout;
use super::{Context, Message};

/// Alignment of the top of a stack, bytes (psABI 3.2.2 "The Stack Frame"; "x64 stack usage").
pub(crate) const STACK_ALIGN: usize = 16;

/// rustc touches every page of a large frame on this target, so one guard page catches it.
#[cfg(feature = "std")]
pub(crate) const STACK_PROBES: bool = true;

/// What Windows knows of the stack, and the control words, if they are each greenlet's own.
#[derive(Debug)]
#[repr(C)]
pub(super) struct MoreRegisters {
    #[cfg(windows)]
    stack: windows::StackWords,
    #[cfg(feature = "fp-control")]
    mxcsr: core::cell::Cell<u32>,
    #[cfg(feature = "fp-control")]
    x87_control: core::cell::Cell<u32>,
}

#[cfg(feature = "fp-control")]
mod layout {
    use core::mem::offset_of;

    use static_assertions::const_assert_eq;

    use super::{super::Registers, MoreRegisters, core_layout};

    const MORE: usize = offset_of!(Registers, more);
    const_assert_eq!(MORE + offset_of!(MoreRegisters, mxcsr), core_layout::MXCSR);
    const_assert_eq!(
        MORE + offset_of!(MoreRegisters, x87_control),
        core_layout::X87CW
    );
}

impl MoreRegisters {
    pub(super) const fn new() -> Self {
        Self {
            #[cfg(windows)]
            stack: windows::StackWords::new(),
            #[cfg(feature = "fp-control")]
            mxcsr: core::cell::Cell::new(0),
            #[cfg(feature = "fp-control")]
            x87_control: core::cell::Cell::new(0),
        }
    }

    /// A new greenlet begins with the control words of the one that prepares it, as a new thread
    /// does with those of its creator (POSIX, `pthread_create`).
    #[inline(always)]
    pub(super) fn prepare(&self) {
        #[cfg(feature = "fp-control")]
        // SAFETY: stores four bytes and two.
        unsafe {
            asm!(
                "stmxcsr [{mxcsr}]",
                "fnstcw [{x87_control}]",
                mxcsr = in(reg) self.mxcsr.as_ptr(),
                x87_control = in(reg) self.x87_control.as_ptr(),
                options(nostack, preserves_flags),
            );
        }
    }
}

/// Inlines a text of `asm/x86_64.S`. Returns the message, and the final value of rsi.
macro_rules! in_line {
    ($text:literal, $me:expr, $to:expr, $message:expr) => {{
        let (word, kind, to): (_, _, *const Context);
        asm!(
            include_str!(concat!(env!("OUT_DIR"), $text)),
            inout("rdi") $me => _,
            inout("rsi") $to => to,
            inout("rdx") $message.word => word,
            inout("rcx") $message.kind => kind,
            out("r12") _,
            out("r13") _,
            out("r14") _,
            out("r15") _,
            clobber_abi("sysv64"),
            options(raw),
        );
        (Message { word, kind }, to)
    }};
}

/// Suspends the caller, whose context is `me`, and resumes `to` with `message`. Returns what the caller
/// is resumed with.
///
/// # Safety
/// `me` is the context that runs on this thread. `to` is suspended, or prepared, on this thread,
/// and is resumed only this once.
#[inline(always)]
pub(crate) unsafe fn switch(me: *const Context, to: *const Context, message: Message) -> Message {
    // SAFETY: `me` runs, and `to` is suspended or prepared (contract). The text preserves rbx, rbp and rsp and
    // passes word and kind on; all other registers are declared clobbered.
    unsafe { in_line!("/switch.s", me, to, message) }.0
}

/// Switches as [`switch`] does if `me` is the running context ([`running`]) and the byte behind `to` is
/// `core_layout::ACTIVE`. Otherwise returns `message.word` and `to`, with the kind `core_layout::REFUSED`.
///
/// # Safety
/// Only [`set_running`] and this function set the running context, and the context that they set runs. That
/// byte is `ACTIVE` only for contexts that are suspended or prepared on this thread, and for the running one.
#[cfg(thread_words)]
#[inline(always)]
pub(crate) unsafe fn hop(
    me: *const Context,
    to: *const Context,
    message: Message,
) -> (Message, *const Context) {
    // SAFETY: as in `switch`. A switch to the running context loads what it has just stored.
    unsafe { in_line!("/hop.s", me, to, message) }
}

/// Returns the offset of the thread's words from fs.
///
/// Vector and mask registers are declared clobbered, though the function of a TLS descriptor shall
/// preserve them: in a shared object that of glibc before 2.40 does not when a thread first needs the
/// object's thread-locals (glibc bug 31372).
#[cfg(thread_words)]
#[inline(always)]
fn thread_words() -> usize {
    let words;
    // SAFETY: as THREAD_WORDS in `asm/x86_64.S`: of the general registers it changes rax. The address
    // is the same as long as a greenlet lives, as that stays on its thread: so it is looked up once a
    // function.
    unsafe {
        asm!(
            "lea rax, [rip + {words}@tlsdesc]",
            "call qword ptr [rax + {words}@tlscall]",
            words = sym core_layout::words,
            out("rax") words,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
            out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            out("xmm16") _, out("xmm17") _, out("xmm18") _, out("xmm19") _,
            out("xmm20") _, out("xmm21") _, out("xmm22") _, out("xmm23") _,
            out("xmm24") _, out("xmm25") _, out("xmm26") _, out("xmm27") _,
            out("xmm28") _, out("xmm29") _, out("xmm30") _, out("xmm31") _,
            out("k0") _, out("k1") _, out("k2") _, out("k3") _,
            out("k4") _, out("k5") _, out("k6") _, out("k7") _,
            options(pure, nomem),
        );
    }
    words
}

/// Returns the context that [`set_running`] or [`hop`] has set last.
#[cfg(thread_words)]
#[inline(always)]
pub(crate) fn running() -> *const Context {
    let running;
    // SAFETY: reads a word of this thread.
    unsafe {
        asm!(
            "mov {running}, fs:[{words} + {offset}]",
            words = in(reg) thread_words(),
            running = lateout(reg) running,
            offset = const core_layout::RUNNING,
            options(nostack, preserves_flags, readonly),
        );
    }
    running
}

/// Sets the thread's running context. A tagged address is never equal to one that [`hop`] is called with, so
/// `hop` then refuses.
#[cfg(thread_words)]
#[inline(always)]
pub(crate) fn set_running(context: *const Context) {
    // SAFETY: writes a word of this thread that nothing else does.
    unsafe {
        asm!(
            "mov fs:[{words} + {offset}], {context}",
            words = in(reg) thread_words(),
            context = in(reg) context,
            offset = const core_layout::RUNNING,
            options(nostack, preserves_flags),
        );
    }
}

/// Returns the address of the word that [`running`] reads, for a debugger.
#[cfg(thread_words)]
pub(crate) fn running_word() -> *const () {
    let base: usize;
    // SAFETY: psABI 3.4.2 and the TLS supplement: at fs:0 is the address that fs stands for.
    unsafe {
        asm!(
            "mov {base}, fs:[0]",
            base = out(reg) base,
            options(nostack, preserves_flags, readonly),
        );
    }
    core::ptr::without_provenance(base.wrapping_add(thread_words()) + core_layout::RUNNING)
}
