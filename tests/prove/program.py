"""The core inside a linked program: the text of the switch in each place where it was compiled in
line, and `entry` with what belongs to it."""

import copy
import re

from contract import Prover
from image import Image
from machine import Failure
from places import Frames
from variants import VARIANTS

MACHINES = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64", "EM_RISCV": "riscv64", "EM_ARM": "arm"}


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
    """Where the text of `own`, a core that was assembled alone, is in the program."""
    start = own.image.code("site")
    text = listing(own.processor, start, start + own.image.size("site"))
    runs, run = [], []
    for line in [*text, (0, 0, "N")]:
        if "N" in line[2]:
            runs, run = [*runs, run], []
        else:
            run.append(line)
    longest = max(runs, key=lambda it: sum(line[1] for line in it))
    first, length = longest[0][0], sum(it[1] for it in longest)
    needle, found = own.image.constant(first, length), []
    for base, data, writable in prover.image.segments:
        at = data.find(needle) if not writable else -1
        while at >= 0:
            begin = base + at - (first - start)
            end = begin + own.image.size("site")
            try:
                same = [it[2] for it in listing(prover.processor, begin, end)] == [
                    it[2] for it in text
                ]
            except Exception:
                same = False
            if not same:
                raise Failure(f"{base + at:#x}: it looks like the switch, but is not its text")
            found.append((begin, end))
            at = data.find(needle, at + 1)
    return found


def prove(path, wanted):
    """Proves the core in the program. Returns what to print."""
    with open(path, "rb") as file:
        image = Image(file.read())
    architecture = MACHINES[image.machine]
    tried = [
        it
        for it in VARIANTS
        if it.abi.name == architecture and it.name in (wanted or [it.name]) and not it.places.shared
    ]
    for variant in tried:
        # The mode of the core's symbols is that of the code.
        if architecture == "arm" and variant.thumb != bool(image.symbol("entry") & 1):
            continue
        if isinstance(variant.places, Frames):
            if not wanted and len(tried) > 1:
                raise Failure(f"name the variant: {' '.join(it.name for it in tried)}")
            prover = Prover(image, variant.abi, variant.places, variant.sleigh, variant.thumb)
            prover.prove()
            return f"{path}: {variant.name}, {len(prover.covered)} instructions, {prover.checks} checks, proved"
        own = Prover(
            variant.image(variant.preprocessed()),
            variant.abi,
            copy.copy(variant.places),
            variant.sleigh,
            variant.thumb,
        )
        prover = Prover(
            image,
            variant.abi,
            copy.copy(variant.places),
            variant.sleigh,
            variant.thumb,
            place=(0, 0),
        )
        places = sites(prover, own)
        if not places:
            continue
        for place in places:
            prover.at(place)
            prover.prove(whole=place == places[0])
        return (
            f"{path}: {variant.name}, the switch in {len(places)} places, {len(prover.covered)} instructions, "
            f"{prover.checks} checks, {prover.asked} solver calls, proved"
        )
    raise Failure(f"{path}: the text of no variant of {architecture} is in it")
