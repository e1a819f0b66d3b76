//! 32-bit ARM in Thumb code, also Thumb-1 (Cortex-M): registers as in aapcs32.rs.

use core::{arch::global_asm, mem::offset_of};

use super::{Banks, Register};

#[path = "aapcs32.rs"]
mod aapcs32;

pub use aapcs32::REGISTERS;

global_asm!(
    ".syntax unified",
    ".thumb",
    // Named, because an optimized build first assembles this for the oldest processor.
    ".if {vfp}",
    "    .fpu fpv4-sp-d16",
    ".endif",
    // Loads or stores d8-d15, in the order of the table, at an address.
    ".macro greenlet_vfp op, base",
    ".if {vfp}",
    "    \\op d8, [\\base, #64]",
    "    \\op d9, [\\base, #72]",
    "    \\op d10, [\\base, #80]",
    "    \\op d11, [\\base, #88]",
    "    \\op d12, [\\base, #96]",
    "    \\op d13, [\\base, #104]",
    "    \\op d14, [\\base, #112]",
    "    \\op d15, [\\base, #120]",
    ".endif",
    ".endm",
    // Saves the caller's registers and the address of the banks (r0); fills from there. Thumb-1
    // reaches high registers through low ones only. Uses r3.
    ".macro greenlet_fill",
    "    push {{r4-r7, lr}}",
    "    mov r4, r8",
    "    mov r5, r9",
    "    mov r6, r10",
    "    mov r7, r11",
    "    push {{r0, r4-r7}}",
    ".if {vfp}",
    "    vpush {{d8-d15}}",
    ".endif",
    "    movs r3, #{set}",
    "    add r3, r0",
    "    ldr r4, [r3, #32]",
    "    ldr r5, [r3, #40]",
    "    ldr r6, [r3, #48]",
    "    ldr r7, [r3, #56]",
    "    mov r8, r4",
    "    mov r9, r5",
    "    mov r10, r6",
    "    mov r11, r7",
    "    ldr r4, [r3]",
    "    ldr r5, [r3, #8]",
    "    ldr r6, [r3, #16]",
    "    ldr r7, [r3, #24]",
    "    greenlet_vfp vldr, r3",
    ".endm",
    // Stores the registers in the banks, which it leaves in r0; restores the caller's but for r4-r7
    // and lr, which lie on the stack. Uses r1.
    ".macro greenlet_read",
    "    ldr r0, [sp, #64 * {vfp}]",
    "    movs r1, #{seen}",
    "    add r1, r0",
    "    str r4, [r1]",
    "    str r5, [r1, #8]",
    "    str r6, [r1, #16]",
    "    str r7, [r1, #24]",
    "    mov r4, r8",
    "    mov r5, r9",
    "    mov r6, r10",
    "    mov r7, r11",
    "    str r4, [r1, #32]",
    "    str r5, [r1, #40]",
    "    str r6, [r1, #48]",
    "    str r7, [r1, #56]",
    "    greenlet_vfp vstr, r1",
    ".if {vfp}",
    "    vpop {{d8-d15}}",
    ".endif",
    "    pop {{r0, r4-r7}}",
    "    mov r8, r4",
    "    mov r9, r5",
    "    mov r10, r6",
    "    mov r11, r7",
    ".endm",
    // filled_call(banks: r0, function: r1, argument: r2)
    ".section .text.greenlet_filled, \"ax\", %progbits",
    ".p2align 2",
    ".globl {filled_call}",
    ".type {filled_call}, %function",
    "{filled_call}:",
    "    greenlet_fill",
    "    mov r0, r2",
    "    blx r1",
    "    greenlet_read",
    "    pop {{r4-r7, pc}}",
    ".text",
    filled_call = sym super::filled_call,
    set = const offset_of!(Banks, set),
    seen = const offset_of!(Banks, seen),
    vfp = const aapcs32::HARD_FLOAT as usize,
);
