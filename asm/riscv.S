// Switch core for riscv64 and riscv32, RISC-V ELF psABI. x86_64.S explains what the cores have in
// common; the comments here explain the differences.
//
// ABI: "RISC-V ABIs Specification", chapter "RISC-V Calling Conventions", sections "Integer Register
//      Convention", "Frame Pointer Convention" and "Floating-point Register Convention". Callee-saved
//      are s0-s11, sp and, as wide as the ABI passes them, fs0-fs11: 64 bits in lp64d and ilp32d, 32
//      in lp64f and ilp32f, none in lp64 and ilp32. fcsr has thread storage duration: callees do not
//      restore it, and neither does this core. The core does not access gp and tp.
//
// Assumes: that ABI, with 32 integer registers (not RV32E or RV64E).
//
// These must agree: the register table, CONTEXT_*, the stores of SAVE, the loads of LOAD, and the
// CFI of `entry`. src/arch/mod.rs is checked against CONTEXT_* when it compiles.
//
// Registers of a suspended greenlet. They lie at the beginning of its context, not on its stack:
//
//      riscv64       riscv32
//   offset  size  offset  size  holds
//        0     8       0     4  s0       } the contents of a frame record:
//        8     8       4     4  resume   } {previous fp, return address}
//       16     8       8     4  sp
//       24     8      12     4  s1
//       32            16        end (CONTEXT_SIZE); the parent link follows (src/raw.rs)
//
// Registers of the caller that are left to the compiler: ra, s2-s11, fs0-fs11. The `asm!` that
// includes SWITCH declares them clobbered, so the function around it saves those that hold a live
// value ("Integer Register Convention", "Floating-point Register Convention": they are preserved
// across calls). The fs registers are declared for every ABI: code for lp64 or ilp32 may use all of
// them on a processor that has them, and there none is callee-saved. s0 and s1 cannot be declared
// clobbered, because the compiler may need them to address the frame.

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
// SWITCH: suspends the caller and resumes another context. It is inlined by src/arch/riscv.rs.
//
// On entry
//   a0       the caller's context
//   a1       the context to resume; an earlier SWITCH stored its registers, or Rust prepared them
//   a2 a3    the message: word and kind
// Behind the text, when the caller is resumed
//   a2 a3    the message of the context that resumed it
//   s0 s1 sp     as on entry
//   all others are undefined; the `asm!` declares them clobbered
//
// Return-address prediction: the last jump goes through t2. A jump through ra or t0 would be predicted
// as a return. Control-flow integrity (Zicfilp) requires no landing pad at the target of a jump
// through t2.
//
// Signals: between the load of s1 and the jump (4 instructions) the unwind table of the surrounding
// function is wrong.

    // Stores the registers in the context in a0, with t1 as the resume address.
    .macro SAVE
    STORE s0, CONTEXT_S0(a0)
    STORE t1, CONTEXT_RESUME(a0)
    STORE sp, CONTEXT_SP(a0)
    STORE s1, CONTEXT_S1(a0)
    .endm

    // Loads the registers of the context in a1 and jumps to its resume address.
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
// The rest of this file is not inlined. `cc` assembles it.
//
// The unwind rules are DWARF expressions, as in x86_64.S. Registers have the numbers of the "RISC-V ABIs
// Specification", section "DWARF Register Numbers": x0-x31 are 0-31, so ra is 1, s0 8, s1 9, a1 11.
// The offsets in the comments are those of riscv64.

    // Unwind rules while a1 holds the context to resume: the caller is the frame in which that
    // context is suspended.
    //   CFA: DW_CFA_def_cfa_expression (0x0f), 3 bytes:
    //          0x7b 0x10   DW_OP_breg11 (a1) + CONTEXT_SP
    //          0x06        DW_OP_deref
    //   Where a register lies: DW_CFA_expression (0x10), its number, 2 bytes:
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
// entry: the routine at the bottom of every greenlet's stack. It calls `start`, and resumes the
// context that `start` chooses. Nothing calls `entry`: the resume address of a new context is
// `entry_pc`.
//
// On entry
//   from the new context
//     s1     argument
//     s0     address of the parent link, which points to the parent's context
//     sp     a multiple of 16; at it: start
//   from the switch
//     a2 a3  the first message: word and kind
//
// start: extern "C" fn(argument, word, kind, *mut Departure). It returns when the greenlet has
// finished. The Departure (src/arch/mod.rs) then says which context is resumed with which message.
// The greenlet's stack is not used again.
//
// Stack while `start` runs, from its caller's sp up
//      riscv64       riscv32
//   offset  size  offset  size
//        0     8       0     4  Departure.to
//        8     8       4     4  Departure.word
//       16     8       8     4  Departure.kind
//       24     8      12     4  unused
//       32     8      16     4  start; sp on entry points here
//
// Unwinding: the caller of `entry` is the frame in which the parent is suspended.
//   CFA: DW_CFA_def_cfa_expression (0x0f), 6 bytes:
//          0x78 0x00   DW_OP_breg8 (s0) + 0     address of the parent link
//          0x06        DW_OP_deref              the parent's context
//          0x23 0x10   DW_OP_plus_uconst 16     address of its sp (CONTEXT_SP)
//          0x06        DW_OP_deref
//   Where a register lies: DW_CFA_expression (0x10), its number, 5 bytes:
//     ra (1)  0x78 0x00 0x06 0x23 0x08   the parent's context + CONTEXT_RESUME
//     s0 (8)  0x78 0x00 0x06 0x23 0x00   the parent's context + CONTEXT_S0
//     s1 (9)  0x78 0x00 0x06 0x23 0x18   the parent's context + CONTEXT_S1
//   s2-s11, fs0-fs11: DW_CFA_undefined. The parent's frame has saved those that it needs.
// An unwinder that follows s0 instead of this table stops here: on this architecture fp points past a
// frame record, and the words below the parent link are no frame record.

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
