#!/usr/bin/env bash
# zig as a C compiler and linker; Cargo calls this.
#
#   GREENLET_ZIG         the Python that has the package ziglang
#   GREENLET_ZIG_TARGET  what zig is to know of the target: `-target … -mcpu=…`
set -euo pipefail

# zig passes itself options for a target that it does not use.
arguments=(-Wno-unused-command-line-argument)
while [ $# -gt 0 ]; do
    argument=$1
    shift
    case $argument in
        # GREENLET_ZIG_TARGET names the target in zig's terms.
        --target=*) ;;
        -arch | -isysroot) shift ;;
        # rustc's std names it on macOS and does not use it, and zig has no stub of it.
        -liconv) ;;
        *) arguments+=("$argument") ;;
    esac
done
# shellcheck disable=SC2086
exec "$GREENLET_ZIG" -m ziglang cc $GREENLET_ZIG_TARGET "${arguments[@]}"
