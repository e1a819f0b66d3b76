#!/usr/bin/env bash
# Runs zig as a C compiler and linker; Cargo calls this.
#
#   GREENLET_ZIG         the Python that has the package ziglang
#   GREENLET_ZIG_TARGET  zig's options for the target: `-target … -mcpu=…`
set -euo pipefail

# zig warns of options that it passes to itself.
arguments=(-Wno-unused-command-line-argument)
while [ $# -gt 0 ]; do
    argument=$1
    shift
    case $argument in
        # GREENLET_ZIG_TARGET names the target in zig's terms.
        --target=*) ;;
        -arch | -isysroot) shift ;;
        # rustc's std links it on macOS without using it, and zig has no stub of it.
        -liconv) ;;
        *) arguments+=("$argument") ;;
    esac
done
# shellcheck disable=SC2086
exec "$GREENLET_ZIG" -m ziglang cc $GREENLET_ZIG_TARGET "${arguments[@]}"
