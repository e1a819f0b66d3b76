// Switch core for x86_64, the ABI of Windows.
//
// ABI: "x64 calling convention" and "x64 exception handling" (Microsoft Learn, C++ documentation):
//      rbx, rbp, rdi, rsi, r12-r15, rsp, xmm6-xmm15, the control bits of MXCSR and the x87 control
//      word belong to the caller. Direction flag and x87 mode are as at any call.
//
// What x86_64.S says of control words (GREENLET_FP_CONTROL), of keeping the file in step with itself
// and of a switch in line holds here too. What differs:
//
// * Windows has words for the stack of a thread in the thread's environment block (gs), and looks at
//   them: when a page of a guard is touched, when a large frame is probed, when an exception looks
//   for its handler. They are a greenlet's own, so its context has them.
// * Unwinders read tables of Windows' format, not DWARF.
//
// Registers of a suspended greenlet. They lie in its context, not on its stack:
//
//   offset  size  holds
//        0     8  rbp
//        8     8  resume          } rip and rsp, as far from each other as in a "machine frame"
//       16     8  rbx             } (UWOP_PUSH_MACHFRAME), which the unwind table of `entry` takes
//       24     8  exception_list  } gs:[0x0], ExceptionList: Wine's (Windows uses it on x86 only)
//       32     8  rsp             } these four for
//       40     8  stack_base      gs:[0x8], StackBase: the address just above the stack
//       48     8  stack_limit     gs:[0x10], StackLimit: the lowest address that is there
//       56     8  deallocation    gs:[0x1478], DeallocationStack: the lowest address that is the stack's
//       64     8  guaranteed      gs:[0x1748], GuaranteedStackBytes (4): room for handlers of an overflow
//       72     4  MXCSR            } GREENLET_FP_CONTROL
//       76     4  x87 control word } (2 bytes of it)
//       72 or 80  size
//
// The offsets from gs are those of the TEB (winternl.h, and ReactOS' and Wine's headers, have them):
// NT_TIB's first three are documented; SwitchToFiber of kernel32 moves the same five.
//
// Registers of the caller that are left to the compiler: rdi, rsi, r12-r15, xmm6-xmm15. The `asm!`
// that has SWITCH in it declares them clobbered.

#include "macros.h"

#define CONTEXT_RBP             0
#define CONTEXT_RESUME          8
#define CONTEXT_RBX             16
#define CONTEXT_EXCEPTION_LIST  24
#define CONTEXT_RSP             32
#define CONTEXT_STACK_BASE      40
#define CONTEXT_STACK_LIMIT     48
#define CONTEXT_DEALLOCATION    56
#define CONTEXT_GUARANTEED      64
#ifdef GREENLET_FP_CONTROL
#define CONTEXT_MXCSR           72
#define CONTEXT_X87CW           76
#define CONTEXT_SIZE            80
#else
#define CONTEXT_SIZE            72
#endif

LAYOUT(frame_pointer, CONTEXT_RBP)
LAYOUT(resume, CONTEXT_RESUME)
LAYOUT(stack_pointer, CONTEXT_RSP)
LAYOUT(argument, CONTEXT_RBX)
LAYOUT(exception_list, CONTEXT_EXCEPTION_LIST)
LAYOUT(stack_base, CONTEXT_STACK_BASE)
LAYOUT(stack_limit, CONTEXT_STACK_LIMIT)
LAYOUT(deallocation, CONTEXT_DEALLOCATION)
LAYOUT(guaranteed, CONTEXT_GUARANTEED)
#ifdef GREENLET_FP_CONTROL
LAYOUT(mxcsr, CONTEXT_MXCSR)
LAYOUT(x87cw, CONTEXT_X87CW)
#endif
LAYOUT(size, CONTEXT_SIZE)

// Where the thread has its words, from gs.
#define TEB_EXCEPTION_LIST  0x0
#define TEB_STACK_BASE      0x8
#define TEB_STACK_LIMIT     0x10
#define TEB_DEALLOCATION    0x1478
#define TEB_GUARANTEED      0x1748

// The control bits of MXCSR, see x86_64.S.
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
//   rbx rbp rsp, the thread's words, MXCSR control bits, x87 control word   as on entry
//   all others are undefined; the `asm!` declares them clobbered.
//
// The thread's words are the other context's a few instructions before rsp is. Nothing can look at
// them meanwhile but a debugger: Windows interrupts no thread to run something on its stack, unless
// that has asked for it in a wait (or by QueueUserAPC2 with its special flag; see the guide).

    // The registers go to the context in rdi; rax has the resume address. From here on it can be
    // resumed.
    .macro SAVE
#ifdef GREENLET_FP_CONTROL
    stmxcsr [rdi + CONTEXT_MXCSR]
    fnstcw [rdi + CONTEXT_X87CW]
