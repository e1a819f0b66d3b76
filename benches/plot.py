"""Draws what `ci/bench.sh --json FILE` has written, as times of corosensei's on a logarithmic scale.

    python3 benches/plot.py FILE PICTURE.svg

Needs matplotlib.
"""

import json
import sys

import matplotlib

matplotlib.use("svg")
# The same input makes the same file; text stays text.
matplotlib.rcParams["svg.hashsalt"] = "greenlet"
matplotlib.rcParams["svg.fonttype"] = "none"

import matplotlib.pyplot as plt

SHOWN = [
    ("greenlet", "o", "tab:blue"),
    ("greenlet with fp-control", "o", "lightskyblue"),
    ("corosensei on a slab", "|", "black"),
    ("boost jump_fcontext", "s", "tab:orange"),
    ("boost fiber", "D", "tab:red"),
    ("generator", "^", "tab:green"),
    ("wasmtime fiber", "v", "tab:purple"),
    ("boxed async", "P", "tab:olive"),
    ("Python greenlet", "*", "tab:gray"),
]


def main(source, picture):
    with open(source) as file:
        entries = [entry for entry in json.load(file) if entry["ratio"] is not None]
    workloads = list(dict.fromkeys(entry["workload"] for entry in entries))
    rows = {workload: -row for row, workload in enumerate(workloads)}
    figure, axes = plt.subplots(figsize=(10, 0.32 * len(workloads) + 1.6))
    for name, marker, color in SHOWN:
        points = [(e["ratio"], rows[e["workload"]]) for e in entries if e["contender"] == name]
        if points:
            axes.scatter(*zip(*points), marker=marker, color=color, label=name, s=36, zorder=3)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(list(rows.values()), list(rows))
    axes.grid(axis="both", color="gainsboro", zorder=0)
    axes.set_xlabel("time, × corosensei (lower is faster; where it has no figure, × it on a slab)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.3, 1.12), ncols=4, frameon=False)
    figure.savefig(picture, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
