// Switch core for aarch64, AAPCS64. See x86_64.S for what the cores have in common;
// the comments here say what differs.
//
// ABI: "Procedure Call Standard for the Arm 64-bit Architecture",
//      sections 6.1.1 "General-purpose Registers" (x19-x29, sp belong to the caller) and
//      6.1.2 "SIMD and Floating-Point Registers" (so do the low 64 bits of v8-v15).
//      FPCR is "a global register" there, which only "specific support functions that affect
//      the global state of the application" modify: a callee does not restore it, and neither
//      does this core. FPSR is status only. x18 is the platform's and is never touched.
//
// Return addresses are not signed here: pointer authentication keys may differ between
// threads, and unwinders read the context's resume address as it is.
//
// Assumes nothing but that ABI. Four parts of this file must agree: the register table, CONTEXT_*,
// the stores and loads, and the CFI of `entry`. src/arch/mod.rs is checked against
// CONTEXT_* when it compiles.
//
// Registers of a suspended greenlet. They lie in its context, not on its stack:
//
//   offset  size  holds
//        0     8  x29      } together a frame record, as the frame-pointer
//        8     8  resume   } chain expects it: {previous x29, return address}
//       16     8  sp
//       24     8  x19
//       32        size
//
// Registers of the caller that are left to the compiler: x20-x28, x30, v8-v15. The `asm!` that has
// SWITCH in it declares them clobbered, so a caller of the switch saves those that hold a
// live value. x29 and x19 cannot be left to it: it may need them to find its own frame.
// (AAPCS64 6.1.1, 6.1.2: a subroutine preserves them. That subroutine is the compiler's.)

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

// Branch target identification, asked for by -mbranch-protection: where a resume address leads
// is a landing pad then.
#if defined(__ARM_FEATURE_BTI_DEFAULT)
#define LANDING_PAD hint #36            // bti j
#else
#define LANDING_PAD
#endif

// ---------------------------------------------------------------------------------------
// SWITCH: suspend the caller, resume another. Compiled in line, by src/arch/aarch64.rs.
//
// On entry
//   x0       the caller's context
//   x1       the context to resume, whose registers an earlier SWITCH stored or Rust prepared
//   x2 x3    the message: word and kind
// When the caller is resumed, after the text
//   x2 x3    the message, as the other side gave it
//   x29 x19 sp   as on entry
//   all others are undefined; the `asm!` declares them clobbered.
//
// The unwind table of the function around the text is wrong between the load of x29 and the
// jump (3 instructions).

    .macro SAVE
    mov x10, sp
    stp x29, x9, [x0, #CONTEXT_X29]     // x9 has the resume address
    stp x10, x19, [x0, #CONTEXT_SP]
    .endm

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
// What follows is assembled on its own.

    // The unwind rules where x1 has the context to resume: the caller is the frame in which that
    // one waits.
    //   CFA  DW_CFA_def_cfa_expression (0x0f), 3 bytes:
    //          0x71 0x10   DW_OP_breg1 (x1) + CONTEXT_SP
    //          0x06        DW_OP_deref
    //   DW_CFA_expression (0x10), 2 bytes each, for where a register lies:
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
// entry: the bottom of every greenlet's stack. Resumed, never called: a new greenlet's context
// names `entry_pc` as its resume address.
//
// On entry, out of that context and from the switch
//   x19      argument
//   x29      address of the parent link: there lies the address of the parent's context
//   x2 x3    the first message: word and kind
//   sp       a multiple of 16, and at it
//              0   start: extern "C" fn(argument, word, kind, *mut Departure)
// `start` returns when the greenlet is finished and has then filled in the Departure: which context
// is resumed, with what. Its stack is never used again.
//
// Unwinding: the caller of `entry` is the frame in which the parent waits.
//   CFA  DW_CFA_def_cfa_expression (0x0f), 6 bytes:
//          0x8d 0x00   DW_OP_breg29 (x29) + 0   the parent link's address
//          0x06        DW_OP_deref              the parent's context
//          0x23 0x10   DW_OP_plus_uconst 16     where its sp lies (CONTEXT_SP)
//          0x06        DW_OP_deref
//   DW_CFA_expression (0x10), 5 bytes each, for where a register lies:
//     x30  0x8d 0x00 0x06 0x23 0x08   the parent's context + CONTEXT_RESUME
//     x29  0x8d 0x00 0x06 0x23 0x00   the parent's context + CONTEXT_X29
//     x19  0x8d 0x00 0x06 0x23 0x18   the parent's context + CONTEXT_X19
//   x20-x28 and d8-d15 are undefined (DW_CFA_undefined): the parent's frame has saved its own.

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
    nop                                 // unwinders look up pc - 1: keep that in here
LABEL SYM(entry_pc)
    LANDING_PAD
    ldr x9, [sp]                        // start
    sub sp, sp, #32                     // room for the Departure (24 bytes), rounded up to 16
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
// GNU_PROPERTY_AARCH64_FEATURE_1_AND (0xc0000000): BTI (bit 0) only. Not PAC (bit 1), see
// above; never GCS (bit 2): a switch does not move the guarded control stack.
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
