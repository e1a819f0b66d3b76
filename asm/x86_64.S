// Switch core for x86_64, System V ABI.
//
// ABI: "System V Application Binary Interface, AMD64 Architecture Processor Supplement" (psABI),
//      section 3.2.1 "Registers" and table "Register Usage". Callee-saved are rbx, rbp, r12-r15,
//      rsp, the control bits of MXCSR and the x87 control word. At every call the direction flag
//      is clear and the x87 unit is not in MMX mode.
//
// Assumes: nothing but that ABI.
//
// Control words: with GREENLET_FP_CONTROL (feature `fp-control`) each greenlet has its own MXCSR
// control bits and x87 control word. Without it they belong to the thread, and the core does not
// access them. That is correct for programs that do not change them, as Rust requires.
//
// These must agree: the register table, CONTEXT_*, the stores of SAVE, the loads of LOAD, and the
// CFI of both routines. src/arch/ is checked against CONTEXT_* when it compiles.
//
// Registers of a suspended greenlet. They lie at the beginning of its context, not on its stack:
//
//   offset  size  holds
//        0     8  rbp      } a frame record, as frame-pointer unwinders
//        8     8  resume   } expect it: {previous rbp, return address}
//       16     8  rsp
//       24     8  rbx
//       32     4  MXCSR            } with GREENLET_FP_CONTROL
//       36     4  x87 control word } (its two bytes)
//       32 or 40  end (CONTEXT_SIZE); the parent link follows (src/raw.rs)
//
// Registers of the caller that are left to the compiler: r12-r15. The `asm!` that includes SWITCH
// declares them clobbered, so the function around it saves those that hold a live value (psABI
// 3.2.1: a function saves a callee-saved register before it changes it). rbx and rbp cannot be
// declared clobbered, because the compiler may need them to address the frame.

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

// HOP also reads the greenlet's state: one byte, behind the registers and the parent link
// (src/tree/block.rs). HOP_ACTIVE is the state of a context that may be resumed. In any other state
// HOP returns the kind HOP_REFUSED (src/tree/message.rs). Both files are checked against these
// constants when they compile.
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

// The two thread-local words, as offsets from `words`. build.rs defines GREENLET_THREAD_WORDS for
// ELF programs with `std` and without a feature for sanitizers.
#define WORD_RUNNING 0                  // the running context, or another value that the tree stores
#define WORD_HOT     8                  // see TAKE_HOT
LAYOUT(running, WORD_RUNNING)

// The control bits of MXCSR: rounding mode, exception masks, flush-to-zero, denormals-are-zero, and
// the reserved and vendor bits (bit 17: AMD's misaligned mode). The low six bits are sticky status
// flags, which no callee preserves.
#define MXCSR_CONTROL 0xffffffc0

    .intel_syntax noprefix

