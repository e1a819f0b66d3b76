//! 32-bit ARM: registers as in aapcs32.rs.

use core::{arch::global_asm, mem::offset_of};

use super::{Banks, Register};

#[path = "aapcs32.rs"]
mod aapcs32;

pub use aapcs32::REGISTERS;

global_asm!(
    // ARM code, also in a Thumb program: resumed from Thumb code it must still be ARM code.
    // The architecture is named, because an optimized build first assembles this for the oldest
    // processor.
    ".arm",
    ".arch armv6",
    ".fpu vfpv2",
    // Stores or loads, in the order of the table, at an address.
    ".macro greenlet_all op, base",
    "    \\op r4, [\\base]",
    "    \\op r5, [\\base, #8]",
    "    \\op r6, [\\base, #16]",
    "    \\op r7, [\\base, #24]",
    "    \\op r8, [\\base, #32]",
    "    \\op r9, [\\base, #40]",
    "    \\op r10, [\\base, #48]",
    "    \\op r11, [\\base, #56]",
    ".if {vfp}",
    "    v\\op d8, [\\base, #64]",
    "    v\\op d9, [\\base, #72]",
    "    v\\op d10, [\\base, #80]",
    "    v\\op d11, [\\base, #88]",
    "    v\\op d12, [\\base, #96]",
    "    v\\op d13, [\\base, #104]",
    "    v\\op d14, [\\base, #112]",
    "    v\\op d15, [\\base, #120]",
    ".endif",
    ".endm",
    // Saves the caller's registers and the address of the banks (r0); fills from there.
    ".macro greenlet_fill",
    "    push {{r0, r4-r11, lr}}",
    ".if {vfp}",
    "    vpush {{d8-d15}}",
    ".endif",
    "    add r12, r0, #{set}",
    "    greenlet_all ldr, r12",
    ".endm",
    // Stores the registers in the banks, which it leaves in r0; restores the caller's.
    ".macro greenlet_read",
    "    ldr r0, [sp, #64 * {vfp}]",
    "    add r12, r0, #{seen}",
    "    greenlet_all str, r12",
    ".if {vfp}",
    "    vpop {{d8-d15}}",
    ".endif",
    "    pop {{r1, r4-r11, lr}}",
    ".endm",
    // filled_call(banks: r0, function: r1, argument: r2)
    ".globl {filled_call}",
    ".type {filled_call}, %function",
    "{filled_call}:",
    "    greenlet_fill",
    "    mov r0, r2",
    "    blx r1",
    "    greenlet_read",
    "    bx lr",
    filled_call = sym super::filled_call,
    set = const offset_of!(Banks, set),
    seen = const offset_of!(Banks, seen),
    vfp = const aapcs32::HARD_FLOAT as usize,
);
