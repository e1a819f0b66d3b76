// Switch core for x86_64, System V ABI.
//
// ABI: "System V Application Binary Interface, AMD64 Architecture Processor Supplement",
//      section 3.2.1 "Registers" and table "Register Usage": rbx, rbp, r12-r15, rsp, the
//      control bits of MXCSR and the x87 control word belong to the caller.
//      Direction flag and x87 mode are as at any call: clear, and not in MMX mode.
//
// GREENLET_FP_CONTROL (feature `fp-control`) is for the control words. Without it they are the
// thread's and not touched: right for programs that leave them alone, as Rust demands. It is a
// choice because reading MXCSR takes more than 3 ns on some processors (AMD Zen 5), longer
// than all else here.
//
// Assumes nothing but that ABI. This file must be kept in step with itself: the frame table,
// FRAME_*, the pushes and pops, and the CFI of both routines. src/arch/x86_64.rs is checked
// against FRAME_* when it compiles.
//
// Frame of a suspended greenlet; its address is the saved stack pointer:
//
//   offset  size  holds
//        0     8  rbp      } together a frame record, as the frame-pointer
//        8     8  resume   } chain expects it: {previous rbp, return address}
//       16     4  MXCSR
//       20     2  x87 control word
//       22     2  (unused)
//       24     8  r15
//       32     8  r14
//       40     8  r13
//       48     8  r12
//       56     8  rbx
//       64        stack pointer as it was, and will be, at the switch

#include "macros.h"

#define FRAME_RBP    0
#define FRAME_RESUME 8
#define FRAME_MXCSR  16
#define FRAME_X87CW  20
#define FRAME_R15    24
#define FRAME_R14    32
#define FRAME_R13    40
#define FRAME_R12    48
#define FRAME_RBX    56
#define FRAME_SIZE   64

LAYOUT(frame_size, FRAME_SIZE)
LAYOUT(frame_pointer, FRAME_RBP)
LAYOUT(resume, FRAME_RESUME)
LAYOUT(argument, FRAME_R12)
LAYOUT(start, FRAME_RBX)
LAYOUT(mxcsr, FRAME_MXCSR)
LAYOUT(x87cw, FRAME_X87CW)

// The control bits of MXCSR: rounding, masks, flush-to-zero, denormals-are-zero, and bit 17, AMD's
// mask of misaligned accesses. The six low bits are sticky status, which no callee preserves.
#define MXCSR_CONTROL 0xffffffc0

// What `mxcsr_way` holds: how the MXCSR of the resumed one comes back. Both ways are right on
// every processor; src/arch/x86_64.rs chooses the faster one.
//   compare  with what has just been stored; load it if a control bit differs. Zero, the way
//            until one is chosen, is this one too.
//   load     always, and so without waiting for that store. Where a load that changes a sticky
//            flag is slow (tens of nanoseconds, Intel), the slower way.
#define MXCSR_WAY_COMPARE 1
#define MXCSR_WAY_LOAD    2
LAYOUT(mxcsr_way_compare, MXCSR_WAY_COMPARE)
LAYOUT(mxcsr_way_load, MXCSR_WAY_LOAD)

    .intel_syntax noprefix

// ---------------------------------------------------------------------------------------
// switch: suspend the caller, resume another.
//
// Entered by a jump; on entry
//   rax      where the caller goes on when it is resumed
//   rdi      where to store the caller's stack pointer
//   rsi      stack pointer of the greenlet to resume, as stored by an earlier switch or made
//            by Frame::new
//   rdx rcx  the message: word and kind
//   rsp      the caller's; no return address is on it
// Left by a jump to the resumed greenlet's resume address; then
//   rdx rcx  the message, as the other side gave it
//   rbx rbp r12-r15 rsp, MXCSR control bits, x87 control word   as when it left
//   all others are undefined.
//
// No call and no ret: the processor's return-address predictor does not notice the switch,
// so the frames around it still return as predicted.