// ---------------------------------------------------------------------------------------
// SWITCH: suspends the caller and resumes another context. It is inlined: build.rs extracts the text
// of this macro and of the macros that it uses, and src/arch/x86_64.rs includes it in an `asm!`.
//
// On entry
//   rdi      the caller's context
//   rsi      the context to resume; an earlier SWITCH stored its registers, or Rust prepared them
//   rdx rcx  the message: word and kind
// Behind the text, when the caller is resumed
//   rdx rcx  the message of the context that resumed it
//   rbx rbp rsp, MXCSR control bits, x87 control word   as on entry
//   all others are undefined; the `asm!` declares them clobbered
//
// HOP: switches as SWITCH does if rdi is the thread's running context and the context in rsi has the
// state HOP_ACTIVE. It then stores rsi as the thread's running context. Otherwise it changes nothing:
// rdx and rsi are as on entry, and rcx is HOP_REFUSED. Both cases continue behind the text, because
// the caller tests the kind in any case.
//
// Return-address prediction: there is no ret, and every call returns to its own return address.
// So returns of the frames around a switch are predicted. Each SWITCH in a program has its own
// indirect jump, so the processor predicts its target by the history of that place.
//
// Signals: only the call of THREAD_WORDS writes to a stack, and it returns before anything is stored.
// So a signal may arrive at any instruction. Between the load of rbx and the jump (3 instructions)
// the unwind table of the surrounding function is wrong: an unwinder that a signal handler starts
// there finds wrong frames.

    // rax = the offset of the thread's words from fs.
    //
    // In a shared object this calls the dynamic linker's resolver, which changes no general register
    // but rax ("Thread-Local Storage Descriptors for IA32 and AMD64/EM64T", section "Descriptor
    // Calls"). The resolver of glibc before 2.40 also changes vector registers when it allocates
    // (glibc bug 31372), so each `asm!` with this text declares them clobbered. In an executable the
    // linker replaces the two instructions by a move and a nop. Neither case needs static TLS in a
    // shared object.
    .macro THREAD_WORDS
    lea rax, [rip + SYM(words)@tlsdesc]
    call qword ptr [rax + SYM(words)@tlscall]
    .endm

    // Replaces rsi by WORD_HOT if they are equal. Otherwise stores rdi in WORD_HOT, unless it is there.
    //
    // WORD_HOT holds a context to which many others switch back. The branch is predicted, so the
    // processor knows the target before it has loaded the value of rsi, which may come from a stack
    // that is not in the cache. So the cache misses of consecutive switches overlap. WORD_HOT cannot
    // be stale: equal addresses are the same context.
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

    // Stores the registers in the context in rdi, with rax as the resume address. From here on that
    // context can be resumed.
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

    // Jumps to `resume` if the control words of rsi differ from those of rdi. Equal ones are not
    // loaded, because a load of MXCSR that changes a sticky flag takes tens of nanoseconds on some
    // Intel processors. Each field is loaded with the width of its store: store-to-load forwarding
    // fails for a load that spans two stores.
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
    notrack jmp rax                     // there is no ENDBR64 at a resume address
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
    mov rdi, r10                        // equal, and available earlier if rdi is loaded from a cold stack
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
// The rest of this file is not inlined. `cc` assembles it.
//
// The unwind rules are DWARF expressions ("DWARF Debugging Information Format", version 5, sections
// 6.4.2 "Call Frame Instructions" and 2.5.1 "General Operations"). Registers have the numbers of the
// psABI, section 3.6.2 "DWARF Register Number Mapping": rbx 3, rsi 4, rbp 6, return address 16.

    // Unwind rules while rsi holds the context to resume: the caller is the frame in which that
    // context is suspended.
    //   CFA: DW_CFA_def_cfa_expression (0x0f), 3 bytes:
    //          0x74 0x10   DW_OP_breg4 (rsi) + CONTEXT_RSP
    //          0x06        DW_OP_deref
    //   Where a register lies: DW_CFA_expression (0x10), its number, 2 bytes:
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
// resume: loads the control words of the context to resume, then its registers. COMPARE_CONTROL jumps
// here; nothing calls it.
//
// On entry
//   rsi      the context to resume
//   rdx rcx  the message
// It leaves by the jump of LOAD, as SWITCH does.

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
// entry: the routine at the bottom of every greenlet's stack. It calls `start`, and resumes the
// context that `start` chooses. Nothing calls `entry`: the resume address of a new context is
// `entry_pc`.
//
// On entry
//   from the new context
//     rbx      argument
//     rbp      address of the parent link, which points to the parent's context
//     rsp      a multiple of 16; at it: start
//   from the switch
//     rdx rcx  the first message: word and kind
//
// start: extern "C" fn(argument, word, kind, *mut Departure). It returns when the greenlet has
// finished. The Departure (src/arch/mod.rs) then says which context is resumed with which message.
// The greenlet's stack is not used again.
//
// Stack while `start` runs, from its caller's rsp up
//   offset  size
//        0     8  Departure.to
//        8     8  Departure.word
//       16     8  Departure.kind
//       24     4  MXCSR            } with GREENLET_FP_CONTROL, when `start` has returned
//       28     4  x87 control word } (its two bytes)
//       32     8  start; rsp on entry points here
//
// Unwinding: the caller of `entry` is the frame in which the parent is suspended.
//   CFA: DW_CFA_def_cfa_expression (0x0f), 6 bytes:
//          0x76 0x00   DW_OP_breg6 (rbp) + 0    address of the parent link (gdb rejects DW_OP_reg6)
//          0x06        DW_OP_deref              the parent's context
//          0x23 0x10   DW_OP_plus_uconst 16     address of its rsp (CONTEXT_RSP)
//          0x06        DW_OP_deref
//   Where a register lies: DW_CFA_expression (0x10), its number, 5 bytes:
//     rip (16)  0x76 0x00 0x06 0x23 0x08   the parent's context + CONTEXT_RESUME
//     rbp (6)   0x76 0x00 0x06 0x23 0x00   the parent's context + CONTEXT_RBP
//     rbx (3)   0x76 0x00 0x06 0x23 0x18   the parent's context + CONTEXT_RBX
//   r12-r15: DW_CFA_undefined. The parent's frame has saved those that it needs.
// The frame is marked as a signal frame, because gdb otherwise rejects a caller whose stack lies below
// that of its callee.

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
    nop                                 // unwinders look up pc - 1, which must be in this table
LABEL SYM(entry_pc)
    mov rax, [rsp]                      // start
    sub rsp, 32                         // room for the Departure and two control words
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
    lea rdi, [rsp + 24 - CONTEXT_MXCSR] // COMPARE_CONTROL reads both at a context's offsets
#endif
    COMPARE_CONTROL
    LOAD
    .cfi_endproc
END_FUNCTION SYM(entry)

#ifdef GREENLET_THREAD_WORDS
// ---------------------------------------------------------------------------------------
// words: two words of each thread, see WORD_*.

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
// The property note that -fcf-protection asks for ("Linux Extensions to gABI", .note.gnu.property).
// Of GNU_PROPERTY_X86_FEATURE_1_AND (0xc0000002) it claims IBT (bit 0), because the only indirect
// jump above is notrack. It does not claim SHSTK (bit 1), because a switch does not change the shadow
// stack pointer: without the bit the loader leaves shadow stacks off.
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
