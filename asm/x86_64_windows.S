// Switch core for x86_64, the ABI of Windows. x86_64.S explains what the cores have in common, also the
// control words (GREENLET_FP_CONTROL); the comments here explain the differences.
//
// ABI: "x64 calling convention" and "x64 exception handling" (Microsoft Learn, C++ documentation).
//      Callee-saved are rbx, rbp, rdi, rsi, r12-r15, rsp, xmm6-xmm15, the control bits of MXCSR and
//      the x87 control word. At every call the direction flag is clear and the x87 unit is not in MMX
//      mode.
//
// Assumes: that ABI, and the offsets of five fields of the thread environment block (TEB), to which gs
// points. NT_TIB in winternl.h documents the first three; the headers of ReactOS and Wine have all
// five. SwitchToFiber of kernel32 exchanges the same five.
//
// Thread environment block: five of its fields describe the running stack. Windows reads them when a
// guard page is touched, when a function with a large frame probes the stack, and when an exception
// searches its handler. So they are saved and loaded with the registers.
//
// These must agree: the register table, CONTEXT_*, the stores of SAVE, the loads of LOAD, and the
// unwind table of `entry`. src/arch/ is checked against CONTEXT_* when it compiles.
//
// Registers of a suspended greenlet. They lie at the beginning of its context, not on its stack:
//
//   offset  size  holds
//        0     8  rbp
//        8     8  resume          } rip and rsp, as far apart as in the machine frame of
//       16     8  rbx             } UWOP_PUSH_MACHFRAME in the unwind table of `entry`
//       24     8  exception_list  } gs:[0x0], ExceptionList: used by Wine (by Windows on x86 only)
//       32     8  rsp             }
//       40     8  stack_base      gs:[0x8], StackBase: the address just above the stack
//       48     8  stack_limit     gs:[0x10], StackLimit: the lowest committed address
//       56     8  deallocation    gs:[0x1478], DeallocationStack: the lowest reserved address
//       64     8  guaranteed      gs:[0x1748], GuaranteedStackBytes (4): room for overflow handlers
//       72     4  MXCSR            } with GREENLET_FP_CONTROL
//       76     4  x87 control word } (its two bytes)
//       72 or 80  end (CONTEXT_SIZE); the parent link follows (src/raw.rs)
//
// Registers of the caller that are left to the compiler: rdi, rsi, r12-r15, xmm6-xmm15. The `asm!` that
// includes SWITCH declares them clobbered, so the function around it saves those that hold a live value.

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

// Offsets in the TEB, from gs.
#define TEB_EXCEPTION_LIST  0x0
#define TEB_STACK_BASE      0x8
#define TEB_STACK_LIMIT     0x10
#define TEB_DEALLOCATION    0x1478
#define TEB_GUARANTEED      0x1748

// The control bits of MXCSR; x86_64.S lists them.
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
//   rbx rbp rsp, TEB fields, MXCSR control bits, x87 control word   as on entry
//   all others are undefined; the `asm!` declares them clobbered
//
// Interruptions: the TEB fields change a few instructions before rsp does. Only a debugger can see that,
// because Windows runs nothing on the stack of a thread that is not in an alertable wait. Special user
// APCs (QueueUserAPC2) are the exception; the guide's chapter `targets` excludes them.

    // Stores the registers and the TEB fields in the context in rdi, with rax as the resume address.
    // From here on that context can be resumed.
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

    // Jumps to `resume` if the control words of rsi differ from those of rdi; x86_64.S says why.
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

    // Loads the TEB fields and the registers of the context in rsi and jumps to its resume address.
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
// The rest of this file is not inlined. `cc` assembles it.

#ifdef GREENLET_FP_CONTROL
// ---------------------------------------------------------------------------------------
// resume: loads the control words of the context to resume, then its registers. COMPARE_CONTROL jumps
// here; nothing calls it.
//
// On entry
//   rsi      the context to resume
//   rdx rcx  the message
// It leaves by the jump of LOAD, as SWITCH does. It has no unwind table, because nothing unwinds from
// here.

FUNCTION SYM(resume), 4
    ldmxcsr [rsi + CONTEXT_MXCSR]
    fldcw [rsi + CONTEXT_X87CW]
    LOAD
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
//        0    32  home space of the register arguments, which `start` may overwrite
//       32     8  Departure.to
//       40     8  Departure.word
//       48     8  Departure.kind
//       56     4  MXCSR            } with GREENLET_FP_CONTROL, when `start` has returned
//       60     4  x87 control word } (its two bytes)
//       64     8  start; rsp on entry points here

FUNCTION SYM(entry), 4
    nop                                 // unwinders may look up pc - 1, which must be in this table
LABEL SYM(entry_pc)
    mov rax, [rsp]                      // start
    sub rsp, 64                         // room for the home space, the Departure, two control words
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
    lea rdi, [rsp + 56 - CONTEXT_MXCSR] // COMPARE_CONTROL reads both at a context's offsets
#endif
    COMPARE_CONTROL
    LOAD
entry_end:
END_FUNCTION SYM(entry)

// Unwinding: the caller of `entry` is the frame in which the parent is suspended. The table restores its
// rip, rsp and rbp; the parent's own table finds the other registers from these. No exception is caught
// this far up.
//
// UNWIND_INFO ("x64 exception handling"): version 1, no prologue, 5 slots of codes, frame register rbp.
// An unwinder applies the codes in this order. FP is rbp as `entry` has it: the address of the parent
// link.

    .section .xdata, "dr"
    .p2align 2
unwind_info:
    .byte 1, 0, 5, 5
    .byte 0, 0x03                       // UWOP_SET_FPREG           rsp = FP
    .byte 0, 0x44, 0, 0                 // UWOP_SAVE_NONVOL rsp, 0  rsp = [FP + 0]: the parent's context
    .byte 0, 0x50                       // UWOP_PUSH_NONVOL rbp     rbp = [rsp] (CONTEXT_RBP); rsp += 8
    .byte 0, 0x0a                       // UWOP_PUSH_MACHFRAME 0    rip = [rsp] (CONTEXT_RESUME),
                                        //                          rsp = [rsp + 24] (CONTEXT_RSP)
    .byte 0, 0                          // padding to an even number of slots

#if CONTEXT_RBP != 0 || CONTEXT_RESUME != 8 || CONTEXT_RSP != CONTEXT_RESUME + 24
#error "the unwind table is for another layout"
#endif

    .section .pdata, "dr"
    .p2align 2
    .rva SYM(entry)
    .rva entry_end
    .rva unwind_info
