"""The registers of each ABI, transcribed from the ABI documents and not from the cores.

Sections, by title, because numbers change between releases:
    x86_64   System V Application Binary Interface, AMD64 Architecture Processor Supplement:
             3.2.1 "Registers", table "Register Usage"; 3.2.2 "The Stack Frame"
    aarch64  Procedure Call Standard for the Arm 64-bit Architecture (AAPCS64): 6.1.1
             "General-purpose Registers", 6.1.2 "SIMD and Floating-Point Registers",
             6.4.5.1 "Universal stack constraints"
    riscv    RISC-V ABIs Specification, "RISC-V Calling Conventions": "Integer Register
             Convention", "Floating-point Register Convention", "Integer Calling Convention"
    arm      Procedure Call Standard for the Arm Architecture (AAPCS32): 6.1.1 "Core registers",
             6.1.2.1 "VFP register usage conventions", 6.2.1.2 "Stack constraints at a public
             interface"

Register names are those of SLEIGH, which are those of the documents in upper case. A register that is
neither callee-saved nor caller-saved belongs to the thread: callees do not change it (fs, TPIDR, tp,
gp, x18; the rounding modes of FPCR, FPSCR and fcsr; the direction flag)."""

# SLEIGH's flags of both ARM architectures, and its intermediate values for them.
ARM_FLAGS = "NG ZR CY OV tmpNG tmpZR tmpCY tmpOV shift_carry".split()


def names(prefix, first, last):
    return [f"{prefix}{number}" for number in range(first, last + 1)]


class Abi:
    """word        size of an address, bytes
    sp fp pc    names of these registers; fp is that of frame records
    align       alignment of sp at a call
    kept        callee-saved registers
    changed     caller-saved registers
    arguments   the first four integer arguments
    link        the register in which a call puts the return address; None: on the stack
    dwarf       DWARF's register numbers ("ra": the return address register of the tables)
    """

    def __init__(self, **fields):
        self.__dict__.update(fields)


def x86_64(fp_control):
    numbers = "RAX RDX RCX RBX RSI RDI RBP RSP".split() + names("R", 8, 15)
    return Abi(
        name="x86_64",
        word=8,
        sp="RSP",
        fp="RBP",
        pc="RIP",
        align=16,
        link=None,
        kept=["RBX", "RBP", "RSP", *names("R", 12, 15)],  # "Register Usage"
        # 3.2.1: "The control bits of the MXCSR register are callee-saved (preserved across
        # calls), while the status bits are caller-saved"; "The x87 status word register is
        # caller-saved, whereas the x87 control word is callee-saved." Without fp-control they
        # are the thread's, as said in asm/README.md. All bits but the six status bits are kept:
        # bit 17 is AMD's misaligned exception mask.
        kept_bits={"MXCSR": 0xFFFFFFC0, "FPUControlWord": 0xFFFF} if fp_control else {},
        changed=[
            "RAX",
            "RCX",
            "RDX",
            "RSI",
            "RDI",
            *names("R", 8, 11),
            "CF",
            "PF",
            "AF",
            "ZF",
            "SF",
            "OF",
            "FPUStatusWord",
        ],
        arguments=["RDI", "RSI", "RDX", "RCX"],
        dwarf=dict(enumerate(numbers)),
    )


def aarch64():
    return Abi(
        name="aarch64",
        word=8,
        sp="sp",
        fp="x29",
        pc="pc",
        align=16,
        link="x30",
        kept=[*names("x", 19, 29), "sp", *names("d", 8, 15)],  # 6.1.2: only the low 64 bits
        kept_bits={},
        changed=[
            *names("x", 0, 17),
            "x30",
            *ARM_FLAGS,
            *names("z", 0, 31),
        ],
        arguments=names("x", 0, 3),
        dwarf={
            **dict(enumerate(names("x", 0, 30))),
            31: "sp",
            **{64 + number: f"d{number}" for number in range(32)},
        },
    )


def riscv(word, floats):
    """floats: the callee-saved bytes of a floating-point register (lp64d 8, lp64f 4)."""
    integers = [
        "zero",
        "ra",
        "sp",
        "gp",
        "tp",
        "t0",
        "t1",
        "t2",
        "s0",
        "s1",
        *names("a", 0, 7),
        *names("s", 2, 11),
        *names("t", 3, 6),
    ]
    doubles = [
        *names("ft", 0, 7),
        "fs0",
        "fs1",
        *names("fa", 0, 7),
        *names("fs", 2, 11),
        *names("ft", 8, 11),
    ]
    return Abi(
        name="riscv",
        word=word,
        sp="sp",
        fp="s0",
        pc="pc",
        align=16,
        link="ra",
        kept=[*names("s", 0, 11), "sp", *(names("fs", 0, 11) if floats else [])],
        kept_bits={},
        floats=floats,
        changed=[
            "ra",
            *names("t", 0, 6),
            *names("a", 0, 7),
            *names("ft", 0, 11),
            *names("fa", 0, 7),
            *(names("fs", 0, 11) if floats < 8 else []),
        ],
        arguments=names("a", 0, 3),
        dwarf={
            **{number: name for number, name in enumerate(integers) if number},
            **{32 + number: name for number, name in enumerate(doubles)},
        },
    )


def arm(vfp):
    return Abi(
        name="arm",
        word=4,
        sp="sp",
        fp="r11",
        pc="pc",
        align=8,
        link="lr",
        # 6.1.1: r9 is the platform's or a further variable register; preserved in both cases.
        kept=[*names("r", 4, 11), "sp", *(names("d", 8, 15) if vfp else [])],
        kept_bits={},
        changed=[
            *names("r", 0, 3),
            "r12",
            "lr",
            *ARM_FLAGS,
            "ISAModeSwitch",
            "TB",
            "mult_addr",
            "mult_dat8",
            "mult_dat16",
            *names("d", 0, 7),
            *names("d", 16, 31),
        ],
        arguments=names("r", 0, 3),
        dwarf={
            **dict(enumerate(names("r", 0, 12))),
            13: "sp",
            14: "lr",
            **({256 + number: f"d{number}" for number in range(32)} if vfp else {}),
        },
    )
