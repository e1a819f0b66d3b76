#!/usr/bin/env bash
# Shows that tests/registers sees every save and restore of the switch core: takes each out of a
# copy of the crate, one at a time, and expects the test to fail.
#
#   ci/mutate-saves.sh [triple]        default: the host's
#
# Prints each instruction that was taken out and the registers that the test then reported.
# For another target give Cargo its linker and runner, as ci/cross.sh does.
set -euo pipefail

triple=${1:-$(rustc -vV | sed -n 's/^host: //p')}
case $triple in
    x86_64-* | aarch64-*) core=${triple%%-*}.S ;;
    riscv64*) core=riscv64.S ;;
    arm* | thumb*) core=arm.S ;;
    *) echo "mutate-saves.sh: no core for $triple" >&2; exit 2 ;;
esac
soft=
case $triple in arm*eabi) soft=1 ;; esac    # no VFP registers there
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
export RUST_BACKTRACE=0
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$repo/target}/mutate-saves

# Prints line number, instruction and what takes its place, for each save and restore of `switch`.
# The stack pointer moves as before: a frame that is gone would show nothing about a register.
mutations() {
    awk -v OFS='\t' -v soft="$soft" '
        /^END_FUNCTION/ { exit }
        /^FUNCTION SYM\(switch\)/ { inside = 1 }
        # Another body, which no target of this test assembles.
        /^#ifdef THUMB1/ { other = 1 }
        /^#(else|endif)/ { other = 0 }
        !inside || other { next }
        { sub(/ *\/\/.*/, ""); sub(/^ +/, "") }
        # arm: one instruction moves a range; each of its places is spoiled in turn.
        /^v?(push|pop) \{/ {
            if (/^v/ && soft) next
            split($0, list, /[{}]/); split(list[2], range, /[-,]/)
            width = /^v/ ? 8 : 4
            first = substr(range[1], 2) + 0; last = range[2] ~ /^[rd]/ ? substr(range[2], 2) + 0 : first
            for (number = first; number <= last; number++) {
                spoil = "str r1, [sp, #" width * (number - first) "]"
                print NR, $0 ", " substr(range[1], 1, 1) number, /push/ ? $0 "; " spoil : spoil "; " $0
            }
            next
        }
        # x86_64
        /^push / { print NR, $0, "sub rsp, 8" }
        /^pop / { print NR, $0, "add rsp, 8" }
        /^(stmxcsr|fnstcw|ldmxcsr|fldcw) / { print NR, $0, "" }
        # aarch64
        /^(stp|ldp) / { print NR, $0, "" }
        # riscv64
        /^(sd|ld|FSAVE|FLOAD) .*\(sp\)/ { print NR, $0, "" }
    ' "$1"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -C "$repo" --exclude=./target --exclude=./.git -cf - . | tar -C "$work" -xmf -    # m: newer than what an earlier run has built
log=$work/log

test=(cargo test --quiet --manifest-path "$work/Cargo.toml" --target "$triple" --test registers)
# A switch gone wrong may hang.
the_test() { timeout 60 "${test[@]}" >"$log" 2>&1 </dev/null; }
# A test that cannot be built has not failed.
build() { "${test[@]}" --no-run >"$log" 2>&1 </dev/null || { cat "$log"; exit 1; }; }

build
the_test || { cat "$log"; echo 'mutate-saves.sh: the test fails as it is' >&2; exit 1; }

taken=0 unseen=0
while IFS=$'\t' read -r line instruction replacement; do
    sed "${line}s/.*/    $replacement/" "$repo/asm/$core" >"$work/asm/$core"
    build
    if the_test; then
        seen='NOT SEEN'
        unseen=$((unseen + 1))
    else
        seen=$(sed -n 's/.*, round [0-9]*: \(.*\) was .*/\1/p' "$log" | sort -u | paste -sd,)
    fi
    taken=$((taken + 1))
    printf '%-32s %s\n' "$instruction" "${seen:-crash}"
done < <(mutations "$repo/asm/$core")

echo "$core: $taken taken out, $unseen not seen"
[ "$taken" -gt 0 ] && [ "$unseen" = 0 ]
