// Switch core for riscv64, RISC-V ELF psABI. As x86_64.S, which explains what the four have in
// common; the comments here are on what differs.
//
// ABI: "RISC-V ABIs Specification", chapter "RISC-V Calling Conventions", sections "Integer
//      Register Convention" (s0-s11, sp belong to the caller), "Frame Pointer Convention" and
//      "Floating-point Register Convention" (so do fs0-fs11, as wide as the ABI passes them:
//      lp64d 64 bits, lp64f 32, lp64 none). fcsr is required to have "thread storage duration"
//      there: a callee does not restore it, and neither does this core. gp and tp are never
//      touched.
//
// Assumes nothing but that ABI. This file must be kept in step with itself: the frame table,
// FRAME_*, the stores and loads, and the CFI of both routines. src/arch/riscv64.rs is checked
// against FRAME_* when it compiles.
//
// Frame of a suspended greenlet; its address is the saved stack pointer:
//
//   offset  size  holds
//        0     8  s0       } what a frame record holds:
//        8     8  resume   } {previous fp, return address}
//       16    88  s1-s11, 8 each
//      104     8  (unused)                         | lp64: then nothing
//      104    96  fs0-fs11, 8 each                 | lp64d, lp64f (low 4 bytes of each)
//      200     8  (unused)                         |
//      208        stack pointer as it was, and will be, at the switch (lp64: 112)

#include "macros.h"

#define FRAME_S0     0
#define FRAME_RESUME 8
#define FRAME_S1     16
#define FRAME_S2     24
#define FRAME_S3     32
#define FRAME_S4     40
#define FRAME_S5     48
#define FRAME_S6     56
#define FRAME_S7     64
#define FRAME_S8     72
#define FRAME_S9     80
#define FRAME_S10    88
#define FRAME_S11    96
#if defined(__riscv_float_abi_soft)
#define FRAME_SIZE   112
#else
#define FRAME_FS0    104
#define FRAME_FS1    112
#define FRAME_FS2    120
#define FRAME_FS3    128
#define FRAME_FS4    136
#define FRAME_FS5    144
#define FRAME_FS6    152
#define FRAME_FS7    160
#define FRAME_FS8    168
#define FRAME_FS9    176
#define FRAME_FS10   184
#define FRAME_FS11   192
#define FRAME_SIZE   208
#endif

#if defined(__riscv_float_abi_double)
#define FSAVE fsd
#define FLOAD fld
#elif defined(__riscv_float_abi_single)
#define FSAVE fsw
#define FLOAD flw
#elif !defined(__riscv_float_abi_soft)
#error "greenlet knows the floating-point ABIs lp64, lp64f and lp64d only"
#endif

LAYOUT(frame_size, FRAME_SIZE)
LAYOUT(frame_pointer, FRAME_S0)
LAYOUT(resume, FRAME_RESUME)
LAYOUT(start, FRAME_S1)
LAYOUT(argument, FRAME_S2)

// ---------------------------------------------------------------------------------------
// switch: suspend the caller, resume another.
//
// Entered by a jump; on entry
//   ra       where the caller goes on when it is resumed
//   a0       where to store the caller's stack pointer
//   a1       stack pointer of the greenlet to resume, as stored by an earlier switch or made
//            by Frame::new
//   a2 a3    the message: word and kind
//   sp       the caller's
// Left by a jump to the resumed greenlet's resume address; then
//   a2 a3    the message, as the other side gave it
//   s0-s11 sp fs0-fs11   as when it left
//   all others are undefined.
//
// The last jump goes through t2: a jump through ra or t0 would be predicted as a return, and
// t2 is the one whose target needs no landing pad (Zicfilp).

FUNCTION SYM(switch), 4
    .cfi_startproc                      // ra says where the caller goes on
    .cfi_def_cfa sp, 0                  // binutils' own beginning names no offset
    addi sp, sp, -FRAME_SIZE            // before any store: nothing below sp is safe from signals
    .cfi_def_cfa_offset FRAME_SIZE
    sd s0, FRAME_S0(sp)
    .cfi_rel_offset s0, FRAME_S0
    sd ra, FRAME_RESUME(sp)
    .cfi_rel_offset ra, FRAME_RESUME
    sd s1, FRAME_S1(sp)
    .cfi_rel_offset s1, FRAME_S1
    sd s2, FRAME_S2(sp)
    .cfi_rel_offset s2, FRAME_S2
    sd s3, FRAME_S3(sp)
    .cfi_rel_offset s3, FRAME_S3
    sd s4, FRAME_S4(sp)
    .cfi_rel_offset s4, FRAME_S4
    sd s5, FRAME_S5(sp)
    .cfi_rel_offset s5, FRAME_S5
    sd s6, FRAME_S6(sp)
    .cfi_rel_offset s6, FRAME_S6
    sd s7, FRAME_S7(sp)
    .cfi_rel_offset s7, FRAME_S7
    sd s8, FRAME_S8(sp)
    .cfi_rel_offset s8, FRAME_S8
    sd s9, FRAME_S9(sp)
    .cfi_rel_offset s9, FRAME_S9
    sd s10, FRAME_S10(sp)
    .cfi_rel_offset s10, FRAME_S10
    sd s11, FRAME_S11(sp)
    .cfi_rel_offset s11, FRAME_S11
