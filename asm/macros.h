// What the switch cores share, for ELF, Mach-O (macOS) and PE (Windows): symbol names, sections, notes.
//
// Assumes: build.rs defines GREENLET_PREFIX as greenlet_<version>_, so that two versions of the crate
// link into one binary. The assembler is GNU as or LLVM's.

#if !defined(__ELF__) && !defined(__MACH__) && !defined(_WIN32)
#error "greenlet's switch cores are for ELF, Mach-O and PE targets"
#endif

#define GLUE_(a, b, c) a##b##c
#define GLUE(a, b, c) GLUE_(a, b, c)

// The linker's name of a routine. In Mach-O, names of C begin with an underscore.
#define SYM(name) GLUE(__USER_LABEL_PREFIX__, GREENLET_PREFIX, name)

#ifdef GREENLET_LAYOUT
// build.rs preprocesses each core once with GREENLET_LAYOUT and reads the lines that LAYOUT expands to.
// Rust checks `Registers` against these numbers. The names are in lower case, because no macro has
// such a name.
#define LAYOUT(name, value) greenlet_layout name value
#else
#define LAYOUT(name, value)
#endif

#ifdef __ELF__

// Begins a routine in a section of its own, so that the linker can drop unused routines. It is hidden:
// nothing outside the final link can call it.
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

// Defines a label inside a routine.
.macro LABEL name
    .globl \name
    .hidden \name
\name:
.endm

// Declares that this object needs no executable stack. It is the last line of every file. GNU ld makes
// the program's stack executable if one object lacks the note.
.macro NO_EXECUTABLE_STACK
    .section .note.GNU-stack, "", %progbits
.endm

// Marks `entry` as a signal frame; x86_64.S says why.
#define SIGNAL_FRAME .cfi_signal_frame

#elif defined(_WIN32)

// PE. Symbols that a library does not export are not visible outside it. x86_64_windows.S writes its
// unwind table itself.
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

// Mach-O. Private external is what ELF calls hidden. The linker keeps or drops all routines of a file
// together.
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

// Stacks are not executable on macOS.
.macro NO_EXECUTABLE_STACK
.endm

// The mark is for gdb, which does not debug Mach-O programs.
#define SIGNAL_FRAME

#endif
