#!/usr/bin/env bash
# Measures the build time and dependencies of this crate and of corosensei, the size of the package, and
# the lines of each layer.
#
#   ci/measures.sh [ROUNDS]         builds of each crate, default 5; the time is their median
#
# Installs cloc from Debian if it is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source-path=SCRIPTDIR/..
. ci/install.sh

rounds=${1:-5}
repo=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

install cloc cloc >&2

# user NAME REQUIREMENT: makes an empty crate that depends on NAME, with the versions of our lock file.
user() {
    cargo init --quiet --lib --vcs none --name user "$work/$1" 2>/dev/null
    echo "$1 = $2" >>"$work/$1/Cargo.toml"
    cp Cargo.lock "$work/$1"
    cargo fetch --quiet --manifest-path "$work/$1/Cargo.toml"
}

# build NAME: prints the milliseconds that a release build takes from clean.
build() {
    local start
    rm -rf "$work/$1/target"
    start=${EPOCHREALTIME/./}
    cargo build --quiet --release --offline --manifest-path "$work/$1/Cargo.toml" --target-dir "$work/$1/target"
    echo $(((${EPOCHREALTIME/./} - start) / 1000))
}

# seconds NAME: prints the median time of its builds.
seconds() {
    sort -n "$work/$1.times" | awk '{ t[NR] = $1 } END { printf "%.2f", t[int((NR + 1) / 2)] / 1000 }'
}

# crates NAME EDGES: prints how many crates it stands for, itself included.
crates() {
    cargo tree --offline --edges "$2" --prefix none --format '{p}' --manifest-path "$work/$1/Cargo.toml" |
        sed '1d; s/ (.*//' | sort -u | wc -l
}

# lines NAME PATH…: prints a row of the table. Assembly is counted as C, because cloc takes `#if` in
# assembly for a comment.
lines() {
    cloc --quiet --csv --force-lang='C,S' --include-lang='Rust,C,C/C++ Header' "${@:2}" |
        awk -F, -v name="$1" '$2 == "SUM" { printf "| %s | %d | %d |\n", name, $5, $4 }'
}

peer=$(awk '/^name = "corosensei"$/ { getline; gsub(/.*= |"/, ""); print }' Cargo.lock)
user greenlet "{ path = \"$repo\" }"
user corosensei "\"=$peer\""
for ((round = 0; round < rounds; round++)); do
    for crate in greenlet corosensei; do
        build "$crate" >>"$work/$crate.times"
    done
done

sed -n 's/^model name.*: //p' /proc/cpuinfo | sort | uniq -c | awk '{ $1 = $1 " ×"; print }'
rustc --version
date +%F
echo
echo '| | greenlet | corosensei '"$peer"' |'
echo '|---|---|---|'
echo "| release build from clean, s | $(seconds greenlet) | $(seconds corosensei) |"
echo "| crates that are built | $(crates greenlet normal,build) | $(crates corosensei normal,build) |"
echo "| crates that are linked | $(crates greenlet normal) | $(crates corosensei normal) |"
echo
cargo package --locked --allow-dirty --no-verify 2>&1 | sed -n 's/^ *Packaged/package:/p'
echo
echo '| layer | code | comment |'
echo '|---|---|---|'
lines 'switch core' asm
for core in asm/*.S; do
    lines "— \`$core\`" "$core"
done
lines 'architecture' src/arch
lines 'stack' src/stack
lines 'raw context' src/raw.rs
lines 'tree' src/tree
lines 'handles' src/handles
lines 'coroutines' src/coroutine
lines 'diagnostics' src/diagnostics
lines 'system' src/host
lines 'sanitizers' src/sanitizers
lines 'all' asm src
