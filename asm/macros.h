// What the switch cores share: symbol names, sections, notes.
//
// Assumes: GREENLET_PREFIX is defined by build.rs as greenlet_<version>_, so that two
// versions of the crate link into one binary; the target has ELF, Mach-O (macOS) or PE
// (Windows); the assembler is GNU as or LLVM's.

#if !defined(__ELF__) && !defined(__MACH__) && !defined(_WIN32)
#error "greenlet's switch cores are for ELF, Mach-O and PE targets"
#endif

#define GLUE_(a, b, c) a##b##c
#define GLUE(a, b, c) GLUE_(a, b, c)

// The linker's name of a routine. In Mach-O those of C begin with an underscore.
#define SYM(name) GLUE(__USER_LABEL_PREFIX__, GREENLET_PREFIX, name)

#ifdef GREENLET_LAYOUT
// build.rs preprocesses each core once with this defined and reads the lines that LAYOUT
// leaves behind (names in lower case: no macro may have them), so that the Rust `Registers` is
// checked against the same numbers.
#define LAYOUT(name, value) greenlet_layout name value
#else
#define LAYOUT(name, value)
#endif

#ifdef __ELF__

// One section a routine, so that the linker can drop what is not used; hidden, because
// nothing outside the final link may call it.
.macro FUNCTION name, align
    .section .text.\name, "ax", %progbits
    .hidden \name
    .type \name, %function
    .globl \name
    .p2align \align
\name:
.endm

.macro END_FUNCTION name
    .size \name, . - \name
.endm

// A label inside a routine.
.macro LABEL name
    .globl \name
    .hidden \name
\name:
.endm

// Last line of every file: this object needs no executable stack. (ELF gABI leaves the note
// to the platform; GNU ld makes the whole program's stack executable if one object lacks it.)
.macro NO_EXECUTABLE_STACK
    .section .note.GNU-stack, "", %progbits
.endm

// `entry` is one for unwinders, see x86_64.S.
#define SIGNAL_FRAME .cfi_signal_frame

#elif defined(_WIN32)

// PE. What a library does not export is not seen outside it. An unwind table is written out.
.macro FUNCTION name, align
    .section .text$\name, "xr"
    .globl \name
    .def \name
    .scl 2
    .type 32
    .endef
    .p2align \align
\name:
.endm

.macro END_FUNCTION name
.endm

.macro LABEL name
    .globl \name
\name:
.endm

#else

// Mach-O. What ELF calls hidden is private external there. The linker keeps or drops the routines
// of a file together.
.macro FUNCTION name, align
    .section __TEXT,__text,regular,pure_instructions
    .private_extern \name
    .globl \name
    .p2align \align
\name:
.endm

.macro END_FUNCTION name
.endm

.macro LABEL name
    .private_extern \name
    .globl \name
    .alt_entry \name
\name:
.endm

// No stack is executable there.
.macro NO_EXECUTABLE_STACK
.endm

// The mark is for gdb, which debugs no programs there.
#define SIGNAL_FRAME

#endif