#endif
    mov r8, gs:[TEB_EXCEPTION_LIST]
    mov r9, gs:[TEB_STACK_BASE]
    mov r10, gs:[TEB_STACK_LIMIT]
    mov r11, gs:[TEB_DEALLOCATION]
    mov [rdi + CONTEXT_RBP], rbp
    mov [rdi + CONTEXT_RESUME], rax
    mov [rdi + CONTEXT_RBX], rbx
    mov [rdi + CONTEXT_RSP], rsp
    mov eax, gs:[TEB_GUARANTEED]
    mov [rdi + CONTEXT_EXCEPTION_LIST], r8
    mov [rdi + CONTEXT_STACK_BASE], r9
    mov [rdi + CONTEXT_STACK_LIMIT], r10
    mov [rdi + CONTEXT_DEALLOCATION], r11
    mov [rdi + CONTEXT_GUARANTEED], eax
    .endm

    // Goes on in `resume` if control words differ from those stored at rdi; see x86_64.S.
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

    // The registers of the context in rsi.
    .macro LOAD
    mov r8, [rsi + CONTEXT_EXCEPTION_LIST]
    mov r9, [rsi + CONTEXT_STACK_BASE]
    mov r10, [rsi + CONTEXT_STACK_LIMIT]
    mov r11, [rsi + CONTEXT_DEALLOCATION]
    mov eax, [rsi + CONTEXT_GUARANTEED]
    mov gs:[TEB_EXCEPTION_LIST], r8
    mov gs:[TEB_STACK_BASE], r9
    mov gs:[TEB_STACK_LIMIT], r10
    mov gs:[TEB_DEALLOCATION], r11
    mov gs:[TEB_GUARANTEED], eax
    mov rax, [rsi + CONTEXT_RESUME]
    mov rbx, [rsi + CONTEXT_RBX]
    mov rbp, [rsi + CONTEXT_RBP]
    mov rsp, [rsi + CONTEXT_RSP]
    jmp rax
    .endm

    .macro SWITCH
    lea rax, [rip + 2f]
    SAVE
    COMPARE_CONTROL
    LOAD
2:
    .endm

// ---------------------------------------------------------------------------------------
// What follows is assembled on its own.

#ifdef GREENLET_FP_CONTROL
// ---------------------------------------------------------------------------------------
// resume: the second half of a switch where control words differ.
//
// Entered by a jump; on entry
//   rsi      the context to resume
//   rdx rcx  the message
// Left by a jump, as SWITCH is. Nothing unwinds from here: there is no table.

FUNCTION SYM(resume), 4
    ldmxcsr [rsi + CONTEXT_MXCSR]
    fldcw [rsi + CONTEXT_X87CW]
    LOAD
END_FUNCTION SYM(resume)
#endif

// ---------------------------------------------------------------------------------------
// entry: the bottom of every greenlet's stack. Resumed, never called: a new greenlet's context
// names `entry_pc` as its resume address.
//
// On entry, out of that context and from the switch
//   rbx      argument
//   rbp      address of the parent link: there lies the address of the parent's context
//   rdx rcx  the first message: word and kind
//   rsp      a multiple of 16, and at it
//              0   start: extern "C" fn(argument, word, kind, *mut Departure)
// `start` returns when the greenlet is finished and has then filled in the Departure: which context
// is resumed, with what. Its stack is never used again.

FUNCTION SYM(entry), 4
    nop                                 // unwinders may look up pc - 1: keep that in here
LABEL SYM(entry_pc)
    mov rax, [rsp]                      // start
    sub rsp, 64                         // from rsp up: 32 bytes that are the callee's, the Departure
                                        // (24), two control words
    mov r8, rcx                         // kind
    mov rcx, rbx                        // argument; the word is in rdx
    lea r9, [rsp + 32]                  // departure
    call rax
    mov rsi, [rsp + 32]                 // Departure.to
    mov rdx, [rsp + 40]                 // Departure.word
    mov rcx, [rsp + 48]                 // Departure.kind
#ifdef GREENLET_FP_CONTROL
    stmxcsr [rsp + 56]
    fnstcw [rsp + 60]
    lea rdi, [rsp + 56 - CONTEXT_MXCSR] // the two where a context has them
#endif
    COMPARE_CONTROL
    LOAD
entry_end:
END_FUNCTION SYM(entry)

// Unwinding: the caller of `entry` is the frame in which the parent waits. Of that frame rip, rsp and
// rbp are restored, by which its own table finds all else; no exception comes this far to be caught.
//
// An UNWIND_INFO ("x64 exception handling"): version 1, no prologue, 5 slots of codes, frame register
// rbp. An unwinder does the codes in this order. FP is rbp as `entry` has it: the link's address.

    .section .xdata, "dr"
    .p2align 2
unwind_info:
    .byte 1, 0, 5, 5
    .byte 0, 0x03                       // UWOP_SET_FPREG           rsp = FP
    .byte 0, 0x44, 0, 0                 // UWOP_SAVE_NONVOL rsp, 0  rsp = [FP + 0]: the parent's context
    .byte 0, 0x50                       // UWOP_PUSH_NONVOL rbp     rbp = [rsp] (CONTEXT_RBP); rsp += 8
    .byte 0, 0x0a                       // UWOP_PUSH_MACHFRAME 0    rip = [rsp] (CONTEXT_RESUME),
                                        //                          rsp = [rsp + 24] (CONTEXT_RSP)
    .byte 0, 0                          // the number of slots is even

#if CONTEXT_RBP != 0 || CONTEXT_RESUME != 8 || CONTEXT_RSP != CONTEXT_RESUME + 24
#error "the unwind table is for another layout"
#endif

    .section .pdata, "dr"
    .p2align 2
    .rva SYM(entry)
    .rva entry_end
    .rva unwind_info
