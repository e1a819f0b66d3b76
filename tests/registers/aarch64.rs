//! aarch64, AAPCS64 (6.1.1, 6.1.2): x19-x29 and the low halves of v8-v15. sp is not in the table: if it were
//! lost, the switch would not return.

use core::{arch::global_asm, mem::offset_of};

use super::{Banks, Register};

pub const REGISTERS: [Register; 19] = [
    ("x19", !0, 0),
    ("x20", !0, 0),
    ("x21", !0, 0),
    ("x22", !0, 0),
    ("x23", !0, 0),
    ("x24", !0, 0),
    ("x25", !0, 0),
    ("x26", !0, 0),
    ("x27", !0, 0),
    ("x28", !0, 0),
    ("x29", !0, 0),
    ("d8", !0, 0),
    ("d9", !0, 0),
    ("d10", !0, 0),
    ("d11", !0, 0),
    ("d12", !0, 0),
    ("d13", !0, 0),
    ("d14", !0, 0),
    ("d15", !0, 0),
];

global_asm!(
    // Stores or loads, in the order of the table, at an address.
    ".macro greenlet_all st, stp, base",
    "    \\stp x19, x20, [\\base]",
    "    \\stp x21, x22, [\\base, #16]",
    "    \\stp x23, x24, [\\base, #32]",
    "    \\stp x25, x26, [\\base, #48]",
    "    \\stp x27, x28, [\\base, #64]",
    "    \\st  x29,      [\\base, #80]",
    "    \\stp d8, d9,   [\\base, #88]",
    "    \\stp d10, d11, [\\base, #104]",
    "    \\stp d12, d13, [\\base, #120]",
    "    \\stp d14, d15, [\\base, #136]",
    ".endm",
    // Saves the caller's registers, x30, and the address of the banks (x0); fills from there.
    ".macro greenlet_fill",
    "    sub sp, sp, #176",
    "    greenlet_all str, stp, sp",
    "    stp x30, x0, [sp, #160]",
    "    add x9, x0, #{set}",
    "    greenlet_all ldr, ldp, x9",
    ".endm",
    // Stores the registers in the banks, which it leaves in x0; restores the caller's.
    ".macro greenlet_read",
    "    ldp x30, x0, [sp, #160]",
    "    add x9, x0, #{seen}",
    "    greenlet_all str, stp, x9",
    "    greenlet_all ldr, ldp, sp",
    "    add sp, sp, #176",
    ".endm",
    // filled_call(banks: x0, function: x1, argument: x2)
    ".globl {filled_call}",
    "{filled_call}:",
    "    greenlet_fill",
    "    mov x0, x2",
    "    blr x1",
    "    greenlet_read",
    "    ret",
    filled_call = sym super::filled_call,
    set = const offset_of!(Banks, set),
    seen = const offset_of!(Banks, seen),
);
