// Switch core for 32-bit ARM, in ARM, Thumb-2 or Thumb-1 code, for the base standard and for VFP.
//
// ABI: "Procedure Call Standard for the Arm Architecture" (AAPCS32), sections 6.1.1 "Core
//      registers", 6.1.2.1 "VFP register usage conventions" and 6.2.1.2 "Stack constraints at a
//      public interface": r4-r11, sp, and d8-d15 where there are VFP registers, belong to the
//      caller; sp is a multiple of 8. r9 may belong to the platform, which then wants it kept,
//      too. The mode bits of FPSCR are global state: all greenlets of a thread share them.
//      "Exception Handling ABI for the Arm Architecture" (EHABI), section 10.3 "Frame unwinding
//      instructions".
//
// Assumes ARMv5T or newer (blx), and that C and Rust code are compiled for the same floating
// point unit. Both may be of either instruction set. The rest of what asm/x86_64.S says at this
// place holds here with src/arch/arm.rs, and EHABI directives besides the CFI.
//
// Thumb-1 is all that ARMv6-M and ARMv8-M Baseline (Cortex-M0, M23) have. Each routine has a second
// body for it, with the same frame and contract: push, pop, loads and stores reach r0-r7 only, so
// the other registers pass through these.
//
// Frame of a suspended greenlet; its address is the saved stack pointer:
//
//   offset  size  holds
//        0     4  r11      } together a frame record
//        4     4  resume   } (AAPCS32, 6.2.1.4 "The Frame Pointer"); in Thumb code resume is odd
//        8     4  r4
//       12     4  r5
//       16     4  r6
//       20     4  r7
//       24     4  r8
//       28     4  r9
//       32     4  r10
//       36     4  (unused)
//       40    64  d8-d15, if there are VFP registers
//   104 or 40     stack pointer as it was, and will be, at the switch

#include "macros.h"

#if defined(__thumb__) && !defined(__thumb2__)
#define THUMB1
#if defined(__unix__) || defined(__ARM_FP)
#error "the switch core in Thumb-1 code is for boards without VFP registers"
#endif
#endif

#define FRAME_R11    0
#define FRAME_RESUME 4
#define FRAME_R4     8
#define FRAME_R5     12
#define FRAME_R6     16
#define FRAME_R7     20
#define FRAME_R8     24
#define FRAME_R9     28
#define FRAME_R10    32
#define FRAME_D8     40
// __ARM_FP says that there are registers, whichever registers hold arguments (softfp).
#ifdef __ARM_FP
#define FRAME_SIZE   104
#else
#define FRAME_SIZE   40
#endif

LAYOUT(frame_size, FRAME_SIZE)
LAYOUT(frame_pointer, FRAME_R11)
LAYOUT(resume, FRAME_RESUME)
LAYOUT(argument, FRAME_R4)
LAYOUT(start, FRAME_R5)
LAYOUT(vfp, FRAME_D8)
#ifdef THUMB1
LAYOUT(thumb_1, 1)
#else
LAYOUT(thumb_1, 0)
#endif

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
// switch: suspend the caller, resume another.
//
// Entered by a jump; on entry
//   lr       where the caller goes on when it is resumed, with the Thumb bit
//            (not r12: the linker may lengthen the jump here by code that uses r12)
//   r0       where to store the caller's stack pointer
//   r1       stack pointer of the greenlet to resume, as stored by an earlier switch or made
//            by Frame::new
//   r2 r3    the message: word and kind
//   sp       the caller's
// Left by a jump to the resumed greenlet's resume address; then
//   r2 r3    the message, as the other side gave it
//   r4-r11 sp, d8-d15   as when it left
//   all others are undefined.
//
// No bl, and neither pop {pc} nor bx lr, which are predicted as returns; bx, because the two
// sides may differ in their instruction set. Thumb-1 is entered by bl: other jumps reach 2 KiB, and
// what has nothing else predicts no returns.
//
// EHABI has one description for all of a function: here, of the stretch between the last push
// and the first pop. Nobody is ever suspended in here, so only a signal handler could ask.

FUNCTION SYM(switch), 4
    .cfi_startproc
