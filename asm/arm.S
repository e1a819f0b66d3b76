// Switch core for 32-bit ARM: ARM, Thumb-2 and Thumb-1 code, base standard and VFP. x86_64.S explains
// what the cores have in common; the comments here explain the differences.
//
// ABI: "Procedure Call Standard for the Arm Architecture" (AAPCS32), sections 6.1.1 "Core registers",
//      6.1.2.1 "VFP register usage conventions" and 6.2.1.2 "Stack constraints at a public interface".
//      Callee-saved are r4-r11, sp and, with VFP, d8-d15. sp is a multiple of 8. r9 may belong to the
//      platform, which then requires it to be preserved, too. The mode bits of FPSCR are global state:
//      all greenlets of a thread share them.
//      "Exception Handling ABI for the Arm Architecture" (EHABI), section 10.3 "Frame unwinding
//      instructions".
//
// Assumes: that ABI, and ARMv5T or later (blx) or a Thumb-only processor.
//
// Three instruction sets, one text: Thumb-1 (Cortex-M0, M23) can load and store only r0-r7, so the
// other registers are copied through r5 everywhere. For sp there is a second reason: an interrupted
// load to sp is repeated with a wrong address on Cortex-M3 and M4 (errata 752419, 752770).
//
// These must agree: the register table, CONTEXT_*, the stores of SAVE, the loads of LOAD, and the CFI
// and the EHABI table of `entry`. src/arch/mod.rs is checked against CONTEXT_* when it compiles.
//
// Registers of a suspended greenlet. They lie at the beginning of its context, not on its stack:
//
//   offset  size  holds
//        0     4  r11      } a frame record (AAPCS32, 6.2.1.4 "The Frame Pointer")
//        4     4  resume   } bit 0 of resume is set in Thumb code
//        8     4  sp
//       12     4  r6
//       16     4  r7
//       20     4  r9
//       24        end (CONTEXT_SIZE); the parent link follows (src/raw.rs)
//
// Registers of the caller that are left to the compiler: r4, r5, r8, r10, lr, d8-d15. The `asm!` that
// includes SWITCH declares them clobbered, so the function around it saves those that hold a live
// value (AAPCS32 6.1.1, 6.1.2.1: a subroutine preserves them). d8-d15 are declared for every ABI: code
// for the base standard may use them on a processor that has them. r11 and r7, the frame pointers of
// ARM and Thumb code, and r6 cannot be declared clobbered, because the compiler may need them to
// address the frame; nor can r9 where it belongs to the platform.

#include "macros.h"

#if defined(__thumb__) && !defined(__thumb2__)
#define THUMB1
#if defined(__unix__) || defined(__ARM_FP)
#error "the switch core in Thumb-1 code is for boards without VFP registers"
#endif
#endif

#define CONTEXT_R11    0
#define CONTEXT_RESUME 4
#define CONTEXT_SP     8
#define CONTEXT_R6     12
#define CONTEXT_R7     16
#define CONTEXT_R9     20
#define CONTEXT_SIZE   24

LAYOUT(frame_pointer, CONTEXT_R11)
LAYOUT(resume, CONTEXT_RESUME)
LAYOUT(stack_pointer, CONTEXT_SP)
LAYOUT(argument, CONTEXT_R6)
LAYOUT(size, CONTEXT_SIZE)

// An EHABI table names a personality routine, which the system's unwinder provides.
#ifdef __unix__
#define EHABI(...) __VA_ARGS__
#else
#define EHABI(...)
#endif

    .syntax unified
#ifdef __thumb__
    .thumb
#else
    .arm
#endif
    // Debuggers read CFI. The program's own unwinder reads EHABI tables.
    .cfi_sections .debug_frame

// ---------------------------------------------------------------------------------------
// SWITCH: suspends the caller and resumes another context. It is inlined by src/arch/arm.rs.
//
// On entry
//   r0       the caller's context
//   r1       the context to resume; an earlier SWITCH stored its registers, or Rust prepared them
//   r2 r3    the message: word and kind
// Behind the text, when the caller is resumed
//   r2 r3    the message of the context that resumed it
//   r6 r7 r9 r11 sp   as on entry
//   all others are undefined; the `asm!` declares them clobbered
//
// Return-address prediction: the last jump is a bx, because the instruction sets of the two contexts may
// differ. It goes through r4, because bx lr is predicted as a return.
//
// Signals: between the load of r11 and the jump (9 instructions) the unwind table of the surrounding
// function is wrong.

    // r4 = the resume address, with bit 0 set in Thumb code. The preprocessor does not know for which
    // instruction set rustc compiles. So the assembler measures the nop between 3 and 4 in SWITCH: it
    // has 4 bytes in ARM code and 2 in Thumb code. adr of Thumb-1 code reaches only multiples of 4, so
    // SWITCH aligns 2.
    .macro RESUME_ADDRESS
