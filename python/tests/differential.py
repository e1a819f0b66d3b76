"""Runs random programs on two greenlets and compares what they print.

    python differential.py THIS_PYTHON OTHER_PYTHON [SEEDS [FIRST]]

Each PYTHON is an interpreter that finds one of the two. Ends with `N passed, N failed`.
"""

import difflib
import re
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).resolve().parent / "random_program.py"
BATCH = 25
LIMIT = 300


def run(python, first, last):
    """{seed: what it printed}; a crash is part of what the last one printed."""
    try:
        done = subprocess.run([python, PROGRAM, str(first), str(last)], capture_output=True,
                              timeout=LIMIT)
        text, end = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired as late:
        text, end = late.stdout or b"", "a time limit"
    printed, seed = {}, None
    text = re.sub(r"0x[0-9a-f]+|\(nil\)", "ADDRESS", text.decode(errors="replace"))
    for line in text.splitlines():
        if line.startswith("seed "):
            seed = int(line[5:])
        printed.setdefault(seed, []).append(line)
    if end:
        printed.setdefault(seed, []).append(f"ended with {end}")
    return printed


def compare(this, other, first, last):
    """Those seeds in the range whose programs print different things."""
    differ = []
    while first < last:
        here, there = run(this, first, last), run(other, first, last)
        for seed in range(first, last):
            first = seed + 1
            if here.get(seed) != there.get(seed):
                differ.append(seed)
                difference = difflib.unified_diff(there.get(seed, []), here.get(seed, []),
                                                  "other", "this", lineterm="", n=12)
                print("\n".join(list(difference)[:80]))
                # What comes after may be of its doing.
                break
    return differ


def main():
    this, other = sys.argv[1:3]
    seeds = int(sys.argv[3]) if len(sys.argv) > 3 else 1000
    first = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    differ = []
    for start in range(first, first + seeds, BATCH):
        differ += compare(this, other, start, min(start + BATCH, first + seeds))
    if differ:
        print("seeds that differ:", *differ)
    print(f"{seeds - len(differ)} passed, {len(differ)} failed")
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