#ifdef THUMB1
    sub sp, sp, #16                     // for r8-r10 and the unused word
    .cfi_adjust_cfa_offset 16
    push {r4-r7}
    .cfi_adjust_cfa_offset 16
    .cfi_rel_offset r4, 0
    .cfi_rel_offset r5, 4
    .cfi_rel_offset r6, 8
    .cfi_rel_offset r7, 12
    mov r4, r8
    mov r5, r9
    mov r6, r10
    add r7, sp, #16
    stmia r7!, {r4-r6}
    .cfi_rel_offset r8, 16
    .cfi_rel_offset r9, 20
    .cfi_rel_offset r10, 24
    mov r4, r11
    mov r5, lr
    push {r4, r5}
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r11, 0
    .cfi_rel_offset lr, 4
    mov r4, sp
    str r4, [r0]                        // from here on the caller can be resumed
    mov sp, r1                          // same frame layout: the CFI above still holds

    // The second half, as below.
    .type SYM(resume), %function        // so that the bl in `entry` stays in Thumb code
LABEL SYM(resume)
    pop {r4, r5}
    .cfi_adjust_cfa_offset -8
    .cfi_register r11, r4
    .cfi_register lr, r5
    mov r11, r4
    .cfi_restore r11
    mov r12, r5
    .cfi_register lr, r12
    add r7, sp, #16
    ldmia r7!, {r4-r6}
    mov r8, r4
    .cfi_restore r8
    mov r9, r5
    .cfi_restore r9
    mov r10, r6
    .cfi_restore r10
    pop {r4-r7}
    .cfi_adjust_cfa_offset -16
    .cfi_restore r4
    .cfi_restore r5
    .cfi_restore r6
    .cfi_restore r7
    add sp, sp, #16
    .cfi_adjust_cfa_offset -16
    bx r12
#else
    EHABI(.fnstart)
#ifdef __ARM_FP
    EHABI(.vsave {d8-d15})
    vpush {d8-d15}
    .cfi_adjust_cfa_offset 64
    .cfi_rel_offset d8, 0
    .cfi_rel_offset d9, 8
    .cfi_rel_offset d10, 16
    .cfi_rel_offset d11, 24
    .cfi_rel_offset d12, 32
    .cfi_rel_offset d13, 40
    .cfi_rel_offset d14, 48
    .cfi_rel_offset d15, 56
