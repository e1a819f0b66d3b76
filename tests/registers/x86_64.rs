//! x86_64, System V ABI (psABI 3.2.1): six general registers, the control bits of MXCSR, the x87 control
//! word. rsp is not in the table: if it were lost, the switch would not return.

use core::{arch::global_asm, mem::offset_of};

use super::{Banks, Register};

/// All bits if the control words are each greenlet's own; they are the thread's without the
/// feature.
const FP_CONTROL: u64 = if cfg!(feature = "fp-control") { !0 } else { 0 };

/// Tested in MXCSR: flush-to-zero, rounding, denormals-are-zero; all exceptions stay masked.
/// In the x87 control word: rounding, and single or double precision.
pub const REGISTERS: [Register; 8] = [
    ("rbx", !0, 0),
    ("rbp", !0, 0),
    ("r12", !0, 0),
    ("r13", !0, 0),
    ("r14", !0, 0),
    ("r15", !0, 0),
    ("MXCSR", FP_CONTROL & 0xe040, 0x1f80),
    ("x87 control word", FP_CONTROL & 0x0e00, 0x007f),
];

global_asm!(
    // Saves the caller's registers and the address of the banks (rdi); fills from there.
    ".macro greenlet_fill",
    "    push rbx",
    "    push rbp",
    "    push r12",
    "    push r13",
    "    push r14",
    "    push r15",
    "    push rdi",
    "    sub rsp, 16", // leaves rsp a multiple of 16
    "    stmxcsr [rsp]",
    "    fnstcw [rsp + 4]",
    "    mov rbx, [rdi + {set}]",
    "    mov rbp, [rdi + {set} + 8]",
    "    mov r12, [rdi + {set} + 16]",
    "    mov r13, [rdi + {set} + 24]",
    "    mov r14, [rdi + {set} + 32]",
    "    mov r15, [rdi + {set} + 40]",
    "    ldmxcsr [rdi + {set} + 48]",
    "    fldcw [rdi + {set} + 56]",
    ".endm",
    // Stores the registers in the banks, which it leaves in rdi; restores the caller's.
    ".macro greenlet_read",
    "    mov rdi, [rsp + 16]",
    "    mov [rdi + {seen}], rbx",
    "    mov [rdi + {seen} + 8], rbp",
    "    mov [rdi + {seen} + 16], r12",
    "    mov [rdi + {seen} + 24], r13",
    "    mov [rdi + {seen} + 32], r14",
    "    mov [rdi + {seen} + 40], r15",
    "    stmxcsr [rdi + {seen} + 48]",
    "    fnstcw [rdi + {seen} + 56]",
    "    ldmxcsr [rsp]",
    "    fldcw [rsp + 4]",
    "    add rsp, 24",
    "    pop r15",
    "    pop r14",
    "    pop r13",
    "    pop r12",
    "    pop rbp",
    "    pop rbx",
    ".endm",
    // filled_call(banks: rdi, function: rsi, argument: rdx)
    ".globl {filled_call}",
    "{filled_call}:",
    "    greenlet_fill",
    "    mov rdi, rdx",
    "    call rsi",
    "    greenlet_read",
    "    ret",
    filled_call = sym super::filled_call,
    set = const offset_of!(Banks, set),
    seen = const offset_of!(Banks, seen),
);
