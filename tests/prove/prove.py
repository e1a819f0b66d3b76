"""Proves the switch cores. ci/prove.sh starts it; asm/README.md, "Proof", says what is proved, and
what is not.

The files, in reading order:
    abi.py        the registers of each ABI, from the documents
    guide.py      the offsets in asm/README.md
    core.py       what a core preserves, and which memory it may use
    contract.py   the properties
    unwinding.py  the properties of the unwind tables
    questions.py  asks the solver whether a property holds, and prints a counterexample
    machine.py    executes instructions symbolically
    image.py      object code; cfi.py its unwind tables
    variants.py   the cores as assembled
    compiled.py   the cores as rustc inlines them; clobbers.py the registers that it keeps over a switch
    program.py    the core in a linked program
    opinion.py    compares the model of each instruction with another one, on random states
    mutants.py    cores with a fault, which must be refused; equivalent.txt those without one
"""

import argparse
import multiprocessing
import os
import random
import sys
import time

import compiled
import opinion
import program
from contract import Prover
from machine import Failure, Unknown
from mutants import equivalents, mutants
from variants import VARIANTS

STATES = 4  # random ones, for each instruction
SAMPLE = 4  # mutants of each variant
COUNTED = ("made", "refused", "equivalent")


def prover(variant, image):
    return Prover(image, variant.abi, variant.core, variant.sleigh, variant.thumb)


def prove(name):
    """Proves a variant. Returns whether it is proved, and what to print."""
    variant, began = variant_named(name), time.process_time()
    image = variant.image(variant.preprocessed())
    if image is None:
        return False, f"{name}: {variant.refused}"
    it = prover(variant, image)
    try:
        it.prove()
        opinion.compare(it, STATES)
    except (Failure, Unknown) as failure:
        return False, f"{name}: NOT PROVED\n  {failure}"
    seconds = time.process_time() - began
    return (
        True,
        f"{name}: {len(it.covered)} instructions, {it.checks} checks, {it.asked} solver calls, proved ({seconds:.1f} s)",
    )


def judge(task):
    """Judges a mutant. Returns None if the assembler refuses it, else whether the prover does."""
    name, text = task
    variant = variant_named(name)
    image = variant.image(text)
    if image is None:
        return None
    try:
        prover(variant, image).prove()
    except (Failure, Unknown, LookupError, ValueError):  # tables may hold nonsense
        return True
    return False


def variant_named(name):
    return next(it for it in VARIANTS if it.name == name)


def chosen_mutants(names, all_of_them):
    """Returns (name of the variant, mutant): all different texts, or a sample for each variant."""
    chosen, seen = [], set()
    for name in names:
        variant = variant_named(name)
        text = variant.preprocessed()
        made = mutants(text, variant.abi, variant.text)
        if variant.core.marks == "ibt":  # the rest is the text of another variant
            made = [it for it in made if "notrack" in it.name]
        if not all_of_them:
            made = list(made)
            made = random.Random(name).sample(made, min(SAMPLE, len(made)))
        elif text in seen:
            continue
        seen.add(text)
        chosen += [(name, it) for it in made]
    return chosen


def judge_mutants(pool, names, all_of_them):
    """Prints a line for each architecture. Returns how many mutants survived without a listed reason
    and, with `all_of_them`, how many reasons match no survivor."""
    known, failures, counts, used = equivalents(), 0, {}, set()
    chosen = chosen_mutants(names, all_of_them)
    verdicts = pool.imap(judge, [(name, it.text) for name, it in chosen], chunksize=4)
    for (name, it), refused in zip(chosen, verdicts):
        if refused is None:
            continue
        count = counts.setdefault(variant_named(name).abi.name, dict.fromkeys(COUNTED, 0))
        count["made"] += 1
        reasons = [row for row in known if row[0].fullmatch(name) and row[1].fullmatch(it.name)]
        if refused:
            count["refused"] += 1
        elif reasons:
            count["equivalent"] += 1
            used.update(reasons)
        else:
            failures += 1
            print(f"{name}: a mutant was proved ({it.kind})\n    {it.name}", flush=True)
    for architecture, count in counts.items():
        print(f"mutants of {architecture}: " + ", ".join(f"{count[it]} {it}" for it in COUNTED))
    if all_of_them:
        for row in known:
            if row not in used and any(row[0].fullmatch(it) for it in names):
                failures += 1
                print(f"equivalent.txt: no mutant that was proved: {row[1].pattern}")
    return failures


def main():
    parser = argparse.ArgumentParser(prog="ci/prove.sh")
    parser.add_argument(
        "variants", nargs="*", metavar="VARIANT", help=" ".join(it.name for it in VARIANTS)
    )
    parser.add_argument("--all", action="store_true", help="all mutants, not a sample")
    parser.add_argument("--elf", metavar="PROGRAM", help="the core in a linked program")
    arguments = parser.parse_args()
    names = arguments.variants or [it.name for it in VARIANTS]
    for name in names:
        if name not in {it.name for it in VARIANTS}:
            parser.error(f"no variant {name}")
    if arguments.elf:
        try:
            print(f"{arguments.elf}: {program.prove(arguments.elf, arguments.variants)}")
        except (Failure, Unknown, LookupError, ValueError) as failure:
            print(f"{arguments.elf}: NOT PROVED\n  {failure}")
            sys.exit(1)
        sys.exit(0)
    passed = failed = 0
    with multiprocessing.Pool(len(os.sched_getaffinity(0))) as pool:
        for proved, line in pool.imap(prove, names):
            print(line, flush=True)
            passed, failed = passed + proved, failed + (not proved)
        for covered, line in pool.imap(
            compiled.check, [it for it in compiled.ROWS if it[2] in names]
        ):
            print(line, flush=True)
            passed, failed = passed + covered, failed + (not covered)
        if not failed:
            failed += judge_mutants(pool, names, arguments.all)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
