// Switch core for riscv64 and riscv32, RISC-V ELF psABI. See x86_64.S for what the
// cores have in common; the comments here say what differs.
//
// ABI: "RISC-V ABIs Specification", chapter "RISC-V Calling Conventions", sections "Integer
//      Register Convention" (s0-s11, sp belong to the caller), "Frame Pointer Convention" and
//      "Floating-point Register Convention" (so do fs0-fs11, as wide as the ABI passes them:
//      lp64d and ilp32d 64 bits, lp64f and ilp32f 32, lp64 and ilp32 none). fcsr is required to
//      have "thread storage duration" there: a callee does not restore it, and neither does this
//      core. gp and tp are never touched.
//
// Assumes nothing but that ABI, and 32 integer registers (not RV32E, RV64E). Four parts of this file
// must agree: the register table, CONTEXT_*, the stores and loads, and the CFI of `entry`. src/arch/mod.rs is checked against
// CONTEXT_* when it compiles.
//
// Registers of a suspended greenlet. They lie in its context, not on its stack:
//
//      riscv64       riscv32
//   offset  size  offset  size  holds
//        0     8       0     4  s0       } what a frame record holds:
//        8     8       4     4  resume   } {previous fp, return address}
//       16     8       8     4  sp
//       24     8      12     4  s1
//       32            16        size
//
// Registers of the caller that are left to the compiler: ra, s2-s11, fs0-fs11. The `asm!` that has
// SWITCH in it declares them clobbered, so a caller of the switch saves those that hold a
// live value. s0 and s1 cannot be left to it: it may need them to find its own frame. The fs
// registers are declared for every ABI: code for lp64 or ilp32 on a processor that has them may use all of
// them, and there none belongs to the caller. ("Integer Register Convention", "Floating-point
// Register Convention": preserved across calls. What preserves them is the compiler's function.)

#include "macros.h"

#if defined(__riscv_e)
#error "the switch core needs the registers that RV32E and RV64E lack"
#endif

#if __riscv_xlen == 32
#define CONTEXT_S0     0
#define CONTEXT_RESUME 4
#define CONTEXT_SP     8
#define CONTEXT_S1     12
#define CONTEXT_SIZE   16
#define WORD           4
#define DEPARTURE      16               // bytes of a Departure, 3 words, rounded up to 16
#define STORE          sw
#define FETCH          lw
#else
#define CONTEXT_S0     0
#define CONTEXT_RESUME 8
#define CONTEXT_SP     16
#define CONTEXT_S1     24
#define CONTEXT_SIZE   32
#define WORD           8
#define DEPARTURE      32
#define STORE          sd
#define FETCH          ld
#endif

LAYOUT(frame_pointer, CONTEXT_S0)
LAYOUT(resume, CONTEXT_RESUME)
LAYOUT(stack_pointer, CONTEXT_SP)
LAYOUT(argument, CONTEXT_S1)
LAYOUT(size, CONTEXT_SIZE)

// ---------------------------------------------------------------------------------------
// SWITCH: suspend the caller, resume another. Compiled in line, by src/arch/riscv.rs.
//
// On entry
//   a0       the caller's context
//   a1       the context to resume, whose registers an earlier SWITCH stored or Rust prepared
//   a2 a3    the message: word and kind
// When the caller is resumed, after the text
//   a2 a3    the message, as the other side gave it
//   s0 s1 sp     as on entry
//   all others are undefined; the `asm!` declares them clobbered.
//
// The last jump goes through t2: a jump through ra or t0 would be predicted as a return, and
// t2 is the one whose target needs no landing pad (Zicfilp).
//
// The unwind table of the function around the text is wrong between the load of s1 and the
// jump (4 instructions).

    .macro SAVE
    STORE s0, CONTEXT_S0(a0)
    STORE t1, CONTEXT_RESUME(a0)        // the resume address
    STORE sp, CONTEXT_SP(a0)
    STORE s1, CONTEXT_S1(a0)
    .endm

    .macro LOAD
    FETCH t2, CONTEXT_RESUME(a1)
    FETCH s1, CONTEXT_S1(a1)
    FETCH s0, CONTEXT_S0(a1)
    FETCH sp, CONTEXT_SP(a1)
    jr t2
    .endm

    .macro SWITCH
    lla t1, 2f
    SAVE
    LOAD
2:
    .endm

