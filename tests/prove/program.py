"""The core inside a linked program: the text of the switch in each place where it was compiled in
line, and `entry` with what belongs to it."""

import copy
import re

from contract import Prover
from image import Image
from machine import Failure, Unknown
from variants import VARIANTS

MACHINES = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64", "EM_RISCV": "riscv", "EM_ARM": "arm"}


def listing(processor, start, end):
    """The instructions as text, without what the linker fills in: numbers that are no displacement."""
    found, pc = [], start
    while pc < end:
        text = re.sub(r"(?<![+-] )(?<![+-])-?0x[0-9a-f]+", "N", processor.text(pc))
        length = processor.instruction(pc)[0]
        found.append((pc, length, text))
        pc += length
    return found


def sites(prover, own):
    """Where the text of `own`, a core that was assembled alone, is in the program: {address of its
    longest piece in which the linker fills in nothing: (first, last address), or None if only that
    piece is the same}."""
    start, size = own.image.code("site"), own.image.size("site")
    text = listing(own.processor, start, start + size)
    runs, run = [], []
    for line in [*text, (0, 0, "N")]:
        if "N" in line[2]:
            runs, run = [*runs, run], []
        else:
            run.append(line)
    longest = max(runs, key=lambda it: sum(line[1] for line in it))
    first, length = longest[0][0], sum(it[1] for it in longest)
    needle, found = own.image.constant(first, length), {}
    for base, data, writable in prover.image.segments:
        at = data.find(needle) if not writable else -1
        while at >= 0:
            begin = base + at - (first - start)
            try:
                lines = [it[2] for it in listing(prover.processor, begin, begin + size)]
            except Unknown:
                lines = None
            same = lines == [it[2] for it in text]
            found[base + at] = (begin, begin + size) if same else None
            at = data.find(needle, at + 1)
    return found


def prove(path, wanted):
    """Proves the core in the program. Returns what to print."""
    with open(path, "rb") as file:
        image = Image(file.read())
    if image.machine not in MACHINES:
        raise Failure(f"there is no core for {image.machine}")
    architecture = MACHINES[image.machine]
    tried = [
        it
        for it in VARIANTS
        if it.abi.name == architecture
        and 8 * it.abi.word == image.elf.elfclass
        and it.name in (wanted or [it.name])
        and not it.places.shared
    ]
    if architecture == "arm":  # the mode of entry is that of the code
        tried = [it for it in tried if it.thumb == bool(image.symbol("entry") & 1)]

    def prover(variant, of, place=None):
        places = copy.copy(variant.places)
        return Prover(of, variant.abi, places, variant.sleigh, variant.thumb, place)

    looks, places = set(), {}
    for variant in tried:
        own = prover(variant, variant.image(variant.preprocessed()))
        found = sites(prover(variant, image, (0, 0)), own)
        looks |= found.keys()
        places.update({at: (variant, it) for at, it in found.items() if it and at not in places})
    for at in sorted(looks - places.keys()):
        raise Failure(f"{at:#x}: it looks like the switch, but is the text of no variant")
    if not places:
        raise Failure(f"the text of no variant of {architecture} is in it")
    provers = {}
    for at, (variant, place) in sorted(places.items()):
        whole = variant.name not in provers
        it = provers.setdefault(variant.name, prover(variant, image, place))
        it.at(place)
        it.prove(whole)
    text = ", ".join(
        f"{name} in {sum(it[0].name == name for it in places.values())} places" for name in provers
    )
    instructions = len(set().union(*(it.covered for it in provers.values())))
    checks, asked = (
        sum(getattr(it, what) for it in provers.values()) for what in ("checks", "asked")
    )
    return f"{path}: {text}, {instructions} instructions, {checks} checks, {asked} solver calls, proved"
