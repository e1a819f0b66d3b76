// Switch core for x86_64, System V ABI.
//
// ABI: "System V Application Binary Interface, AMD64 Architecture Processor Supplement",
//      section 3.2.1 "Registers" and table "Register Usage": rbx, rbp, r12-r15, rsp, the
//      control bits of MXCSR and the x87 control word belong to the caller.
//      Direction flag and x87 mode are as at any call: clear, and not in MMX mode.
//
// GREENLET_FP_CONTROL (feature `fp-control`) saves the control words. Without it they belong to the
// thread and are not touched, which suits programs that do not change them, as Rust requires.
//
// Assumes only that ABI. Four parts of this file must agree: the register table, CONTEXT_*,
// the stores and loads, and the CFI of both routines. src/arch/ is checked against CONTEXT_* when it
// compiles.
//
// Registers of a suspended greenlet. They lie in its context, not on its stack:
//
//   offset  size  holds
//        0     8  rbp      } together a frame record, as the frame-pointer
//        8     8  resume   } chain expects it: {previous rbp, return address}
//       16     8  rsp
//       24     8  rbx
//       32     4  MXCSR            } GREENLET_FP_CONTROL
//       36     4  x87 control word } (2 bytes of it)
//       32 or 40  size
//
// Registers of the caller that are left to the compiler: r12-r15. The `asm!` that has SWITCH in it
// declares them clobbered, so a caller of the switch saves those that hold a live value. rbx and rbp
// cannot be left to it: it may need them to find its own frame. (psABI 3.2.1: a function that
// changes a callee-saved register saves it first. That function is the compiler's.)

#include "macros.h"

#define CONTEXT_RBP    0
#define CONTEXT_RESUME 8
#define CONTEXT_RSP    16
#define CONTEXT_RBX    24
#ifdef GREENLET_FP_CONTROL
#define CONTEXT_MXCSR  32
#define CONTEXT_X87CW  36
#define CONTEXT_SIZE   40
#else
#define CONTEXT_SIZE   32
#endif

LAYOUT(frame_pointer, CONTEXT_RBP)
LAYOUT(resume, CONTEXT_RESUME)
LAYOUT(stack_pointer, CONTEXT_RSP)
LAYOUT(argument, CONTEXT_RBX)
#ifdef GREENLET_FP_CONTROL
LAYOUT(mxcsr, CONTEXT_MXCSR)
LAYOUT(x87cw, CONTEXT_X87CW)
#endif
LAYOUT(size, CONTEXT_SIZE)

// HOP also reads a byte behind the context and its parent link: the state of the greenlet (src/tree/block.rs).
// It is HOP_ACTIVE if the context may be resumed. If not, HOP returns the kind HOP_REFUSED
// (src/tree/message.rs). Both files are checked against these when they compile.
#ifdef GREENLET_FP_CONTROL
#define HOP_STATE   48
#else
#define HOP_STATE   40
#endif
#define HOP_ACTIVE  1
#define HOP_REFUSED 64
LAYOUT(state, HOP_STATE)
LAYOUT(active, HOP_ACTIVE)
LAYOUT(refused, HOP_REFUSED)

// GREENLET_THREAD_WORDS: this file has the two thread-local words at its end. They are for programs
// with `std` and without a feature for sanitizers.
#define WORD_RUNNING 0                  // the running context, or another value that the tree stores
#define WORD_HOT     8                  // see TAKE_HOT
LAYOUT(running, WORD_RUNNING)

// The control bits of MXCSR: rounding, masks, flush-to-zero, denormals-are-zero, and those that are
// reserved or the processor's own (AMD's misaligned mode is bit 17). The six low bits are sticky
// status, which no callee preserves.
#define MXCSR_CONTROL 0xffffffc0

    .intel_syntax noprefix

