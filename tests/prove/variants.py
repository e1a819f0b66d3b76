"""The variants of the ABIs for the targets of the guide: compiler, flags, what the core must
preserve.

The flags are those that `cc` and build.rs pass; the core itself looks at the compiler's macros.
"""

import os
import subprocess
import tempfile

import abi
import guide
from core import Core, Hop
from image import Image

ASM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../asm")
PREFIX = "greenlet_0_0_0_"

# SWITCH, as build.rs extracts it for an `asm!`.
SITE = """
    .section .text.{symbol}, "ax", %progbits
    .p2align 4
    {before}
    .type {symbol}, %function
LABEL {symbol}
    {text}
END_FUNCTION {symbol}
"""


class Variant:
    """
    gnu       what the names of the tools begin with
    sleigh    the language's name in pypcode, of the least processor that the variant is for
    """

    def __init__(self, name, source, gnu, flags, abi, core, sleigh, thumb=False, text="SWITCH"):
        self.name, self.source, self.gnu, self.flags = name, source, gnu, flags.split()
        self.abi, self.core, self.sleigh, self.thumb, self.text = abi, core, sleigh, thumb, text

    def preprocessed(self):
        command = [
            self.gnu + "gcc",
            *self.flags,
            f"-DGREENLET_PREFIX={PREFIX}",
            "-E",
            "-P",
            os.path.join(ASM, self.source),
        ]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        sites = {"site": ""}
        if self.thumb:  # the text differs if its address is no multiple of 4
            sites["odd"] = "nop"
        for name, before in sites.items():
            text += SITE.format(symbol=PREFIX + name, before=before, text=self.text)
        return text

    def linker(self):
        return [self.gnu + "ld", *(["-melf32lriscv"] if self.name.startswith("riscv32") else [])]

    def image(self, text):
        """Assembles and links the core. Returns None if the assembler or the linker refuses it."""
        with tempfile.TemporaryDirectory() as work:
            source, core, program = (os.path.join(work, it) for it in ("core.s", "core.o", "core"))
            with open(source, "w") as file:
                file.write(text)
            assemble = [self.gnu + "gcc", *self.flags, "-c", source, "-o", core]
            link = [
                *self.linker(),
                "--entry=0",
                # An address whose half is not enough to compute all of it.
                "-Ttext=0x10000" if self.abi.word == 4 else "-Ttext-segment=0x3f00000000",
                core,
                "-o",
                program,
                *(["-shared"] if self.core.shared else []),
                *(f"--defsym=__aeabi_unwind_cpp_pr{number}=0" for number in (0, 1)),
            ]
            for command in (assemble, link):
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    self.refused = done.stderr
                    return None
            with open(program, "rb") as file:
                return Image(file.read())


def x86_64(fp_control, words="", ibt=False, hop=False):
    """words: whether the core has the thread's words, and how they are reached: "" (it has none),
    "words" (the linker makes an offset from fs of it) or "shared" (a descriptor is called)."""
    parts = ["hop" * hop, "fp-control" * fp_control, words, "ibt" * ibt]
    flags = [
        "-DGREENLET_FP_CONTROL" * fp_control,
        "-DGREENLET_THREAD_WORDS" * bool(words),
        "-fcf-protection=branch" if ibt else "-fcf-protection=none",
    ]
    offsets, size = guide.context("x86_64", control_words=fp_control)
    core = Core(
        *"RDI RSI RDX RCX RBX".split(),
        offsets,
        size,
        window=3,
        marks="ibt" * ibt,
        words=bool(words),
        shared=words == "shared",
        hop=Hop(state=size + 8, active=1, refused=64) if hop else None,
    )
    return Variant(
        "-".join(["x86_64", *filter(None, parts)]),
        "x86_64.S",
        "",
        " ".join(flags),
        abi.x86_64(fp_control),
        core,
        "x86:LE:64:default",
        text="HOP" if hop else "SWITCH",
    )


