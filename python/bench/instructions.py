"""Counts the instructions of a workload by the library that they are in.

    python instructions.py WORKLOAD…

Runs each workload of measure.py under Valgrind's callgrind, once and with twice as many rounds; the
difference belongs to the rounds. Prints a table of instructions for each round, fewer is better.
"""

import collections
import os
import re
import subprocess
import sys
import tempfile

import measure

ROUNDS = 4_000
LEAST = 20


def run(workload, rounds):
    """What runs under callgrind."""
    measure.timed = lambda _, loop: loop(rounds) or 0
    measure.WORKLOADS[workload]()


def count(workload, rounds):
    """{library: instructions}."""
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out.name}",
                        sys.executable, __file__, "--run", workload, str(rounds)],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       env=dict(os.environ, PYTHONHASHSEED="0"))
        lines = out.read().decode().splitlines()
    # A name is written once, with a number that stands for it from then on. What follows a line of
    # calls is the callee's.
    names, spent, library, callee = {}, collections.Counter(), "", False
    for line in lines:
        if object_ := re.match(r"ob=\((\d+)\)(?: (.*))?", line):
            library = names.setdefault(object_[1], os.path.basename(object_[2] or ""))
        elif called := re.match(r"cob=\((\d+)\) (.*)", line):
            names[called[1]] = os.path.basename(called[2])
        elif line.startswith("calls="):
            callee = True
        elif re.match(r"[+\-*\d]", line):
            if not callee:
                spent[library] += int(line.split()[-1])
            callee = False
    return spent


def main():
    if sys.argv[1:2] == ["--run"]:
        return run(sys.argv[2], int(sys.argv[3]))
    for workload in sys.argv[1:]:
        once, twice = count(workload, ROUNDS), count(workload, 2 * ROUNDS)
        each = {name: (twice[name] - once[name]) / ROUNDS for name in twice}
        print(f"| {workload} | instructions |\n|---|---|")
        for name in sorted(each, key=each.get, reverse=True):
            if each[name] >= LEAST:
                print(f"| {name.split('.')[0]} | {each[name]:,.0f} |")
        print(f"| all | {sum(each.values()):,.0f} |")


if __name__ == "__main__":
    main()
