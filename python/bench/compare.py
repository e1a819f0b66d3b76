"""Measures two greenlets by turns and prints a table.

    python compare.py THIS_PYTHON OTHER_PYTHON [ROUNDS [WORKLOAD…]]

Times are medians of the rounds, nanoseconds of CPU time; the last column is this as a multiple of
the other (lower is faster, or smaller).
"""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median

MEASURE = Path(__file__).resolve().parent / "measure.py"


def main():
    pythons = sys.argv[1:3]
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    results = ([], [])
    for number in range(rounds):
        # Who is first changes, for what a machine does to whoever that is.
        for which in (0, 1) if number % 2 else (1, 0):
            done = subprocess.run([pythons[which], MEASURE, *sys.argv[4:]], check=True,
                                  stdout=subprocess.PIPE)
            results[which].append(json.loads(done.stdout))
    print("| workload | other | this | this : other |\n|---|---|---|---|")
    for name in results[0][0]:
        this, other = (median(round[name] for round in result) for result in results)
        print(f"| {name} | {other:,.0f} | {this:,.0f} | {this / other:.3f} |")


if __name__ == "__main__":
    main()
