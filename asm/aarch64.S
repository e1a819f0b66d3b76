// Switch core for aarch64, AAPCS64. x86_64.S explains what the cores have in common; the comments
// here explain the differences.
//
// ABI: "Procedure Call Standard for the Arm 64-bit Architecture" (AAPCS64), sections 6.1.1
//      "General-purpose Registers" and 6.1.2 "SIMD and Floating-Point Registers". Callee-saved are
//      x19-x29, sp, and the low 64 bits of v8-v15. FPCR is global state, which only functions that
//      exist to change it modify: callees do not restore it, and neither does this core. FPSR holds
//      status only. x18 may belong to the platform; the core does not access it.
//
// Assumes: nothing but that ABI.
//
// Pointer authentication: resume addresses are not signed. Keys may differ between threads, and
// unwinders read the resume address from the context as it is.
//
// These must agree: the register table, CONTEXT_*, the stores of SAVE, the loads of LOAD, and the
// CFI of `entry`. src/arch/mod.rs is checked against CONTEXT_* when it compiles.
//
// Registers of a suspended greenlet. They lie at the beginning of its context, not on its stack:
//
//   offset  size  holds
//        0     8  x29      } a frame record, as frame-pointer unwinders
//        8     8  resume   } expect it: {previous x29, return address}
//       16     8  sp
//       24     8  x19
//       32        end (CONTEXT_SIZE); the parent link follows (src/raw.rs)
//
// Registers of the caller that are left to the compiler: x20-x28, x30, v8-v15. The `asm!` that
// includes SWITCH declares them clobbered, so the function around it saves those that hold a live
// value (AAPCS64 6.1.1, 6.1.2: a subroutine preserves them). x29 and x19 cannot be declared
// clobbered, because the compiler may need them to address the frame.

#include "macros.h"

#define CONTEXT_X29    0
#define CONTEXT_RESUME 8
#define CONTEXT_SP     16
#define CONTEXT_X19    24
#define CONTEXT_SIZE   32

LAYOUT(frame_pointer, CONTEXT_X29)
LAYOUT(resume, CONTEXT_RESUME)
LAYOUT(stack_pointer, CONTEXT_SP)
LAYOUT(argument, CONTEXT_X19)
LAYOUT(size, CONTEXT_SIZE)

// With branch target identification (-mbranch-protection), the instruction at a resume address must
// be a landing pad.
#if defined(__ARM_FEATURE_BTI_DEFAULT)
#define LANDING_PAD hint #36            // bti j
#else
#define LANDING_PAD
#endif

