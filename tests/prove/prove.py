"""Proves the switch cores. ci/prove.sh starts it; asm/README.md says what is proved, and what not."""

import argparse
import multiprocessing
import os
import random
import sys
import time

import clobbers
import opinion
import program
from contract import Prover
from machine import Failure, Unknown
from mutants import equivalents, mutants
from variants import VARIANTS

STATES = 4  # random ones, for each instruction
SAMPLE = 6  # mutants of each variant


def prover(variant, image):
    return Prover(image, variant.abi, variant.places, variant.sleigh, variant.thumb)


def prove(name):
    """One variant. Returns whether it is proved, and what to print."""
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
    """One mutant. Returns None if the assembler refuses it, else whether the prover does."""
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


def judge_mutants(pool, names, all_of_them):
    """Prints a line for each architecture; returns the survivors that nobody has given a reason for."""
    known, survivors, counts = equivalents(), [], {}
    chosen = []
    for name in names:
        variant = variant_named(name)
        made = list(mutants(variant.preprocessed(), variant.abi, variant.text))
        if not all_of_them:
            made = random.Random(name).sample(made, min(SAMPLE, len(made)))
        chosen += [(name, it) for it in made]
    verdicts = pool.imap(judge, [(name, it.text) for name, it in chosen], chunksize=4)
    for (name, it), refused in zip(chosen, verdicts):
        if refused is None:
            continue
        architecture = variant_named(name).abi.name
        count = counts.setdefault(architecture, {"made": 0, "refused": 0, "equivalent": 0})
        count["made"] += 1
        if refused:
            count["refused"] += 1
        elif any(row[0] == architecture and row[1].fullmatch(it.name) for row in known):
            count["equivalent"] += 1
        else:
            survivors.append(it.name)
            print(f"{name}: a mutant was proved ({it.kind})\n    {it.name}", flush=True)
    for architecture, count in counts.items():
        print(
            f"mutants of {architecture}: {count['made']} made, {count['refused']} refused, {count['equivalent']} equivalent"
        )
    return survivors


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
            print(program.prove(arguments.elf, arguments.variants))
        except (Failure, Unknown, LookupError, ValueError) as failure:
            print(f"{arguments.elf}: NOT PROVED\n  {failure}")
            sys.exit(1)
        sys.exit(0)
    passed = failed = 0
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for proved, line in pool.imap(prove, names):
            print(line, flush=True)
            passed, failed = passed + proved, failed + (not proved)
        for covered, line in pool.imap(
            clobbers.check, [it for it in clobbers.ROWS if it[2] in names]
        ):
            print(line, flush=True)
            passed, failed = passed + covered, failed + (not covered)
        if not failed:
            failed += len(judge_mutants(pool, names, arguments.all))
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
