"""The offsets in asm/README.md, "Registers". tests/audit.rs compares the constants by which Rust
fills new contexts with the same tables."""

import os
import re

GUIDE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../asm/README.md")
CONTROL_WORDS = {"mxcsr": "MXCSR", "x87cw": "FPUControlWord"}


def context(architecture, control_words=False):
    """Returns the offset of each register, by SLEIGH's name, and of "resume", and the size of all."""
    with open(GUIDE) as file:
        section = file.read().split(f"\n### {architecture}\n")[1].split("\n#")[0]
    offsets, end = {}, 0
    for name, offset, size in re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \|", section, re.MULTILINE):
        if name in CONTROL_WORDS:
            if not control_words:
                continue
            name = CONTROL_WORDS[name]
        elif architecture == "x86_64" and name != "resume":
            name = name.upper()
        offsets[name], end = int(offset), int(offset) + int(size)
    return offsets, end
