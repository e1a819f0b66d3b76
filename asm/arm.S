// Switch core for 32-bit ARM, in ARM, Thumb-2 or Thumb-1 code, for the base standard and for VFP. See
// x86_64.S for what the cores have in common; the comments here say what differs.
//
// ABI: "Procedure Call Standard for the Arm Architecture" (AAPCS32), sections 6.1.1 "Core
//      registers", 6.1.2.1 "VFP register usage conventions" and 6.2.1.2 "Stack constraints at a
//      public interface": r4-r11, sp, and d8-d15 where there are VFP registers, belong to the
//      caller; sp is a multiple of 8. r9 may belong to the platform, which then wants it kept,
//      too. The mode bits of FPSCR are global state: all greenlets of a thread share them.
//      "Exception Handling ABI for the Arm Architecture" (EHABI), section 10.3 "Frame unwinding
//      instructions".
//
// Assumes ARMv5T or newer (blx), or a Thumb-only processor. Five parts of this file must agree:
// the register table, CONTEXT_*, the stores and loads, and the CFI and the EHABI table of `entry`.
// src/arch/mod.rs is checked against CONTEXT_* when it compiles.
//
// One text for the three instruction sets: Thumb-1 (Cortex-M0, M23) loads and stores r0-r7 only, so
// the other registers pass through r4 and r5 everywhere. So does sp, for another reason as well: a
// load to sp that is interrupted is repeated with a wrong address on Cortex-M3 and M4 (errata
// 752419, 752770).
//
// Registers of a suspended greenlet. They lie in its context, not on its stack:
//
//   offset  size  holds
//        0     4  r11      } together a frame record
//        4     4  resume   } (AAPCS32, 6.2.1.4 "The Frame Pointer"); in Thumb code resume is odd
//        8     4  sp
//       12     4  r6
//       16     4  r7
//       20     4  r9
//       24        size
//
// Registers of the caller that are left to the compiler: r4, r5, r8, r10, lr, d8-d15. The `asm!`
// that has SWITCH in it declares them clobbered, so a caller of the switch saves those in which it
// has something. r11 or r7, the frame pointers of ARM and Thumb code, and r6 cannot be left to it: it
// may need them to find its own frame; nor r9 where that is the platform's. d8-d15 are declared
// also for ABIs without them: code for such an ABI on a processor that has them may use them.
// (AAPCS32 6.1.1, 6.1.2.1: a subroutine preserves them. That subroutine is the compiler's.)

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

// EHABI tables name a personality routine, which comes with a system's unwinder.
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
    // EHABI tables are for the program itself; CFI is for debuggers here.
    .cfi_sections .debug_frame

// ---------------------------------------------------------------------------------------
// SWITCH: suspend the caller, resume another. Compiled in line, by src/arch/arm.rs.
//
// On entry
//   r0       the caller's context
//   r1       the context to resume, whose registers an earlier SWITCH stored or Rust prepared
//   r2 r3    the message: word and kind
// When the caller is resumed, after the text
//   r2 r3    the message, as the other side gave it
//   r6 r7 r9 r11 sp   as on entry
//   all others are undefined; the `asm!` declares them clobbered.
//
// bx, because the two sides may differ in their instruction set; through r4, because bx lr is
// predicted as a return.
//
// The unwind table of the function around the text is wrong between the load of r11 and the
// jump (9 instructions).

    // r4 = where the caller goes on, with the Thumb bit. No macro of the compiler's tells which
    // instruction set Rust code becomes, but the assembler knows: a nop has 4 bytes in ARM code and 2
    // in Thumb code. In Thumb code adr counts from a multiple of 4: so 2 is at one, in SWITCH.
    .macro RESUME_ADDRESS
#ifdef THUMB1
    adr r4, 2f
    adds r4, #1
#else
    adr r4, 2f + (4 - (4f - 3f)) / 2
#endif
    .endm

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
    nop                                 // to be measured, never run
4:
    .p2align 2
2:
    .endm

// ---------------------------------------------------------------------------------------
// What follows is assembled on its own.

    // The unwind rules where r1 has the context to resume: the caller is the frame in which that
    // one waits.
    //   CFA  DW_CFA_def_cfa_expression (0x0f), 3 bytes:
    //          0x71 0x08   DW_OP_breg1 (r1) + CONTEXT_SP
    //          0x06        DW_OP_deref
    //   DW_CFA_expression (0x10), 2 bytes each, for where a register lies:
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
// entry: the bottom of every greenlet's stack. Resumed, never called: a new greenlet's context
// names `entry_pc` as its resume address.
//
// On entry, out of that context and from the switch
//   r6       argument
//   r11      address of the parent link: there lies the address of the parent's context
//   r2 r3    the first message: word and kind
//   sp       a multiple of 8, and at it
//              0   start: extern "C" fn(argument, word, kind, *mut Departure)
// `start` returns when the greenlet is finished and has then filled in the Departure: which context
// is resumed, with what. Its stack is never used again.
//
// Unwinding: the caller of `entry` is the frame in which the parent waits. For debuggers,
//   CFA  DW_CFA_def_cfa_expression (0x0f), 6 bytes:
//          0x7b 0x00   DW_OP_breg11 (r11) + 0   the parent link's address
//          0x06        DW_OP_deref              the parent's context
//          0x23 0x08   DW_OP_plus_uconst 8      where its sp lies (CONTEXT_SP)
//          0x06        DW_OP_deref
//   DW_CFA_expression (0x10), 5 bytes each, for where a register lies:
//     lr (14)  0x7b 0x00 0x06 0x23 0x04   the parent's context + CONTEXT_RESUME
//     r11      0x7b 0x00 0x06 0x23 0x00   the parent's context + CONTEXT_R11
//     r6       0x7b 0x00 0x06 0x23 0x0c   the parent's context + CONTEXT_R6
//     r7       0x7b 0x00 0x06 0x23 0x10   the parent's context + CONTEXT_R7
//     r9       0x7b 0x00 0x06 0x23 0x14   the parent's context + CONTEXT_R9
//   r4, r5, r8, r10 and d8-d15 are undefined: the parent's frame has saved its own.
// For the program itself, EHABI instructions say the same:
//     0x9b        vsp = r11               the parent link's address
//     0x82 0x00   pop {sp}                the parent's context
//     0x84 0x80   pop {r11, lr}           lr: the resume address
//     0x00        vsp += 4                past sp
//     0x80 0x2c   pop {r6, r7, r9}
//     0x43        vsp -= 16               back to sp
//     0x82 0x00   pop {sp}
// EHABI has one description for all of a function: it holds until `start` has returned and r11 is
// loaded.

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
    nop                                 // unwinders look up pc - 2: keep that in here
    .type SYM(entry_pc), %function      // so that its address has the Thumb bit
LABEL SYM(entry_pc)
    ldr r4, [sp]                        // start
    sub sp, sp, #16                     // room for the Departure (12 bytes), rounded up to 8
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