// ---------------------------------------------------------------------------------------
// SWITCH: suspend the caller, resume another. Compiled in line: build.rs takes the text of the
// macro, with those that it uses, and src/arch/x86_64.rs has it in an `asm!`.
//
// On entry
//   rdi      the caller's context
//   rsi      the context to resume, whose registers an earlier SWITCH stored or Rust prepared
//   rdx rcx  the message: word and kind
// When the caller is resumed, after the text
//   rdx rcx  the message, as the other side gave it
//   rbx rbp rsp, MXCSR control bits, x87 control word   as on entry
//   all others are undefined; the `asm!` declares them clobbered.
//
// HOP: switches if rdi is the thread's running context and the byte HOP_STATE of the context in rsi is
// HOP_ACTIVE. The context in rsi is then the running one. Otherwise HOP does nothing: after the text rdx
// and rsi are as on entry, and rcx is HOP_REFUSED. Both cases continue at the same place, because the
// caller tests the kind in any case.
//
// There is no ret, and every call returns as usual. So the processor's return-address predictor is not
// disturbed, and the frames around the switch return as predicted. Each place in a program that switches
// has a jump of its own, which is predicted by the usual target of that place.
//
// Nothing is written to a stack except by the call in THREAD_WORDS, which returns. So a signal may
// arrive anywhere. The unwind table of the function around the text is wrong between the load of rbx
// and the jump (3 instructions): an unwinder that a signal handler starts there finds wrong frames.

    // rax = the offset of the thread's words from fs. In a shared object this calls the dynamic
    // linker's resolver, which changes rax only ("Thread-Local Storage Descriptors for IA32 and
    // AMD64/EM64T", section "Descriptor Calls"). The resolver of glibc before 2.40 also changes vector
    // registers when it allocates (glibc bug 31372), so each `asm!` with this text declares them
    // clobbered. In an executable the linker replaces the call by two plain instructions. In neither
    // case does a shared object need static TLS.
    .macro THREAD_WORDS
    lea rax, [rip + SYM(words)@tlsdesc]
    call qword ptr [rax + SYM(words)@tlscall]
    .endm

    // Loads rsi from a thread-local word if the word is equal to it. The word holds the context that
    // many others switch back to. The branch is predicted, so the processor has the address early and
    // need not wait for the value in rsi, which may come from a stack that is not in the cache. So the
    // cache misses of many greenlets overlap. If the word is not equal to rsi, the caller's context is
    // stored in it for the next switch. The word cannot be stale: equal addresses are the same context.
    .macro TAKE_HOT
    mov r9, fs:[rax + WORD_HOT]
    cmp rsi, r9
    je 3f
    cmp rdi, r9
    je 4f
    mov fs:[rax + WORD_HOT], rdi
    jmp 4f
3:
    mov rsi, r9
4:
    .endm

    // Stores the registers in the context in rdi; rax has the resume address. The context can be
    // resumed from here on.
    .macro SAVE
#ifdef GREENLET_FP_CONTROL
    stmxcsr [rdi + CONTEXT_MXCSR]
    fnstcw [rdi + CONTEXT_X87CW]
#endif
    mov [rdi + CONTEXT_RBP], rbp
    mov [rdi + CONTEXT_RESUME], rax
    mov [rdi + CONTEXT_RSP], rsp
    mov [rdi + CONTEXT_RBX], rbx
    .endm

    // Jumps to `resume` if the control words of rsi differ from those of rdi. If they are equal they are
    // not loaded, because loading MXCSR takes tens of nanoseconds on some processors (Intel) if it changes
    // a sticky flag. Each field is loaded with the width of its store: a wider load would wait for both
    // stores to leave the store buffer.
    .macro COMPARE_CONTROL
#ifdef GREENLET_FP_CONTROL
    mov r8d, [rdi + CONTEXT_MXCSR]
    movzx r9d, word ptr [rdi + CONTEXT_X87CW]
    xor r8d, [rsi + CONTEXT_MXCSR]
    cmp r9w, [rsi + CONTEXT_X87CW]
    jne SYM(resume)
    test r8d, MXCSR_CONTROL
    jnz SYM(resume)
#endif
    .endm

    // Loads the registers of the context in rsi and jumps to its resume address.
    .macro LOAD
    mov rax, [rsi + CONTEXT_RESUME]
    mov rbx, [rsi + CONTEXT_RBX]
    mov rbp, [rsi + CONTEXT_RBP]
    mov rsp, [rsi + CONTEXT_RSP]
#if defined(__CET__) && (__CET__ & 1)
    notrack jmp rax                     // a resume address is no ENDBR64
#else
    jmp rax
#endif
    .endm

    .macro SWITCH
#ifdef GREENLET_THREAD_WORDS
    THREAD_WORDS
    TAKE_HOT
#endif
    lea rax, [rip + 2f]
    SAVE
    COMPARE_CONTROL
    LOAD
2:
    .endm

#ifdef GREENLET_THREAD_WORDS
    .macro HOP
    THREAD_WORDS
    mov r10, fs:[rax + WORD_RUNNING]
    cmp rdi, r10
    jne 5f
    cmp byte ptr [rsi + HOP_STATE], HOP_ACTIVE
    jne 5f
    mov rdi, r10                        // the same, and known earlier where rdi is off a cold stack
    TAKE_HOT
    mov fs:[rax + WORD_RUNNING], rsi
    lea rax, [rip + 2f]
    SAVE
    COMPARE_CONTROL
    LOAD
5:
    mov ecx, HOP_REFUSED
2:
    .endm
#endif

// ---------------------------------------------------------------------------------------
// The rest of this file is assembled by itself.

    // Unwind rules where rsi has the context to resume: the caller is the frame in which that context
    // is suspended.
    //   CFA  DW_CFA_def_cfa_expression (0x0f), 3 bytes:
    //          0x74 0x10   DW_OP_breg4 (rsi) + CONTEXT_RSP
    //          0x06        DW_OP_deref
    //   DW_CFA_expression (0x10), 2 bytes each, for where a register lies:
    //     rip (16)  0x74 0x08   DW_OP_breg4 (rsi) + CONTEXT_RESUME
    //     rbp (6)   0x74 0x00   DW_OP_breg4 (rsi) + CONTEXT_RBP
    //     rbx (3)   0x74 0x18   DW_OP_breg4 (rsi) + CONTEXT_RBX
    .macro CALLER_IS_RESUMED
    .cfi_escape 0x0f, 0x03, 0x74, CONTEXT_RSP, 0x06
    .cfi_escape 0x10, 16, 0x02, 0x74, CONTEXT_RESUME
    .cfi_escape 0x10, 6, 0x02, 0x74, CONTEXT_RBP
    .cfi_escape 0x10, 3, 0x02, 0x74, CONTEXT_RBX
    .endm