#endif
    EHABI(.pad #4)
    EHABI(.save {r4-r10})
    push {r4-r10, lr}                   // lr: eight words keep sp a multiple of 8
    .cfi_adjust_cfa_offset 32
    .cfi_rel_offset r4, 0
    .cfi_rel_offset r5, 4
    .cfi_rel_offset r6, 8
    .cfi_rel_offset r7, 12
    .cfi_rel_offset r8, 16
    .cfi_rel_offset r9, 20
    .cfi_rel_offset r10, 24
    EHABI(.save {r11, lr})
    push {r11, lr}
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r11, 0
    .cfi_rel_offset lr, 4
    str sp, [r0]                        // from here on the caller can be resumed
    mov sp, r1                          // same frame layout: the CFI above still holds

    // The second half, also reached from the end of `entry`:
    //   sp   the frame to resume         r2 r3  the message
    .type SYM(resume), %function        // a jump there may have to be lengthened, as above
LABEL SYM(resume)
    pop {r11, r12}
    .cfi_adjust_cfa_offset -8
    .cfi_restore r11
    .cfi_register lr, r12
    pop {r4-r10, lr}
    .cfi_adjust_cfa_offset -32
    .cfi_restore r4
    .cfi_restore r5
    .cfi_restore r6
    .cfi_restore r7
    .cfi_restore r8
    .cfi_restore r9
    .cfi_restore r10
#ifdef __ARM_FP
    vpop {d8-d15}
    .cfi_adjust_cfa_offset -64
    .cfi_restore d8
    .cfi_restore d9
    .cfi_restore d10
    .cfi_restore d11
    .cfi_restore d12
    .cfi_restore d13
    .cfi_restore d14
    .cfi_restore d15
#endif
    bx r12
    EHABI(.fnend)
#endif
    .cfi_endproc
END_FUNCTION SYM(switch)

// ---------------------------------------------------------------------------------------
// entry: the bottom of every greenlet's stack. Resumed, never called: a new greenlet's frame
// names `entry_pc` as its resume address.
//
// On entry, out of that frame and from the switch
//   r5       start: extern "C" fn(argument, word, kind, *mut Departure)
//   r4       argument
//   r11      address of the parent link: there lies the address of the parent's context,
//            whose first word is the parent's saved stack pointer
//   r2 r3    the first message: word and kind
//   sp       top of the stack, a multiple of 8
// `start` returns when the greenlet is over and has then filled in the Departure: who is
// resumed, with what. Its stack is never used again.
//
// Unwinding: the caller of `entry` is the frame in which the parent waits. For debuggers, its
// CFA is
//   DW_CFA_def_cfa_expression (0x0f), 6 bytes:
//     0x7b 0x00   DW_OP_breg11 (r11) + 0   the parent link's address
//     0x06        DW_OP_deref              the parent's context
//     0x06        DW_OP_deref              the parent's saved stack pointer: its frame
//     0x23 0x28   DW_OP_plus_uconst 40     past the frame (FRAME_SIZE: 0x68, 104, with VFP)
// and its registers lie in that frame. For the program itself, EHABI instructions say the same:
//     0x9b        vsp = r11                the parent link's address
//     0x82 0x00   pop {sp}                 the parent's context
//     0x82 0x00   pop {sp}                 the parent's saved stack pointer: its frame
//     0x84 0x80   pop {r11, lr}
//     0xa6        pop {r4-r10}
//     0x00        vsp += 4                 past the unused word (0x10, 68, with VFP)
// d8-d15 are passed over: no frame is found with their help, nobody lands in the parent by
// unwinding, and all else that is read lies in the record of a greenlet without a stack, or
// close by.

FUNCTION SYM(entry), 4
    .cfi_startproc simple
    .cfi_signal_frame
    .cfi_escape 0x0f, 0x06, 0x7b, 0x00, 0x06, 0x06, 0x23, FRAME_SIZE
    .cfi_offset r11, FRAME_R11 - FRAME_SIZE
    .cfi_offset lr, FRAME_RESUME - FRAME_SIZE
    .cfi_offset r4, FRAME_R4 - FRAME_SIZE
    .cfi_offset r5, FRAME_R5 - FRAME_SIZE
    .cfi_offset r6, FRAME_R6 - FRAME_SIZE
    .cfi_offset r7, FRAME_R7 - FRAME_SIZE
    .cfi_offset r8, FRAME_R8 - FRAME_SIZE
    .cfi_offset r9, FRAME_R9 - FRAME_SIZE
    .cfi_offset r10, FRAME_R10 - FRAME_SIZE
#ifdef __ARM_FP
    .cfi_offset d8, FRAME_D8 - FRAME_SIZE
    .cfi_offset d9, FRAME_D8 + 8 - FRAME_SIZE
    .cfi_offset d10, FRAME_D8 + 16 - FRAME_SIZE
    .cfi_offset d11, FRAME_D8 + 24 - FRAME_SIZE
    .cfi_offset d12, FRAME_D8 + 32 - FRAME_SIZE
    .cfi_offset d13, FRAME_D8 + 40 - FRAME_SIZE
    .cfi_offset d14, FRAME_D8 + 48 - FRAME_SIZE
    .cfi_offset d15, FRAME_D8 + 56 - FRAME_SIZE
#endif
    EHABI(.fnstart)
    EHABI(.unwind_raw 0, 0x9b, 0x82, 0x00, 0x82, 0x00, 0x84, 0x80, 0xa6, (FRAME_SIZE - 40) / 4)
    nop                                 // unwinders look up pc - 2: keep that in here
    .type SYM(entry_pc), %function      // so that its address has the Thumb bit
LABEL SYM(entry_pc)
    sub sp, sp, #16                     // room for the Departure (12 bytes), rounded up to 8
    mov r0, r4                          // argument
    mov r1, r2                          // word
    mov r2, r3                          // kind
    mov r3, sp                          // departure
    blx r5
    ldr r2, [sp, #4]                    // Departure.word
    ldr r3, [sp, #8]                    // Departure.kind
#ifdef THUMB1
    ldr r0, [sp]                        // Departure.to; `resume`'s CFI needs its frame there
    mov sp, r0
    bl SYM(resume)                      // never comes back; b does not reach far enough
#else
    ldr sp, [sp]                        // Departure.to; `resume`'s CFI needs its frame there
    b SYM(resume)
#endif
    EHABI(.fnend)
    .cfi_endproc
END_FUNCTION SYM(entry)

NO_EXECUTABLE_STACK
