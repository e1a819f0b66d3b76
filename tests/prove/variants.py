"""The variants of the ABIs that a target of the README can ask for: compiler, flags, promises.

`cc` and build.rs give the same flags; the core decides by the compiler's macros what it is.
"""

import os
import subprocess
import tempfile

import abi
from places import Contexts
from image import Image

ASM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../asm")
PREFIX = "greenlet_0_0_0_"

# SWITCH, as build.rs hands it to an `asm!`.
SITE = """
FUNCTION PREFIXsite, 4
    SWITCH
END_FUNCTION PREFIXsite
"""


class Variant:
    """
    gnu       what the names of the tools begin with
    sleigh    the language's name in pypcode, of the least processor that the variant is for
    """

    def __init__(self, name, source, gnu, flags, abi, places, sleigh, thumb=False, text="SWITCH"):
        self.name, self.source, self.gnu, self.flags = name, source, gnu, flags.split()
        self.abi, self.places, self.sleigh, self.thumb, self.text = abi, places, sleigh, thumb, text

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
        return text + SITE.replace("PREFIX", PREFIX).replace("SWITCH", self.text)

    def image(self, text):
        """What the assembler and the linker make of it; None if they refuse."""
        with tempfile.TemporaryDirectory() as work:
            source, core, program = (os.path.join(work, it) for it in ("core.s", "core.o", "core"))
            with open(source, "w") as file:
                file.write(text)
            assemble = [self.gnu + "gcc", *self.flags, "-c", source, "-o", core]
            link = [
                self.gnu + "ld",
                "--entry=0",
                # Where half of an address does not do for all of it.
                "-Ttext=0x10000" if self.abi.word == 4 else "-Ttext-segment=0x3f00000000",
                *(["-melf32lriscv"] if self.name.startswith("riscv32") else []),
                core,
                "-o",
                program,
                *(["-shared"] if self.places.shared else []),
                *(f"--defsym=__aeabi_unwind_cpp_pr{number}=0" for number in (0, 1)),
            ]
            for command in (assemble, link):
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    self.refused = done.stderr
                    return None
            with open(program, "rb") as file:
                return Image(file.read())


WORDS = "-DGREENLET_THREAD_WORDS"


def x86_64(name, fp_control, flags="", shared=False, text="SWITCH"):
    flags += " -DGREENLET_FP_CONTROL" if fp_control else ""
    size = 40 if fp_control else 32
    it = Contexts("RDI RSI RDX RCX RBX", size, "RBP RSP RBX", 3, shared=shared)
    if text == "HOP":
        it.hop = {"state": size + 8, "active": 1, "refused": 64}
    sleigh = "x86:LE:64:default"
    return Variant(
        "x86_64" + name, "x86_64.S", "", flags, abi.x86_64(fp_control), it, sleigh, text=text
    )


def aarch64(name, flags=""):
    it = Contexts("x0 x1 x2 x3 x19", 32, "x29 sp x19", 3, bti="-mbranch-protection" in flags)
    return Variant(
        "aarch64" + name,
        "aarch64.S",
        "aarch64-linux-gnu-",
        flags,
        abi.aarch64(),
        it,
        "AARCH64:LE:64:v8A",
    )


def riscv64(name, floats, flags, gnu="riscv64-linux-gnu-"):
    it = Contexts("a0 a1 a2 a3 s1", 32, "s0 sp s1", 4)
    return Variant(
        "riscv64-" + name, "riscv.S", gnu, flags, abi.riscv(8, floats), it, "RISCV:LE:64:RV64GC"
    )


def riscv32(name, floats, flags):
    it = Contexts("a0 a1 a2 a3 s1", 16, "s0 sp s1", 4)
    gnu = "riscv64-unknown-elf-"
    return Variant(
        "riscv32-" + name, "riscv.S", gnu, flags, abi.riscv(4, floats), it, "RISCV:LE:32:RV32GC"
    )


def arm(name, vfp, flags, sleigh, gnu="arm-none-eabi-", thumb=True):
    it = Contexts("r0 r1 r2 r3 r6", 24, "r11 sp r6 r7 r9", 9)
    return Variant(
        "arm-" + name, "arm.S", gnu, flags, abi.arm(vfp), it, "ARM:LE:32:" + sleigh, thumb
    )


VARIANTS = [
    x86_64("", False),
    x86_64("-ibt", False, "-fcf-protection"),
    x86_64("-fp-control", True),
    x86_64("-fp-control-ibt", True, "-fcf-protection"),
    x86_64("-words", True, WORDS),
    x86_64("-hop", False, WORDS, text="HOP"),
    x86_64("-hop-fp-control", True, WORDS, text="HOP"),
    x86_64("-hop-shared", True, WORDS, shared=True, text="HOP"),
    aarch64(""),
    aarch64("-bti", "-mbranch-protection=bti"),
    aarch64("-bti-pac", "-mbranch-protection=standard"),
    riscv64("lp64d", 8, ""),
    riscv64("lp64d-without-c", 8, "-march=rv64g -mabi=lp64d"),
    riscv64("lp64f", 4, "-march=rv64imafc -mabi=lp64f", "riscv64-unknown-elf-"),
    riscv64("lp64", 0, "-march=rv64imac -mabi=lp64", "riscv64-unknown-elf-"),
    riscv32("ilp32d", 8, "-march=rv32gc -mabi=ilp32d"),
    riscv32("ilp32f", 4, "-march=rv32imafc -mabi=ilp32f"),
    riscv32("ilp32", 0, "-march=rv32imac -mabi=ilp32"),
    riscv32("ilp32-without-c", 0, "-march=rv32ima -mabi=ilp32"),
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
