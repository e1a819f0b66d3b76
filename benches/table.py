"""Prints what `ci/bench.sh --json FILE` has written as the tables of README.md.

    python3 benches/table.py FILE
"""

import json
import sys

SLAB = "corosensei on a slab"
# Contender, its column, and whether its ratio has one.
COLUMNS = [
    ("greenlet", "greenlet", True),
    ("greenlet with fp-control", "with `fp-control`", True),
    ("corosensei", "corosensei", False),
    (SLAB, "on a slab", False),
    ("boost jump_fcontext", "boost `jump_fcontext`", False),
    ("boost fiber", "boost `fiber`", False),
    ("Python greenlet", "Python's greenlet", False),
]
# Workloads that begin so have a table of their own, with columns of their own.
HIGHER = ("item of ", "poll of ")
COLUMNS_OF_HIGHER = COLUMNS[:3] + [
    ("generator", "generator-rs", False),
    ("boxed async", "boxed `async`", False),
]


def digits(number, most_below):
    return f"{number:.2f}" if number < 10 else f"{number:.1f}" if number < most_below else f"{number:,.0f}"


def ratio(entry, row):
    if entry["ratio"] is None:
        return ""
    against_slab = "" if "corosensei" in row else " of slab"
    return digits(entry["ratio"], 10) + against_slab


def line(cells):
    print("| " + " | ".join(cells) + " |")


def times(rows, columns):
    heads = ["workload"]
    for _, head, with_ratio in columns:
        heads += [f"{head}, ns"] + ["× corosensei"] * with_ratio
    line(heads)
    line(["---"] + ["--:"] * (len(heads) - 1))
    for workload, row in rows.items():
        cells = [workload]
        for name, _, with_ratio in columns:
            entry = row.get(name)
            cells.append(digits(entry["ns"], 100) if entry else "")
            if with_ratio:
                cells.append(ratio(entry, row) if entry else "")
        line(cells)


def memory(rows):
    line(["bytes each, resident + page tables"] + [head for _, head, _ in COLUMNS])
    line(["---"] + ["--:"] * len(COLUMNS))
    for workload, row in rows.items():
        if not any("resident" in entry for entry in row.values()):
            continue
        cells = [workload]
        for name, _, _ in COLUMNS:
            entry = row.get(name)
            cells.append(f"{entry['resident']:,} + {entry['page_tables']:,}" if entry else "")
        line(cells)


def main(source):
    rows = {}
    with open(source) as file:
        for entry in json.load(file):
            rows.setdefault(entry["workload"], {})[entry["contender"]] = entry
    higher = {workload: row for workload, row in rows.items() if workload.startswith(HIGHER)}
    times({workload: row for workload, row in rows.items() if workload not in higher}, COLUMNS)
    print()
    times(higher, COLUMNS_OF_HIGHER)
    print()
    memory(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