#ifdef GREENLET_FP_CONTROL
// ---------------------------------------------------------------------------------------
// resume: the second half of a switch where control words differ.
//
// Entered by a jump; on entry
//   rsi      the context to resume
//   rdx rcx  the message
// Left by a jump, as SWITCH is.

FUNCTION SYM(resume), 4
    .cfi_startproc simple
    SIGNAL_FRAME
    CALLER_IS_RESUMED
    ldmxcsr [rsi + CONTEXT_MXCSR]
    fldcw [rsi + CONTEXT_X87CW]
    LOAD
    .cfi_endproc
END_FUNCTION SYM(resume)
#endif

// ---------------------------------------------------------------------------------------
// entry: the routine at the bottom of every greenlet's stack. It is resumed, never called: the context of
// a new greenlet has `entry_pc` as its resume address.
//
// On entry, from that context and from the switch
//   rbx      argument
//   rbp      address of the word that holds the address of the parent's context
//   rdx rcx  the first message: word and kind
//   rsp      a multiple of 16, and at it
//              0   start: extern "C" fn(argument, word, kind, *mut Departure)
// `start` fills in the Departure (which context is resumed with which message) and returns when the
// greenlet has finished. Its stack is never used again.
//
// Unwinding: the caller of `entry` is the frame in which the parent waits.
//   CFA  DW_CFA_def_cfa_expression (0x0f), 6 bytes:
//          0x76 0x00   DW_OP_breg6 (rbp) + 0    the parent link's address (gdb rejects DW_OP_reg6)
//          0x06        DW_OP_deref              the parent's context
//          0x23 0x10   DW_OP_plus_uconst 16     where its rsp lies (CONTEXT_RSP)
//          0x06        DW_OP_deref
//   DW_CFA_expression (0x10), 5 bytes each, for where a register lies:
//     rip (16)  0x76 0x00 0x06 0x23 0x08   the parent's context + CONTEXT_RESUME
//     rbp (6)   0x76 0x00 0x06 0x23 0x00   the parent's context + CONTEXT_RBP
//     rbx (3)   0x76 0x00 0x06 0x23 0x18   the parent's context + CONTEXT_RBX
//   r12-r15 are undefined (DW_CFA_undefined): the parent's frame has saved its own.
// It is marked as a signal frame, because gdb would reject a parent whose stack lies below its child's.

FUNCTION SYM(entry), 4
    .cfi_startproc simple
    SIGNAL_FRAME
    .cfi_escape 0x0f, 0x06, 0x76, 0x00, 0x06, 0x23, CONTEXT_RSP, 0x06
    .cfi_escape 0x10, 16, 0x05, 0x76, 0x00, 0x06, 0x23, CONTEXT_RESUME
    .cfi_escape 0x10, 6, 0x05, 0x76, 0x00, 0x06, 0x23, CONTEXT_RBP
    .cfi_escape 0x10, 3, 0x05, 0x76, 0x00, 0x06, 0x23, CONTEXT_RBX
    .cfi_undefined r12
    .cfi_undefined r13
    .cfi_undefined r14
    .cfi_undefined r15
    nop                                 // unwinders look up pc - 1: keep that in here
LABEL SYM(entry_pc)
    mov rax, [rsp]                      // start
    sub rsp, 32                         // room for the Departure (24 bytes) and two control words
    mov rdi, rbx                        // argument
    mov rsi, rdx                        // word
    mov rdx, rcx                        // kind
    mov rcx, rsp                        // departure
    call rax
    mov rsi, [rsp]                      // Departure.to
    CALLER_IS_RESUMED
    mov rdx, [rsp + 8]                  // Departure.word
    mov rcx, [rsp + 16]                 // Departure.kind
#ifdef GREENLET_FP_CONTROL
    stmxcsr [rsp + 24]
    fnstcw [rsp + 28]
    lea rdi, [rsp + 24 - CONTEXT_MXCSR] // the two where a context has them
#endif
    COMPARE_CONTROL
    LOAD
    .cfi_endproc
END_FUNCTION SYM(entry)

#ifdef GREENLET_THREAD_WORDS
// ---------------------------------------------------------------------------------------
// words: the two thread-local words, WORD_*.

    .section .tbss, "awT", %nobits
    .hidden SYM(words)
    .globl SYM(words)
    .type SYM(words), %object
    .size SYM(words), 16
    .p2align 4
SYM(words):
    .zero 16
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
