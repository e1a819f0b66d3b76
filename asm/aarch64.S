// Switch core for aarch64, AAPCS64. As x86_64.S, which explains what the four have in common;
// the comments here are on what differs.
//
// ABI: "Procedure Call Standard for the Arm 64-bit Architecture",
//      sections 6.1.1 "General-purpose Registers" (x19-x29, sp belong to the caller) and
//      6.1.2 "SIMD and Floating-Point Registers" (so do the low 64 bits of v8-v15).
//      FPCR is "a global register" there, which only "specific support functions that affect
//      the global state of the application" modify: a callee does not restore it, and neither
//      does this core. FPSR is status only. x18 is the platform's and is never touched.
//
// Return addresses are not signed here: pointer authentication keys may differ between
// threads, and unwinders read the frame's resume address as it is.
//
// Assumes nothing but that ABI. This file must be kept in step with itself: the frame table,
// FRAME_*, the stores and loads, and the CFI of both routines. src/arch/aarch64.rs is checked
// against FRAME_* when it compiles.
//
// Frame of a suspended greenlet; its address is the saved stack pointer:
//
//   offset  size  holds
//        0     8  x29      } together a frame record, as the frame-pointer
//        8     8  resume   } chain expects it: {previous x29, return address}
//       16     8  x19
//       24     8  x20
//       32     8  x21
//       40     8  x22
//       48     8  x23
//       56     8  x24
//       64     8  x25
//       72     8  x26
//       80     8  x27
//       88     8  x28
//       96     8  d8
//      104     8  d9
//      112     8  d10
//      120     8  d11
//      128     8  d12
//      136     8  d13
//      144     8  d14
//      152     8  d15
//      160        stack pointer as it was, and will be, at the switch

#include "macros.h"

#define FRAME_X29    0
#define FRAME_RESUME 8
#define FRAME_X19    16
#define FRAME_X20    24
#define FRAME_X21    32
#define FRAME_X22    40
#define FRAME_X23    48
#define FRAME_X24    56
#define FRAME_X25    64
#define FRAME_X26    72
#define FRAME_X27    80
#define FRAME_X28    88
#define FRAME_D8     96
#define FRAME_D9     104
#define FRAME_D10    112
#define FRAME_D11    120
#define FRAME_D12    128
#define FRAME_D13    136
#define FRAME_D14    144
#define FRAME_D15    152
#define FRAME_SIZE   160

LAYOUT(frame_size, FRAME_SIZE)
LAYOUT(frame_pointer, FRAME_X29)
LAYOUT(resume, FRAME_RESUME)
LAYOUT(start, FRAME_X19)
LAYOUT(argument, FRAME_X20)

// Branch target identification, asked for by -mbranch-protection: a resume address is no
// landing pad, and none is needed where `ret` arrives. Slower, as returns are mispredicted;
// so it is not done where nothing is checked.
#if defined(__ARM_FEATURE_BTI_DEFAULT)
#define JUMP_TO_X30 ret
// Direct branches lead here, but the linker may put a veneer between, which ends in br x16.
#define LANDING_PAD hint #34            // bti c
#else
#define JUMP_TO_X30 br x30
#define LANDING_PAD
#endif

// ---------------------------------------------------------------------------------------
// switch: suspend the caller, resume another.
//
// Entered by a jump; on entry
//   x30      where the caller goes on when it is resumed
//   x0       where to store the caller's stack pointer
//   x1       stack pointer of the greenlet to resume, as stored by an earlier switch or made
//            by Frame::new
//   x2 x3    the message: word and kind
//   sp       the caller's
// Left by a jump to the resumed greenlet's resume address; then
//   x2 x3    the message, as the other side gave it
//   x19-x29 sp, low halves of v8-v15   as when it left
//   all others are undefined.