#ifdef FSAVE
    FSAVE fs0, FRAME_FS0(sp)
    .cfi_rel_offset fs0, FRAME_FS0
    FSAVE fs1, FRAME_FS1(sp)
    .cfi_rel_offset fs1, FRAME_FS1
    FSAVE fs2, FRAME_FS2(sp)
    .cfi_rel_offset fs2, FRAME_FS2
    FSAVE fs3, FRAME_FS3(sp)
    .cfi_rel_offset fs3, FRAME_FS3
    FSAVE fs4, FRAME_FS4(sp)
    .cfi_rel_offset fs4, FRAME_FS4
    FSAVE fs5, FRAME_FS5(sp)
    .cfi_rel_offset fs5, FRAME_FS5
    FSAVE fs6, FRAME_FS6(sp)
    .cfi_rel_offset fs6, FRAME_FS6
    FSAVE fs7, FRAME_FS7(sp)
    .cfi_rel_offset fs7, FRAME_FS7
    FSAVE fs8, FRAME_FS8(sp)
    .cfi_rel_offset fs8, FRAME_FS8
    FSAVE fs9, FRAME_FS9(sp)
    .cfi_rel_offset fs9, FRAME_FS9
    FSAVE fs10, FRAME_FS10(sp)
    .cfi_rel_offset fs10, FRAME_FS10
    FSAVE fs11, FRAME_FS11(sp)
    .cfi_rel_offset fs11, FRAME_FS11
#endif
    sd sp, 0(a0)                        // from here on the caller can be resumed
    mv sp, a1                           // same frame layout: the CFI above still holds

    // The second half, also reached from the end of `entry`:
    //   sp  the frame to resume     a2 a3  the message
LABEL SYM(resume)
    ld s0, FRAME_S0(sp)
    .cfi_restore s0
    ld t2, FRAME_RESUME(sp)
    .cfi_register ra, t2
    ld s1, FRAME_S1(sp)
    .cfi_restore s1
    ld s2, FRAME_S2(sp)
    .cfi_restore s2
    ld s3, FRAME_S3(sp)
    .cfi_restore s3
    ld s4, FRAME_S4(sp)
    .cfi_restore s4
    ld s5, FRAME_S5(sp)
    .cfi_restore s5
    ld s6, FRAME_S6(sp)
    .cfi_restore s6
    ld s7, FRAME_S7(sp)
    .cfi_restore s7
    ld s8, FRAME_S8(sp)
    .cfi_restore s8
    ld s9, FRAME_S9(sp)
    .cfi_restore s9
    ld s10, FRAME_S10(sp)
    .cfi_restore s10
    ld s11, FRAME_S11(sp)
    .cfi_restore s11
#ifdef FLOAD
    FLOAD fs0, FRAME_FS0(sp)
    .cfi_restore fs0
    FLOAD fs1, FRAME_FS1(sp)
    .cfi_restore fs1
    FLOAD fs2, FRAME_FS2(sp)
    .cfi_restore fs2
    FLOAD fs3, FRAME_FS3(sp)
    .cfi_restore fs3
    FLOAD fs4, FRAME_FS4(sp)
    .cfi_restore fs4
    FLOAD fs5, FRAME_FS5(sp)
    .cfi_restore fs5
    FLOAD fs6, FRAME_FS6(sp)
    .cfi_restore fs6
    FLOAD fs7, FRAME_FS7(sp)
    .cfi_restore fs7
    FLOAD fs8, FRAME_FS8(sp)
    .cfi_restore fs8
    FLOAD fs9, FRAME_FS9(sp)
    .cfi_restore fs9
    FLOAD fs10, FRAME_FS10(sp)
    .cfi_restore fs10
    FLOAD fs11, FRAME_FS11(sp)
    .cfi_restore fs11
