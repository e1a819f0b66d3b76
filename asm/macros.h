// What the four switch cores share: symbol names, sections, notes.
//
// Assumes: GREENLET_PREFIX is defined by build.rs as greenlet_<version>_, so that two
// versions of the crate link into one binary; the target has ELF; the assembler is GNU as or
// LLVM's.

#ifndef __ELF__
#error "greenlet's switch cores are for ELF targets: not for macOS or Windows"
#endif

#define GLUE_(a, b) a##b
#define GLUE(a, b) GLUE_(a, b)

// The linker's name of a routine.
#define SYM(name) GLUE(GREENLET_PREFIX, name)

#ifdef GREENLET_LAYOUT
// build.rs preprocesses each core once with this defined and reads the lines that LAYOUT
// leaves behind (names in lower case: no macro may have them), so that the Rust `Frame` is checked
// against the very numbers used here.
#define LAYOUT(name, value) greenlet_layout name value
#else
#define LAYOUT(name, value)
#endif

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