def aarch64(name, flags=""):
    core = Core(
        *"x0 x1 x2 x3 x19".split(),
        *guide.context("aarch64"),
        window=3,
        marks="bti" * ("-mbranch-protection" in flags),
    )
    return Variant(
        "aarch64" + name,
        "aarch64.S",
        "aarch64-linux-gnu-",
        flags,
        abi.aarch64(),
        core,
        "AARCH64:LE:64:v8A",
    )


def riscv(bits, name, floats, flags, gnu="riscv64-unknown-elf-"):
    core = Core(*"a0 a1 a2 a3 s1".split(), *guide.context(f"riscv{bits}"), window=4)
    return Variant(
        f"riscv{bits}-{name}",
        "riscv.S",
        gnu,
        flags,
        abi.riscv(bits // 8, floats),
        core,
        f"RISCV:LE:{bits}:RV{bits}GC",
    )


def arm(name, vfp, flags, sleigh, gnu="arm-none-eabi-", thumb=True):
    ehabi = "linux" in gnu
    core = Core(*"r0 r1 r2 r3 r6".split(), *guide.context("arm"), window=9, ehabi=ehabi)
    return Variant(
        "arm-" + name, "arm.S", gnu, flags, abi.arm(vfp), core, "ARM:LE:32:" + sleigh, thumb
    )


VARIANTS = [
    *(
        x86_64(fp_control, words, ibt, hop)
        for hop in (False, True)
        for words in (("words", "shared") if hop else ("", "words", "shared"))
        for fp_control in (False, True)
        for ibt in (False, True)
    ),
    aarch64(""),
    aarch64("-bti", "-mbranch-protection=bti"),
    aarch64("-bti-pac", "-mbranch-protection=standard"),
    riscv(64, "lp64d", 8, "", "riscv64-linux-gnu-"),
    riscv(64, "lp64d-without-c", 8, "-march=rv64g -mabi=lp64d", "riscv64-linux-gnu-"),
    riscv(64, "lp64f", 4, "-march=rv64imafc -mabi=lp64f"),
    riscv(64, "lp64", 0, "-march=rv64imac -mabi=lp64"),
    riscv(32, "ilp32d", 8, "-march=rv32gc -mabi=ilp32d"),
    riscv(32, "ilp32f", 4, "-march=rv32imafc -mabi=ilp32f"),
    riscv(32, "ilp32", 0, "-march=rv32imac -mabi=ilp32"),
    riscv(32, "ilp32-without-c", 0, "-march=rv32ima -mabi=ilp32"),
    arm("v5te", False, "-marm -march=armv5te", "v5t", "arm-linux-gnueabi-", thumb=False),
    arm(
        "v6-hf",
        True,
        "-marm -march=armv6+fp -mfloat-abi=hard",
        "v6",
        "arm-linux-gnueabihf-",
        thumb=False,
    ),
    arm(
        "v7-hf",
        True,
        "-marm -march=armv7-a+fp -mfloat-abi=hard",
        "v7",
        "arm-linux-gnueabihf-",
        thumb=False,
    ),
    arm(
        "v7-softfp",
        True,
        "-marm -march=armv7-a+fp -mfloat-abi=softfp",
        "v7",
        "arm-linux-gnueabi-",
        thumb=False,
    ),
    arm(
        "thumb2-hf",
        True,
        "-mthumb -march=armv7-a+fp -mfloat-abi=hard",
        "v7",
        "arm-linux-gnueabihf-",
    ),
    arm(
        "thumb2-soft", False, "-mthumb -march=armv7-a -mfloat-abi=soft", "v7", "arm-linux-gnueabi-"
    ),
    arm("cortex-m0", False, "-mthumb -mcpu=cortex-m0", "Cortex"),
    arm("cortex-m3", False, "-mthumb -mcpu=cortex-m3", "Cortex"),
    arm("cortex-m4f", True, "-mthumb -mcpu=cortex-m4 -mfloat-abi=hard", "Cortex"),
    arm("cortex-m23", False, "-mthumb -mcpu=cortex-m23", "v8-m"),
    arm("cortex-m33f", True, "-mthumb -mcpu=cortex-m33 -mfloat-abi=hard", "v8-m"),
]