#endif
    addi sp, sp, FRAME_SIZE
    .cfi_def_cfa_offset 0
    jr t2
    .cfi_endproc
END_FUNCTION SYM(switch)

// ---------------------------------------------------------------------------------------
// entry: the bottom of every greenlet's stack. Resumed, never called: a new greenlet's frame
// names `entry_pc` as its resume address.
//
// On entry, out of that frame and from the switch
//   s1       start: extern "C" fn(argument, word, kind, *mut Departure)
//   s2       argument
//   s0       address of the parent link: there lies the address of the parent's context,
//            whose first word is the parent's saved stack pointer
//   a2 a3    the first message: word and kind
//   sp       top of the stack, a multiple of 16
// `start` returns when the greenlet is over and has then filled in the Departure: who is
// resumed, with what. Its stack is never used again.
//
// Unwinding: the caller of `entry` is the frame in which the parent waits. Its CFA is
//   DW_CFA_def_cfa_expression (0x0f), 7 bytes:
//     0x78 0x00        DW_OP_breg8 (s0) + 0     the parent link's address
//     0x06             DW_OP_deref              the parent's context
//     0x06             DW_OP_deref              the parent's saved stack pointer: its frame
//     0x23 0xd0 0x01   DW_OP_plus_uconst 208    past the frame (FRAME_SIZE, as ULEB128; lp64:
//                                               112, 0xf0 0x00)
// and its registers lie in that frame. Unwinders that follow s0 instead of this table end
// here: on this architecture fp points past a frame record, not to it, and what the parent
// link's address points past is no record.

FUNCTION SYM(entry), 4
    .cfi_startproc simple
    .cfi_signal_frame
    .cfi_escape 0x0f, 0x07, 0x78, 0x00, 0x06, 0x06, 0x23, (FRAME_SIZE & 0x7f) | 0x80, FRAME_SIZE >> 7
    .cfi_offset s0, FRAME_S0 - FRAME_SIZE
    .cfi_offset ra, FRAME_RESUME - FRAME_SIZE
    .cfi_offset s1, FRAME_S1 - FRAME_SIZE
    .cfi_offset s2, FRAME_S2 - FRAME_SIZE
    .cfi_offset s3, FRAME_S3 - FRAME_SIZE
    .cfi_offset s4, FRAME_S4 - FRAME_SIZE
    .cfi_offset s5, FRAME_S5 - FRAME_SIZE
    .cfi_offset s6, FRAME_S6 - FRAME_SIZE
    .cfi_offset s7, FRAME_S7 - FRAME_SIZE
    .cfi_offset s8, FRAME_S8 - FRAME_SIZE
    .cfi_offset s9, FRAME_S9 - FRAME_SIZE
    .cfi_offset s10, FRAME_S10 - FRAME_SIZE
    .cfi_offset s11, FRAME_S11 - FRAME_SIZE
#ifdef FSAVE
    .cfi_offset fs0, FRAME_FS0 - FRAME_SIZE
    .cfi_offset fs1, FRAME_FS1 - FRAME_SIZE
    .cfi_offset fs2, FRAME_FS2 - FRAME_SIZE
    .cfi_offset fs3, FRAME_FS3 - FRAME_SIZE
    .cfi_offset fs4, FRAME_FS4 - FRAME_SIZE
    .cfi_offset fs5, FRAME_FS5 - FRAME_SIZE
    .cfi_offset fs6, FRAME_FS6 - FRAME_SIZE
    .cfi_offset fs7, FRAME_FS7 - FRAME_SIZE
    .cfi_offset fs8, FRAME_FS8 - FRAME_SIZE
    .cfi_offset fs9, FRAME_FS9 - FRAME_SIZE
    .cfi_offset fs10, FRAME_FS10 - FRAME_SIZE
    .cfi_offset fs11, FRAME_FS11 - FRAME_SIZE
#endif
    nop                                 // unwinders look up pc - 1: keep that in here
LABEL SYM(entry_pc)
    addi sp, sp, -32                    // room for the Departure (24 bytes), rounded up to 16
    mv a0, s2                           // argument
    mv a1, a2                           // word
    mv a2, a3                           // kind
    mv a3, sp                           // departure
    jalr s1
    ld a2, 8(sp)                        // Departure.word
    ld a3, 16(sp)                       // Departure.kind
    ld sp, 0(sp)                        // Departure.to; `resume`'s CFI needs its frame there
    tail SYM(resume)                    // not j: the linker may place the two far apart
    .cfi_endproc
END_FUNCTION SYM(entry)

NO_EXECUTABLE_STACK