FUNCTION SYM(switch), 4
    .cfi_startproc                      // CFA is sp, and x30 says where the caller goes on
    LANDING_PAD
    sub sp, sp, #FRAME_SIZE             // before any store: nothing below sp is safe from signals
    .cfi_def_cfa_offset FRAME_SIZE
    stp x29, x30, [sp, #FRAME_X29]
    .cfi_rel_offset x29, FRAME_X29
    .cfi_rel_offset x30, FRAME_RESUME
    stp x19, x20, [sp, #FRAME_X19]
    .cfi_rel_offset x19, FRAME_X19
    .cfi_rel_offset x20, FRAME_X20
    stp x21, x22, [sp, #FRAME_X21]
    .cfi_rel_offset x21, FRAME_X21
    .cfi_rel_offset x22, FRAME_X22
    stp x23, x24, [sp, #FRAME_X23]
    .cfi_rel_offset x23, FRAME_X23
    .cfi_rel_offset x24, FRAME_X24
    stp x25, x26, [sp, #FRAME_X25]
    .cfi_rel_offset x25, FRAME_X25
    .cfi_rel_offset x26, FRAME_X26
    stp x27, x28, [sp, #FRAME_X27]
    .cfi_rel_offset x27, FRAME_X27
    .cfi_rel_offset x28, FRAME_X28
    stp d8, d9, [sp, #FRAME_D8]
    .cfi_rel_offset d8, FRAME_D8
    .cfi_rel_offset d9, FRAME_D9
    stp d10, d11, [sp, #FRAME_D10]
    .cfi_rel_offset d10, FRAME_D10
    .cfi_rel_offset d11, FRAME_D11
    stp d12, d13, [sp, #FRAME_D12]
    .cfi_rel_offset d12, FRAME_D12
    .cfi_rel_offset d13, FRAME_D13
    stp d14, d15, [sp, #FRAME_D14]
    .cfi_rel_offset d14, FRAME_D14
    .cfi_rel_offset d15, FRAME_D15
    mov x9, sp
    str x9, [x0]                        // from here on the caller can be resumed
    mov sp, x1                          // same frame layout: the CFI above still holds

    // The second half, also reached from the end of `entry`:
    //   sp  the frame to resume     x2 x3  the message
LABEL SYM(resume)
    LANDING_PAD
    ldp x29, x30, [sp, #FRAME_X29]
    .cfi_restore x29
    .cfi_restore x30
    ldp x19, x20, [sp, #FRAME_X19]
    .cfi_restore x19
    .cfi_restore x20
    ldp x21, x22, [sp, #FRAME_X21]
    .cfi_restore x21
    .cfi_restore x22
    ldp x23, x24, [sp, #FRAME_X23]
    .cfi_restore x23
    .cfi_restore x24
    ldp x25, x26, [sp, #FRAME_X25]
    .cfi_restore x25
    .cfi_restore x26
    ldp x27, x28, [sp, #FRAME_X27]
    .cfi_restore x27
    .cfi_restore x28
    ldp d8, d9, [sp, #FRAME_D8]
    .cfi_restore d8
    .cfi_restore d9
    ldp d10, d11, [sp, #FRAME_D10]
    .cfi_restore d10
    .cfi_restore d11
    ldp d12, d13, [sp, #FRAME_D12]
    .cfi_restore d12
    .cfi_restore d13
    ldp d14, d15, [sp, #FRAME_D14]
    .cfi_restore d14
    .cfi_restore d15
    add sp, sp, #FRAME_SIZE
    .cfi_def_cfa_offset 0
    JUMP_TO_X30
    .cfi_endproc
END_FUNCTION SYM(switch)

// ---------------------------------------------------------------------------------------
// entry: the bottom of every greenlet's stack. Resumed, never called: a new greenlet's frame
// names `entry_pc` as its resume address.
//
// On entry, out of that frame and from the switch
//   x19      start: extern "C" fn(argument, word, kind, *mut Departure)
//   x20      argument
//   x29      address of the parent link: there lies the address of the parent's context,
//            whose first word is the parent's saved stack pointer
//   x2 x3    the first message: word and kind
//   sp       top of the stack, a multiple of 16
// `start` returns when the greenlet is over and has then filled in the Departure: who is
// resumed, with what. Its stack is never used again.
//
// Unwinding: the caller of `entry` is the frame in which the parent waits. Its CFA is
//   DW_CFA_def_cfa_expression (0x0f), 7 bytes:
//     0x8d 0x00        DW_OP_breg29 (x29) + 0   the parent link's address
//     0x06             DW_OP_deref              the parent's context
//     0x06             DW_OP_deref              the parent's saved stack pointer: its frame
//     0x23 0xa0 0x01   DW_OP_plus_uconst 160    past the frame (FRAME_SIZE, as ULEB128)
// and its registers lie in that frame.

FUNCTION SYM(entry), 4
    .cfi_startproc simple
    .cfi_signal_frame
    .cfi_escape 0x0f, 0x07, 0x8d, 0x00, 0x06, 0x06, 0x23, (FRAME_SIZE & 0x7f) | 0x80, FRAME_SIZE >> 7
    .cfi_offset x29, FRAME_X29 - FRAME_SIZE
    .cfi_offset x30, FRAME_RESUME - FRAME_SIZE
    .cfi_offset x19, FRAME_X19 - FRAME_SIZE
    .cfi_offset x20, FRAME_X20 - FRAME_SIZE
    .cfi_offset x21, FRAME_X21 - FRAME_SIZE
    .cfi_offset x22, FRAME_X22 - FRAME_SIZE
    .cfi_offset x23, FRAME_X23 - FRAME_SIZE
    .cfi_offset x24, FRAME_X24 - FRAME_SIZE
    .cfi_offset x25, FRAME_X25 - FRAME_SIZE
    .cfi_offset x26, FRAME_X26 - FRAME_SIZE
    .cfi_offset x27, FRAME_X27 - FRAME_SIZE
    .cfi_offset x28, FRAME_X28 - FRAME_SIZE
    .cfi_offset d8, FRAME_D8 - FRAME_SIZE
    .cfi_offset d9, FRAME_D9 - FRAME_SIZE
    .cfi_offset d10, FRAME_D10 - FRAME_SIZE
    .cfi_offset d11, FRAME_D11 - FRAME_SIZE
    .cfi_offset d12, FRAME_D12 - FRAME_SIZE
    .cfi_offset d13, FRAME_D13 - FRAME_SIZE
    .cfi_offset d14, FRAME_D14 - FRAME_SIZE
    .cfi_offset d15, FRAME_D15 - FRAME_SIZE
    nop                                 // unwinders look up pc - 1: keep that in here
LABEL SYM(entry_pc)
    sub sp, sp, #32                     // room for the Departure (24 bytes), rounded up to 16
    mov x0, x20                         // argument
    mov x1, x2                          // word
    mov x2, x3                          // kind
    mov x3, sp                          // departure
    blr x19
    ldp x2, x3, [sp, #8]                // Departure.word, Departure.kind
    ldr x9, [sp]                        // Departure.to
    mov sp, x9                          // `resume`'s CFI needs its frame there
    b SYM(resume)
    .cfi_endproc
END_FUNCTION SYM(entry)

#if defined(__ARM_FEATURE_BTI_DEFAULT)
// GNU_PROPERTY_AARCH64_FEATURE_1_AND (0xc0000000): BTI (bit 0) only. Not PAC (bit 1), see
// above; never GCS (bit 2): a switch does not move the guarded control stack.
    .section .note.gnu.property, "a", %note
    .p2align 3
    .long 4                             // size of the name
    .long 16                            // size of the descriptor
    .long 5                             // NT_GNU_PROPERTY_TYPE_0
    .asciz "GNU"
    .long 0xc0000000
    .long 4                             // size of the property
    .long 1                             // BTI
    .long 0                             // padding to 8
#endif

NO_EXECUTABLE_STACK
