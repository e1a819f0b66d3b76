// What the four switch cores share: symbol names, sections, notes.
//
// Assumes: GREENLET_PREFIX is defined by build.rs as greenlet_<version>_, so that two
// versions of the crate link into one binary; the assembler is GNU as or LLVM's.

#define GLUE_(a, b) a##b
#define GLUE(a, b) GLUE_(a, b)

// The linker's name of a routine: Mach-O puts an underscore in front, ELF nothing.
#define SYM(name) GLUE(__USER_LABEL_PREFIX__, GLUE(GREENLET_PREFIX, name))

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
#ifdef __ELF__
    .section .text.\name, "ax", %progbits
    .hidden \name
    .type \name, %function
#else
    .text
    .private_extern \name
#endif
    .globl \name
    .p2align \align
\name:
.endm

.macro END_FUNCTION name
#ifdef __ELF__
    .size \name, . - \name
#endif
.endm

// A label inside a routine. Mach-O: a linker that splits sections at symbols keeps it there,
// and LLVM allows it amid CFI, only as an alternative entry.
.macro LABEL name
    .globl \name
#ifdef __ELF__
    .hidden \name
#else
    .private_extern \name
    .alt_entry \name
#endif
\name:
.endm

// Last line of every file: this object needs no executable stack. (ELF gABI leaves the note
// to the platform; GNU ld makes the whole program's stack executable if one object lacks it.)
.macro NO_EXECUTABLE_STACK
#ifdef __ELF__
    .section .note.GNU-stack, "", %progbits
#endif
.endm