#ifdef THUMB1
    adr r4, 2f
    adds r4, #1
#else
    adr r4, 2f + (4 - (4f - 3f)) / 2
#endif
    .endm

    // Stores the registers in the context in r0, with r4 as the resume address.
    .macro SAVE
    mov r5, r11
    str r5, [r0, #CONTEXT_R11]
    str r4, [r0, #CONTEXT_RESUME]
    mov r5, sp
    str r5, [r0, #CONTEXT_SP]
    str r6, [r0, #CONTEXT_R6]
    str r7, [r0, #CONTEXT_R7]
    mov r5, r9
    str r5, [r0, #CONTEXT_R9]
    .endm

    // Loads the registers of the context in r1 and jumps to its resume address.
    .macro LOAD
    ldr r4, [r1, #CONTEXT_RESUME]
    ldr r5, [r1, #CONTEXT_R11]
    mov r11, r5
    ldr r5, [r1, #CONTEXT_R9]
    mov r9, r5
    ldr r6, [r1, #CONTEXT_R6]
    ldr r7, [r1, #CONTEXT_R7]
    ldr r5, [r1, #CONTEXT_SP]
    mov sp, r5
    bx r4
    .endm

    .macro SWITCH
    RESUME_ADDRESS
    SAVE
    LOAD
3:
    nop                                 // measured by RESUME_ADDRESS, never executed
4:
    .p2align 2
2:
    .endm

// ---------------------------------------------------------------------------------------
// The rest of this file is not inlined. `cc` assembles it.
//
// The unwind rules are DWARF expressions, as in x86_64.S. Registers have the numbers of "DWARF for the
// Arm Architecture" (AADWARF32), section "DWARF register names": r0-r15 are 0-15, so lr is 14.

    // Unwind rules while r1 holds the context to resume: the caller is the frame in which that
    // context is suspended.
    //   CFA: DW_CFA_def_cfa_expression (0x0f), 3 bytes:
    //          0x71 0x08   DW_OP_breg1 (r1) + CONTEXT_SP
    //          0x06        DW_OP_deref
    //   Where a register lies: DW_CFA_expression (0x10), its number, 2 bytes:
    //     lr (14)  0x71 0x04   DW_OP_breg1 (r1) + CONTEXT_RESUME
    //     r11      0x71 0x00   DW_OP_breg1 (r1) + CONTEXT_R11
    //     r6       0x71 0x0c   DW_OP_breg1 (r1) + CONTEXT_R6
    //     r7       0x71 0x10   DW_OP_breg1 (r1) + CONTEXT_R7
    //     r9       0x71 0x14   DW_OP_breg1 (r1) + CONTEXT_R9
    .macro CALLER_IS_RESUMED
    .cfi_escape 0x0f, 0x03, 0x71, CONTEXT_SP, 0x06
    .cfi_escape 0x10, 14, 0x02, 0x71, CONTEXT_RESUME
    .cfi_escape 0x10, 11, 0x02, 0x71, CONTEXT_R11
    .cfi_escape 0x10, 6, 0x02, 0x71, CONTEXT_R6
    .cfi_escape 0x10, 7, 0x02, 0x71, CONTEXT_R7
    .cfi_escape 0x10, 9, 0x02, 0x71, CONTEXT_R9
    .endm

// ---------------------------------------------------------------------------------------
// entry: the routine at the bottom of every greenlet's stack. It calls `start`, and resumes the
// context that `start` chooses. Nothing calls `entry`: the resume address of a new context is
// `entry_pc`.
//
// On entry
//   from the new context
//     r6     argument
//     r11    address of the parent link, which points to the parent's context
//     sp     a multiple of 8; at it: start
//   from the switch
//     r2 r3  the first message: word and kind
//
// start: extern "C" fn(argument, word, kind, *mut Departure). It returns when the greenlet has
// finished. The Departure (src/arch/mod.rs) then says which context is resumed with which message.
// The greenlet's stack is not used again.
//
// Stack while `start` runs, from its caller's sp up
//   offset  size
//        0     4  Departure.to
//        4     4  Departure.word
//        8     4  Departure.kind
//       12     4  unused
//       16     4  start; sp on entry points here
//
// Unwinding: the caller of `entry` is the frame in which the parent is suspended.
//   CFA: DW_CFA_def_cfa_expression (0x0f), 6 bytes:
//          0x7b 0x00   DW_OP_breg11 (r11) + 0   address of the parent link
//          0x06        DW_OP_deref              the parent's context
//          0x23 0x08   DW_OP_plus_uconst 8      address of its sp (CONTEXT_SP)
//          0x06        DW_OP_deref
//   Where a register lies: DW_CFA_expression (0x10), its number, 5 bytes:
//     lr (14)  0x7b 0x00 0x06 0x23 0x04   the parent's context + CONTEXT_RESUME
//     r11      0x7b 0x00 0x06 0x23 0x00   the parent's context + CONTEXT_R11
//     r6       0x7b 0x00 0x06 0x23 0x0c   the parent's context + CONTEXT_R6
//     r7       0x7b 0x00 0x06 0x23 0x10   the parent's context + CONTEXT_R7
//     r9       0x7b 0x00 0x06 0x23 0x14   the parent's context + CONTEXT_R9
//   r4, r5, r8, r10, d8-d15: DW_CFA_undefined. The parent's frame has saved those that it needs.
// The EHABI instructions give the same frame. EHABI has one description for a whole function: this one
// holds until `start` has returned and LOAD has changed r11.
//     0x9b        vsp = r11               address of the parent link
//     0x82 0x00   pop {sp}                vsp = the parent's context
//     0x84 0x80   pop {r11, lr}           CONTEXT_R11, CONTEXT_RESUME
//     0x00        vsp += 4                skips CONTEXT_SP
//     0x80 0x2c   pop {r6, r7, r9}        CONTEXT_R6, CONTEXT_R7, CONTEXT_R9
//     0x43        vsp -= 16               back to CONTEXT_SP
//     0x82 0x00   pop {sp}                vsp = the parent's sp

FUNCTION SYM(entry), 4
    .cfi_startproc simple
    SIGNAL_FRAME
    .cfi_escape 0x0f, 0x06, 0x7b, 0x00, 0x06, 0x23, CONTEXT_SP, 0x06
    .cfi_escape 0x10, 14, 0x05, 0x7b, 0x00, 0x06, 0x23, CONTEXT_RESUME
    .cfi_escape 0x10, 11, 0x05, 0x7b, 0x00, 0x06, 0x23, CONTEXT_R11
    .cfi_escape 0x10, 6, 0x05, 0x7b, 0x00, 0x06, 0x23, CONTEXT_R6
    .cfi_escape 0x10, 7, 0x05, 0x7b, 0x00, 0x06, 0x23, CONTEXT_R7
    .cfi_escape 0x10, 9, 0x05, 0x7b, 0x00, 0x06, 0x23, CONTEXT_R9
    .cfi_undefined r4
    .cfi_undefined r5
    .cfi_undefined r8
    .cfi_undefined r10
#ifdef __ARM_FP
    .cfi_undefined d8
    .cfi_undefined d9
    .cfi_undefined d10
    .cfi_undefined d11
    .cfi_undefined d12
    .cfi_undefined d13
    .cfi_undefined d14
    .cfi_undefined d15
#endif
    EHABI(.fnstart)
    EHABI(.unwind_raw 0, 0x9b, 0x82, 0x00, 0x84, 0x80, 0x00, 0x80, 0x2c, 0x43, 0x82, 0x00)
    nop                                 // unwinders look up pc - 2, which must be in this table
    .type SYM(entry_pc), %function      // sets bit 0 of its address in Thumb code
LABEL SYM(entry_pc)
    ldr r4, [sp]                        // start
    sub sp, sp, #16                     // room for the Departure
    mov r0, r6                          // argument
    mov r1, r2                          // word
    mov r2, r3                          // kind
    mov r3, sp                          // departure
    blx r4
    ldr r1, [sp]                        // Departure.to
    CALLER_IS_RESUMED
    ldr r2, [sp, #4]                    // Departure.word
    ldr r3, [sp, #8]                    // Departure.kind
    LOAD
    EHABI(.fnend)
    .cfi_endproc
END_FUNCTION SYM(entry)

NO_EXECUTABLE_STACK