// ---------------------------------------------------------------------------------------
// SWITCH: suspends the caller and resumes another context. It is inlined by src/arch/aarch64.rs.
//
// On entry
//   x0       the caller's context
//   x1       the context to resume; an earlier SWITCH stored its registers, or Rust prepared them
//   x2 x3    the message: word and kind
// Behind the text, when the caller is resumed
//   x2 x3    the message of the context that resumed it
//   x29 x19 sp   as on entry
//   all others are undefined; the `asm!` declares them clobbered
//
// Signals: between the load of x29 and the jump (3 instructions) the unwind table of the surrounding
// function is wrong.

    // Stores the registers in the context in x0, with x9 as the resume address.
    .macro SAVE
    mov x10, sp
    stp x29, x9, [x0, #CONTEXT_X29]
    stp x10, x19, [x0, #CONTEXT_SP]
    .endm

    // Loads the registers of the context in x1 and jumps to its resume address.
    .macro LOAD
    ldp x10, x19, [x1, #CONTEXT_SP]
    ldp x29, x9, [x1, #CONTEXT_X29]
    mov sp, x10
    br x9
    .endm

    .macro SWITCH
    adr x9, 2f
    SAVE
    LOAD
2:
    LANDING_PAD
    .endm

// ---------------------------------------------------------------------------------------
// The rest of this file is not inlined. `cc` assembles it.
//
// The unwind rules are DWARF expressions, as in x86_64.S. Registers have the numbers of "DWARF for the
// Arm 64-bit Architecture" (AADWARF64), section "DWARF register names": x0-x30 are 0-30.

    // Unwind rules while x1 holds the context to resume: the caller is the frame in which that
    // context is suspended.
    //   CFA: DW_CFA_def_cfa_expression (0x0f), 3 bytes:
    //          0x71 0x10   DW_OP_breg1 (x1) + CONTEXT_SP
    //          0x06        DW_OP_deref
    //   Where a register lies: DW_CFA_expression (0x10), its number, 2 bytes:
    //     x30  0x71 0x08   DW_OP_breg1 (x1) + CONTEXT_RESUME
    //     x29  0x71 0x00   DW_OP_breg1 (x1) + CONTEXT_X29
    //     x19  0x71 0x18   DW_OP_breg1 (x1) + CONTEXT_X19
    .macro CALLER_IS_RESUMED
    .cfi_escape 0x0f, 0x03, 0x71, CONTEXT_SP, 0x06
    .cfi_escape 0x10, 30, 0x02, 0x71, CONTEXT_RESUME
    .cfi_escape 0x10, 29, 0x02, 0x71, CONTEXT_X29
    .cfi_escape 0x10, 19, 0x02, 0x71, CONTEXT_X19
    .endm

// ---------------------------------------------------------------------------------------
// entry: the routine at the bottom of every greenlet's stack. It calls `start`, and resumes the
// context that `start` chooses. Nothing calls `entry`: the resume address of a new context is
// `entry_pc`.
//
// On entry
//   from the new context
//     x19    argument
//     x29    address of the parent link, which points to the parent's context
//     sp     a multiple of 16; at it: start
//   from the switch
//     x2 x3  the first message: word and kind
//
// start: extern "C" fn(argument, word, kind, *mut Departure). It returns when the greenlet has
// finished. The Departure (src/arch/mod.rs) then says which context is resumed with which message.
// The greenlet's stack is not used again.
//
// Stack while `start` runs, from its caller's sp up
//   offset  size
//        0     8  Departure.to
//        8     8  Departure.word
//       16     8  Departure.kind
//       24     8  unused
//       32     8  start; sp on entry points here
//
// Unwinding: the caller of `entry` is the frame in which the parent is suspended.
//   CFA: DW_CFA_def_cfa_expression (0x0f), 6 bytes:
//          0x8d 0x00   DW_OP_breg29 (x29) + 0   address of the parent link
//          0x06        DW_OP_deref              the parent's context
//          0x23 0x10   DW_OP_plus_uconst 16     address of its sp (CONTEXT_SP)
//          0x06        DW_OP_deref
//   Where a register lies: DW_CFA_expression (0x10), its number, 5 bytes:
//     x30  0x8d 0x00 0x06 0x23 0x08   the parent's context + CONTEXT_RESUME
//     x29  0x8d 0x00 0x06 0x23 0x00   the parent's context + CONTEXT_X29
//     x19  0x8d 0x00 0x06 0x23 0x18   the parent's context + CONTEXT_X19
//   x20-x28, d8-d15: DW_CFA_undefined. The parent's frame has saved those that it needs.

FUNCTION SYM(entry), 4
    .cfi_startproc simple
    SIGNAL_FRAME
    .cfi_escape 0x0f, 0x06, 0x8d, 0x00, 0x06, 0x23, CONTEXT_SP, 0x06
    .cfi_escape 0x10, 30, 0x05, 0x8d, 0x00, 0x06, 0x23, CONTEXT_RESUME
    .cfi_escape 0x10, 29, 0x05, 0x8d, 0x00, 0x06, 0x23, CONTEXT_X29
    .cfi_escape 0x10, 19, 0x05, 0x8d, 0x00, 0x06, 0x23, CONTEXT_X19
    .cfi_undefined x20
    .cfi_undefined x21
    .cfi_undefined x22
    .cfi_undefined x23
    .cfi_undefined x24
    .cfi_undefined x25
    .cfi_undefined x26
    .cfi_undefined x27
    .cfi_undefined x28
    .cfi_undefined d8
    .cfi_undefined d9
    .cfi_undefined d10
    .cfi_undefined d11
    .cfi_undefined d12
    .cfi_undefined d13
    .cfi_undefined d14
    .cfi_undefined d15
    nop                                 // unwinders look up pc - 1, which must be in this table
LABEL SYM(entry_pc)
    LANDING_PAD
    ldr x9, [sp]                        // start
    sub sp, sp, #32                     // room for the Departure
    mov x0, x19                         // argument
    mov x1, x2                          // word
    mov x2, x3                          // kind
    mov x3, sp                          // departure
    blr x9
    ldr x1, [sp]                        // Departure.to
    CALLER_IS_RESUMED
    ldp x2, x3, [sp, #8]                // Departure.word, Departure.kind
    LOAD
    .cfi_endproc
END_FUNCTION SYM(entry)

#if defined(__ARM_FEATURE_BTI_DEFAULT)
// The property note that -mbranch-protection asks for ("System V Application Binary Interface for the
// Arm 64-bit Architecture", section "Program Property"). Of GNU_PROPERTY_AARCH64_FEATURE_1_AND
// (0xc0000000) it claims BTI (bit 0). It does not claim PAC (bit 1), because resume addresses are not
// signed; nor GCS (bit 2), because a switch does not change the guarded control stack.
    .section .note.gnu.property, "a", %note
    .p2align 3
    .long 4                             // size of the name
    .long 16                            // size of the descriptor
    .long 5                             // NT_GNU_PROPERTY_TYPE_0
    .asciz "GNU"
    .long 0xc0000000
    .long 4                             // size of the property
    .long 1                             // BTI
    .long 0                             // padding to 8
#endif

NO_EXECUTABLE_STACK
