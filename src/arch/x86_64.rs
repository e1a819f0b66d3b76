//! x86_64, System V ABI. See `asm/x86_64.S` for the frame and the register contract.

use core::{arch::asm, mem::offset_of};

use static_assertions::const_assert_eq;

use super::{Message, StackPointer, Start, core_layout};

/// Alignment of the top of a stack, bytes (psABI 3.2.2 "The Stack Frame").
pub(crate) const STACK_ALIGN: usize = 16;

/// rustc touches every page of a large frame on this target, so one guard page catches it.
#[cfg(feature = "std")]
pub(crate) const STACK_PROBES: bool = true;

/// The registers of a suspended greenlet.
#[repr(C)]
pub(crate) struct Frame {
    rbp: usize,
    resume: usize,
    mxcsr: u32,
    x87_control: u16,
    unused: u16,
    r15: usize,
    r14: usize,
    r13: usize,
    r12: usize,
    rbx: usize,
}

const_assert_eq!(size_of::<Frame>(), core_layout::FRAME_SIZE);
const_assert_eq!(offset_of!(Frame, rbp), core_layout::FRAME_POINTER);
const_assert_eq!(offset_of!(Frame, resume), core_layout::RESUME);
const_assert_eq!(offset_of!(Frame, mxcsr), core_layout::MXCSR);
const_assert_eq!(offset_of!(Frame, x87_control), core_layout::X87CW);
const_assert_eq!(offset_of!(Frame, r12), core_layout::ARGUMENT);
const_assert_eq!(offset_of!(Frame, rbx), core_layout::START);

impl Frame {
    /// The first frame of a greenlet that begins with `start(argument, …)`.
    ///
    /// MXCSR and the x87 control word begin as in a new process (psABI 3.4.1, "Special
    /// Registers"): all exceptions masked, round to nearest.
    pub(crate) fn new(parent_link: *const (), start: Start, argument: *mut ()) -> Self {
        Self {
            rbp: parent_link.expose_provenance(),
            resume: core_layout::entry_pc as *const () as usize,
            mxcsr: 0x1f80,
            x87_control: 0x037f,
            unused: 0,
            r15: 0,
            r14: 0,
            r13: 0,
            r12: argument.expose_provenance(),
            rbx: start as usize,
        }
    }
}

/// Suspends the caller, stores its stack pointer in `save`, resumes the one whose stack pointer
/// is in `to` with `message`; returns when somebody resumes the caller, with what they sent.
///
/// Who left last, and its stack pointer, are noted in thread-local words (`last` in
/// `asm/x86_64.S`). The usual target is the one that left last, and its stack pointer is then
/// read from there. Otherwise the processor would have to wait for the address in `to`, which
/// may come off a stack that is not in the cache; so it goes ahead on a predicted branch, and
/// the misses of many greenlets overlap. Among 10,000 that is more than ten times faster.
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
            // Not through `thread_local!`: its address would be kept in a register that comes
            // off the cold stack.
            "mov r8, qword ptr [rip + {last}@GOTTPOFF]",
            "cmp rsi, fs:[r8]",
            "jne 3f",
            "mov rsi, fs:[r8 + 8]",
            "4:",
            "mov fs:[r8], rdi",
            "lea r9, [rsp - {frame_size}]", // what the core stores in `save`
            "mov fs:[r8 + 8], r9",
            "lea rax, [rip + 2f]",
            "jmp {switch}",
            "3:",
            "mov rsi, [rsi]",
            "jmp 4b",
            "2:",
            last = sym core_layout::last,
            frame_size = const core_layout::FRAME_SIZE,
            switch = sym core_layout::switch,
            inout("rdi") save => _,
            inout("rsi") to => _,
            inout("rdx") message.word => word,
            inout("rcx") message.kind => kind,
            out("rax") _,
            out("r8") _,
            out("r9") _,
            clobber_abi("sysv64"),
        );
    }
    Message { word, kind }
}

/// To be called when a context is made ready for its first switch.
pub(crate) fn prepare_to_switch() {
    forget_last();
    #[cfg(feature = "fp-control")]
    mxcsr::choose_way_once();
}

/// The one that left last may have lain where another lies now.
fn forget_last() {
    // SAFETY: writes a word that only `switch` and this use.
    unsafe {
        asm!(
            "mov {slot}, qword ptr [rip + {last}@GOTTPOFF]",
            "mov qword ptr fs:[{slot}], 0",
            slot = out(reg) _,
            last = sym core_layout::last,
            options(nostack, preserves_flags),
        );
    }
}

/// Which way the core takes to give each greenlet its MXCSR. (`asm/x86_64.S` has both.)
#[cfg(feature = "fp-control")]
mod mxcsr {
    use core::{
        arch::x86_64::__cpuid,
        sync::atomic::{AtomicU8, Ordering},
    };

    use super::core_layout;

    fn way() -> &'static AtomicU8 {
        // SAFETY: a byte of the core, which is there and zero when the program begins; the core
        // reads it with one load, Rust writes it here only.
        unsafe { &core_layout::mxcsr_way }
    }

    #[inline]
    pub(super) fn choose_way_once() {
        if way().load(Ordering::Relaxed) == 0 {
            choose_way();
        }
    }

    /// To compare means to read back what has just been stored. On Zen 5 `stmxcsr` begins when
    /// all before it is done, so the next one waits for that read; to load always takes a quarter
    /// off a round trip there, whether or not a sticky flag differs. On Intel it costs tens of
    /// nanoseconds if one does. (`benches/README.md`; no other processors were measured.)
    #[cold]
    fn choose_way() {
        let chosen = if is_zen_5() {
            core_layout::MXCSR_WAY_LOAD
        } else {
            core_layout::MXCSR_WAY_COMPARE
        };
        way().store(chosen as u8, Ordering::Relaxed);
    }

    #[allow(unused_unsafe, reason = "it is needed until Rust 1.93")]
    fn is_zen_5() -> bool {
        // SAFETY: every x86_64 processor has the instruction and these two leaves.
        let (vendor, version) = unsafe { (__cpuid(0), __cpuid(1).eax) };
        let vendor = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
        let (family, more) = (version >> 8 & 0xf, version >> 20 & 0xff);
        vendor.as_flattened() == b"AuthenticAMD" && family + more == 0x1a
    }
}