FUNCTION SYM(switch), 6                 // at a cache line: wherever it is linked, it fills as few
    .cfi_startproc
    .cfi_def_cfa rsp, 0
    .cfi_register rip, rax              // nothing on the stack says where the caller goes on
    push rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset rbx, 0
    push r12
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r12, 0
    push r13
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r13, 0
    push r14
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r14, 0
    push r15
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r15, 0
    sub rsp, FRAME_R15 - FRAME_MXCSR
    .cfi_adjust_cfa_offset 8
#ifdef GREENLET_FP_CONTROL
    stmxcsr [rsp]
    fnstcw [rsp + 4]
#endif
    push rax
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset rip, 0
    push rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset rbp, 0
    mov [rdi], rsp                      // from here on the caller can be resumed
#ifdef GREENLET_FP_CONTROL
    mov r8, rsp
#endif
    mov rsp, rsi                        // same frame layout: the CFI above still holds

    // The second half, also reached from the end of `entry`:
    //   rsp  the frame to resume         rdx rcx  the message
    //   r8   where the control words, as they are now, lie as in a frame (GREENLET_FP_CONTROL)
LABEL SYM(resume)
#ifdef GREENLET_FP_CONTROL
    // Each field is read back with a load of its store's width: a wider one would wait for
    // both stores to leave the store buffer.
    movzx r9d, word ptr [r8 + FRAME_X87CW]
    cmp byte ptr [rip + SYM(mxcsr_way)], MXCSR_WAY_LOAD
    je 1f
    mov r8d, [r8 + FRAME_MXCSR]
    xor r8d, [rsp + FRAME_MXCSR]
    test r8d, MXCSR_CONTROL
    jz 2f
1:
    ldmxcsr [rsp + FRAME_MXCSR]
2:
    cmp r9w, [rsp + FRAME_X87CW]
    jne 4f
3:
#endif
    pop rbp
    .cfi_adjust_cfa_offset -8
    .cfi_restore rbp
    pop rax
    .cfi_adjust_cfa_offset -8
    .cfi_register rip, rax
    add rsp, FRAME_R15 - FRAME_MXCSR
    .cfi_adjust_cfa_offset -8
    pop r15
    .cfi_adjust_cfa_offset -8
    .cfi_restore r15
    pop r14
    .cfi_adjust_cfa_offset -8
    .cfi_restore r14
    pop r13
    .cfi_adjust_cfa_offset -8
    .cfi_restore r13
    pop r12
    .cfi_adjust_cfa_offset -8
    .cfi_restore r12
    pop rbx
    .cfi_adjust_cfa_offset -8
    .cfi_restore rbx
#if defined(__CET__) && (__CET__ & 1)
    notrack jmp rax                     // a resume address is no ENDBR64
#else
    jmp rax
#endif

#ifdef GREENLET_FP_CONTROL
    // Out of the way: the x87 control words do differ.
    .cfi_def_cfa rsp, FRAME_SIZE
    .cfi_rel_offset rbx, FRAME_RBX
    .cfi_rel_offset r12, FRAME_R12
    .cfi_rel_offset r13, FRAME_R13
    .cfi_rel_offset r14, FRAME_R14
    .cfi_rel_offset r15, FRAME_R15
    .cfi_rel_offset rip, FRAME_RESUME
    .cfi_rel_offset rbp, FRAME_RBP
4:
    fldcw [rsp + FRAME_X87CW]
    jmp 3b
#endif
    .cfi_endproc
END_FUNCTION SYM(switch)