// ---------------------------------------------------------------------------------------
// What follows is assembled on its own.

    // The unwind rules where a1 has the context to resume: the caller is the frame in which that
    // one waits. The numbers are riscv64's; those of CONTEXT_* are other ones on riscv32.
    //   CFA  DW_CFA_def_cfa_expression (0x0f), 3 bytes:
    //          0x7b 0x10   DW_OP_breg11 (a1) + CONTEXT_SP
    //          0x06        DW_OP_deref
    //   DW_CFA_expression (0x10), 2 bytes each, for where a register lies:
    //     ra (1)  0x7b 0x08   DW_OP_breg11 (a1) + CONTEXT_RESUME
    //     s0 (8)  0x7b 0x00   DW_OP_breg11 (a1) + CONTEXT_S0
    //     s1 (9)  0x7b 0x18   DW_OP_breg11 (a1) + CONTEXT_S1
    .macro CALLER_IS_RESUMED
    .cfi_escape 0x0f, 0x03, 0x7b, CONTEXT_SP, 0x06
    .cfi_escape 0x10, 1, 0x02, 0x7b, CONTEXT_RESUME
    .cfi_escape 0x10, 8, 0x02, 0x7b, CONTEXT_S0
    .cfi_escape 0x10, 9, 0x02, 0x7b, CONTEXT_S1
    .endm

// ---------------------------------------------------------------------------------------
// entry: the bottom of every greenlet's stack. Resumed, never called: a new greenlet's context
// names `entry_pc` as its resume address.
//
// On entry, out of that context and from the switch
//   s1       argument
//   s0       address of the parent link: there lies the address of the parent's context
//   a2 a3    the first message: word and kind
//   sp       a multiple of 16, and at it
//              0   start: extern "C" fn(argument, word, kind, *mut Departure)
// `start` returns when the greenlet is finished and has then filled in the Departure: which context
// is resumed, with what. Its stack is never used again.
//
// Unwinding: the caller of `entry` is the frame in which the parent waits (numbers of riscv64).
//   CFA  DW_CFA_def_cfa_expression (0x0f), 6 bytes:
//          0x78 0x00   DW_OP_breg8 (s0) + 0     the parent link's address
//          0x06        DW_OP_deref              the parent's context
//          0x23 0x10   DW_OP_plus_uconst 16     where its sp lies (CONTEXT_SP)
//          0x06        DW_OP_deref
//   DW_CFA_expression (0x10), 5 bytes each, for where a register lies:
//     ra (1)  0x78 0x00 0x06 0x23 0x08   the parent's context + CONTEXT_RESUME
//     s0 (8)  0x78 0x00 0x06 0x23 0x00   the parent's context + CONTEXT_S0
//     s1 (9)  0x78 0x00 0x06 0x23 0x18   the parent's context + CONTEXT_S1
//   s2-s11 and fs0-fs11 are undefined (DW_CFA_undefined): the parent's frame has saved its own.
// Unwinders that follow s0 instead of this table end here: on this architecture fp points past a
// frame record, not to it, and what the parent link's address points past is no record.

FUNCTION SYM(entry), 4
    .cfi_startproc simple
    SIGNAL_FRAME
    .cfi_escape 0x0f, 0x06, 0x78, 0x00, 0x06, 0x23, CONTEXT_SP, 0x06
    .cfi_escape 0x10, 1, 0x05, 0x78, 0x00, 0x06, 0x23, CONTEXT_RESUME
    .cfi_escape 0x10, 8, 0x05, 0x78, 0x00, 0x06, 0x23, CONTEXT_S0
    .cfi_escape 0x10, 9, 0x05, 0x78, 0x00, 0x06, 0x23, CONTEXT_S1
    .cfi_undefined s2
    .cfi_undefined s3
    .cfi_undefined s4
    .cfi_undefined s5
    .cfi_undefined s6
    .cfi_undefined s7
    .cfi_undefined s8
    .cfi_undefined s9
    .cfi_undefined s10
    .cfi_undefined s11
#if !defined(__riscv_float_abi_soft)
    .cfi_undefined fs0
    .cfi_undefined fs1
    .cfi_undefined fs2
    .cfi_undefined fs3
    .cfi_undefined fs4
    .cfi_undefined fs5
    .cfi_undefined fs6
    .cfi_undefined fs7
    .cfi_undefined fs8
    .cfi_undefined fs9
    .cfi_undefined fs10
    .cfi_undefined fs11
#endif
    nop                                 // unwinders look up pc - 1: keep that in here
LABEL SYM(entry_pc)
    FETCH t1, 0(sp)                     // start
    addi sp, sp, -DEPARTURE
    mv a0, s1                           // argument
    mv a1, a2                           // word
    mv a2, a3                           // kind
    mv a3, sp                           // departure
    jalr t1
    FETCH a1, 0(sp)                     // Departure.to
    CALLER_IS_RESUMED
    FETCH a2, WORD(sp)                  // Departure.word
    FETCH a3, 2*WORD(sp)                // Departure.kind
    LOAD
    .cfi_endproc
END_FUNCTION SYM(entry)

NO_EXECUTABLE_STACK
