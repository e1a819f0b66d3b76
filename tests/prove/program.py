"""The core in a linked program: each place where rustc has inlined the switch, and `entry` with its
routines, as the linker has left them."""

import re

from contract import Prover
from image import Image
from machine import Failure, Unknown
from variants import VARIANTS

MACHINES = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64", "EM_RISCV": "riscv", "EM_ARM": "arm"}


def listing(processor, start, end):
    """Returns the instructions as text. N stands for what linkers and assemblers choose differently:
    nops, and numbers that are not added to a register."""
    found, pc = [], start
    while pc < end:
        text = re.sub(r"(?<![+-] )(?<![+#-])-?0x[0-9a-f]+\b(?!\()", "N", processor.text(pc))
        length = processor.instruction(pc)[0]
        text = "N" if text.strip() in ("nop", "mov r8,r8") else text
        found.append((pc, length, text))
        pc += length
    return found


def texts(prover, own, start, end):
    """Searches the program for the text from `start` to `end` in `own`, a core that was assembled
    alone. Returns the ranges of the text, and those of its longest part without N."""
    lines = listing(own.processor, start, end)
    runs, run = [], []
    for line in [*lines, (0, 0, "N")]:
        if "N" in line[2]:
            runs, run = [*runs, run], []
        else:
            run.append(line)
    longest = max(runs, key=lambda it: sum(length for _, length, _ in it))
    first, length = longest[0][0], sum(length for _, length, _ in longest)
    piece, ranges, pieces = own.image.constant(first, length), [], []
    for base, data, writable in prover.image.segments:
        at = -1 if writable else data.find(piece)
        while at >= 0:
            pieces.append(base + at)
            begin = base + at - (first - start)
            try:
                there = listing(prover.processor, begin, begin + end - start)
            except Unknown:
                there = []
            if [it[2] for it in there] == [it[2] for it in lines]:
                ranges.append(range(begin, begin + end - start))
            at = data.find(piece, at + 1)
    return ranges, pieces


def is_for(image, variant):
    """Returns `true` if the program has that variant's ABI and instruction set."""
    if variant.abi.name != MACHINES[image.machine]:
        return False
    flags = image.elf["e_flags"]
    if variant.abi.name == "riscv":  # EF_RISCV_FLOAT_ABI
        floats = {0: 0, 2: 4, 4: 8}[flags & 6]
        return (variant.abi.word, variant.abi.floats) == (image.elf.elfclass // 8, floats)
    if variant.abi.name == "arm":  # EF_ARM_ABI_FLOAT_HARD; the mode of entry is that of the code
        hard, thumb = bool(flags & 0x400), bool(image.symbol("entry") & 1)
        return ("d8" in variant.abi.kept, variant.thumb) == (hard, thumb)
    return True


def prove_prepare(image, variant):
    """The function `prepare` of pressure/ makes the new context that the prover assumes."""
    table = image.elf.get_section_by_name(".got")
    if table is not None:  # the linker has filled it in, finally in a static program
        image.segments.append([table["sh_addr"], table.data(), False])
    it = Prover(image, variant.abi, variant.core, variant.sleigh, variant.thumb, (0, 1))
    it.prepare_is_true(image.symbols["prepare"] & ~variant.thumb)


def prove(path, wanted):
    """Proves the core in the program, for the variants `wanted` or those that match. Returns what to
    print."""
    with open(path, "rb") as file:
        image = Image(file.read())
    if image.machine not in MACHINES:
        raise Failure(f"there is no core for {image.machine}")
    tried = [it for it in VARIANTS if is_for(image, it) and it.name in (wanted or [it.name])]

    def prover(variant, of, text=None):
        return Prover(of, variant.abi, variant.core, variant.sleigh, variant.thumb, text)

    found, pieces = {}, set()
    for variant in tried:
        own = prover(variant, variant.image(variant.preprocessed()))
        there = prover(variant, image, (0, 1))
        for start, end in own.texts:
            ranges, more = texts(there, own, start, end)
            pieces.update(more)
            for text in ranges:
                found.setdefault((text.start, text.stop), variant)
    # The end of HOP is the same as SWITCH without the thread's words.
    whole = {
        text: variant
        for text, variant in found.items()
        if not any(it != text and it[0] <= text[0] and text[1] <= it[1] for it in found)
    }
    routines = (there.routine(it) for it in ("entry", "resume"))  # they end as SWITCH does
    known = [*(range(*it) for it in whole), *routines]
    for at in sorted(pieces):
        if not any(at in it for it in known):
            raise Failure(f"{at:#x}: it looks like the switch, but is the text of no variant")
    if not whole:
        raise Failure("the text of no variant is in it")
    provers, places = {}, {}
    for text, variant in sorted(whole.items()):
        it = provers.setdefault(variant.name, prover(variant, image, text))
        it.look_at(*text)
        it.prove_text(whole=variant.name not in places)
        places[variant.name] = places.get(variant.name, 0) + 1
    where = ", ".join(f"{name} in {count} places" for name, count in places.items())
    instructions = len(set().union(*(it.covered for it in provers.values())))
    checks, asked = (sum(getattr(it, of) for it in provers.values()) for of in ("checks", "asked"))
    return f"{where}, {instructions} instructions, {checks} checks, {asked} solver calls, proved"