// ---------------------------------------------------------------------------------------
// entry: the bottom of every greenlet's stack. Resumed, never called: a new greenlet's frame
// names `entry_pc` as its resume address.
//
// On entry, out of that frame and from the switch
//   rbx      start: extern "C" fn(argument, word, kind, *mut Departure)
//   r12      argument
//   rbp      address of the parent link: there lies the address of the parent's context,
//            whose first word is the parent's saved stack pointer
//   rdx rcx  the first message: word and kind
//   rsp      top of the stack, a multiple of 16
// `start` returns when the greenlet is over and has then filled in the Departure: who is
// resumed, with what. Its stack is never used again.
//
// Unwinding: the caller of `entry` is the frame in which the parent waits. Its CFA is
//   DW_CFA_def_cfa_expression (0x0f), 6 bytes:
//     0x76 0x00   DW_OP_breg6 (rbp) + 0    the parent link's address (gdb rejects DW_OP_reg6)
//     0x06        DW_OP_deref              the parent's context
//     0x06        DW_OP_deref              the parent's saved stack pointer: its frame
//     0x23 0x40   DW_OP_plus_uconst 64     past the frame (FRAME_SIZE)
// and its registers lie in that frame. A signal frame, so that gdb takes a parent whose stack
// lies below its child's.

FUNCTION SYM(entry), 4
    .cfi_startproc simple
    .cfi_signal_frame
    .cfi_escape 0x0f, 0x06, 0x76, 0x00, 0x06, 0x06, 0x23, FRAME_SIZE
    .cfi_offset rbx, FRAME_RBX - FRAME_SIZE
    .cfi_offset r12, FRAME_R12 - FRAME_SIZE
    .cfi_offset r13, FRAME_R13 - FRAME_SIZE
    .cfi_offset r14, FRAME_R14 - FRAME_SIZE
    .cfi_offset r15, FRAME_R15 - FRAME_SIZE
    .cfi_offset rip, FRAME_RESUME - FRAME_SIZE
    .cfi_offset rbp, FRAME_RBP - FRAME_SIZE
    nop                                 // unwinders look up pc - 1: keep that in here
LABEL SYM(entry_pc)
    // Room for the Departure (24 bytes) and the two control words, rounded up to 16.
    sub rsp, 32
    mov rdi, r12                        // argument
    mov rsi, rdx                        // word
    mov rdx, rcx                        // kind
    mov rcx, rsp                        // departure
    call rbx
    mov rdx, [rsp + 8]                  // Departure.word
    mov rcx, [rsp + 16]                 // Departure.kind
#ifdef GREENLET_FP_CONTROL
    stmxcsr [rsp + 24]
    fnstcw [rsp + 28]
    lea r8, [rsp + 24 - FRAME_MXCSR]
#endif
    mov rsp, [rsp]                      // Departure.to; `resume`'s CFI needs its frame there
    jmp SYM(resume)
    .cfi_endproc
END_FUNCTION SYM(entry)

// ---------------------------------------------------------------------------------------
// last: two thread-local words of src/arch/x86_64.rs: the address of the word that holds the
// stack pointer of the one that left last, and that stack pointer. The core does not use them.

    .section .tbss, "awT", %nobits
    .hidden SYM(last)
    .globl SYM(last)
    .type SYM(last), %object
    .size SYM(last), 16
    .p2align 3
SYM(last):
    .zero 16

#ifdef GREENLET_FP_CONTROL
// ---------------------------------------------------------------------------------------
// mxcsr_way: see MXCSR_WAY_COMPARE.

    .section .bss, "aw", %nobits
    .hidden SYM(mxcsr_way)
    .globl SYM(mxcsr_way)
    .type SYM(mxcsr_way), %object
    .size SYM(mxcsr_way), 1
SYM(mxcsr_way):
    .zero 1
#endif

#if defined(__CET__) && (__CET__ & 1)
// Asked for by -fcf-protection: the only indirect jump above is notrack.
// GNU_PROPERTY_X86_FEATURE_1_AND (0xc0000002): IBT (bit 0) only. Never SHSTK (bit 1): a
// switch does not move the shadow stack, and saying so keeps the loader from enabling it.
    .section .note.gnu.property, "a", %note
    .p2align 3
    .long 4                             // size of the name
    .long 16                            // size of the descriptor
    .long 5                             // NT_GNU_PROPERTY_TYPE_0
    .asciz "GNU"
    .long 0xc0000002
    .long 4                             // size of the property
    .long 1                             // IBT
    .long 0                             // padding to 8
#endif

NO_EXECUTABLE_STACK
