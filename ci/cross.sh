#!/usr/bin/env bash
# Runs the test suite and the `walk` example on other architectures, under qemu-user.
#
#   ci/cross.sh [target…]                  targets by short name or triple; default: all
#   ci/cross.sh target… -- [ARGUMENT…]     only `cargo test` with these arguments:
#                                          ci/cross.sh aarch64 -- --test switch -- registers::
#
#   GREENLET_CROSS_TIMEOUT     seconds until one run of cargo is stopped (a wrong switch may hang);
#                              default 900
#
# Installs what is missing: the cross compilers, their C libraries and gdb-multiarch from Debian,
# the standard libraries and a nightly Rust by rustup, zig from PyPI. The emulator and zig are kept
# under Cargo's target directory, so only `apt-get install` needs root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source-path=SCRIPTDIR/..
. ci/install.sh

# std: "rustup" if rustup has it; "nightly" if Cargo must build it, which needs a nightly Rust.
# GNU, Debian: the cross compiler is package gcc-GNU, its C library libc6-dev-DEBIAN-cross, the sysroot
# /usr/GNU. If Debian has no C library ("-"), zig links static programs with its own.
# cpu: about the least that the triple promises, so that a core which uses more fails. armel has no
# floating-point unit; armv6hf has that of a Raspberry Pi Zero. armv7hf has more than the 16 double
# registers of its triple, because rustc's own std uses 32. aarch64 has every extension;
# pauth-impdef=on selects a fast algorithm for pointer authentication.
#
# short     triple                              std     GNU                   Debian  qemu          cpu
TARGETS='
aarch64     aarch64-unknown-linux-gnu           rustup  aarch64-linux-gnu     arm64   qemu-aarch64  max,pauth-impdef=on
armv7hf     armv7-unknown-linux-gnueabihf       rustup  arm-linux-gnueabihf   armhf   qemu-arm      cortex-a9
riscv64     riscv64gc-unknown-linux-gnu         rustup  riscv64-linux-gnu     riscv64 qemu-riscv64  rv64
armel       arm-unknown-linux-gnueabi           nightly arm-linux-gnueabi     armel   qemu-arm      arm1176,vfp=off
thumbv7neon thumbv7neon-unknown-linux-gnueabihf rustup  arm-linux-gnueabihf   armhf   qemu-arm      cortex-a9
armv6hf     arm-unknown-linux-musleabihf        nightly arm-linux-gnueabihf   -       qemu-arm      arm1176
'

# Older versions accept a mapping of 64 TiB, and fail an assertion when a process with threads forks.
LEAST_QEMU=10
QEMU_FROM=trixie

WALKED=/etc
OPTIMIZED=(--config 'profile.dev.package.greenlet.opt-level=3')
LIMIT=${GREENLET_CROSS_TIMEOUT:-900}

cache=$(realpath -m "${CARGO_TARGET_DIR:-target}")/cross

say() { printf '\n== %s\n' "$*"; }
die() { printf 'cross.sh: %s\n' "$*" >&2; exit 2; }

# choose NAME: sets $short, $triple, … from the row of TARGETS with that short name or triple.
choose() {
    local row
    row=$(awk -v name="$1" '$1 == name || $2 == name' <<<"$TARGETS")
    [ -n "$row" ] || die "no target \"$1\"; there are:$(awk 'NF { printf " %s", $1 }' <<<"$TARGETS")"
    read -r short triple std gnu debian qemu cpu <<<"$row"
}

# ---- set-up

# is_new_enough EMULATOR: succeeds if it is installed, with version LEAST_QEMU or later.
is_new_enough() {
    local version
    version=$("$1" --version 2>/dev/null | sed -n 's/^.* version \([0-9]*\)\..*/\1/p')
    [ "${version:-0}" -ge "$LEAST_QEMU" ]
}

# Unpacks qemu-user of a Debian that may be newer than the machine's. Its programs are static and have no
# dependencies. Its package index is kept apart from the machine's.
fetch_qemu() {
    local mirror work=$cache/qemu.part options
    # shellcheck disable=SC2016
    mirror=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 == "Debian" { print $2; exit }')
    [ -n "$mirror" ] || die "needs a QEMU of version $LEAST_QEMU or later (qemu-user)"
    say "fetching qemu-user of $QEMU_FROM"
    rm -rf "$work" "$cache/qemu"
    mkdir -p "$work/lists/partial"
    echo "deb $mirror $QEMU_FROM main" >"$work/sources.list"
    options=(
        -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=-
        -o "Dir::State::Lists=$work/lists" -o Dir::Cache::PkgCache= -o Dir::Cache::SrcPkgCache=
        -o Acquire::Languages=none -o APT::Sandbox::User=
    )
    apt_update apt-get "${options[@]}"
    (cd "$work" && apt-get "${options[@]}" download qemu-user)
    dpkg-deb --extract "$work"/qemu-user_*.deb "$work/unpacked"
    mv "$work/unpacked" "$cache/qemu"
    rm -r "$work"
}

set_up_qemu() {
    is_new_enough "$qemu" && return 0
    PATH=$cache/qemu/usr/bin:$PATH
    is_new_enough "$qemu" || fetch_qemu
    is_new_enough "$qemu"
}

set_up_target() {
    set_up_qemu || return 1
    install gdb-multiarch gdb-multiarch || return 1
    if [ "$debian" = - ]; then
        install "$gnu-gcc" "gcc-$gnu" && install_zig
    else
        install "$gnu-gcc" "gcc-$gnu" "libc6-dev-$debian-cross"
    fi || return 1
    case $std in
        rustup) install_std "$triple" ;;
        nightly) install_nightly ;;
    esac
}

# ---- running

# variable PREFIX NAME: prints the environment variable of this target's setting.
variable() {
    local name=${triple//-/_}
    printf '%s_%s_%s' "$1" "${name^^}" "$2"
}

# cargo_target SUBCOMMAND ARGUMENT…: runs cargo for the chosen target, with the emulator as runner.
cargo_target() {
    local subcommand=$1 under=${triple//-/_} runner="$qemu -cpu $cpu" linker settings=() status=0
    shift
    if [ "$debian" = - ]; then
        linker=$PWD/ci/zig-cc.sh
        # rustc has no C library for it to link.
        settings+=(
            "$(variable CARGO_TARGET RUSTFLAGS)=-Clink-self-contained=no"
            "$(variable CARGO_TARGET RUSTDOCFLAGS)=-Clink-self-contained=no"
            'GREENLET_ZIG_TARGET=-target arm-linux-musleabihf -mcpu=arm1176jzf_s'
        )
    else
        linker=$gnu-gcc
        runner+=" -L /usr/$gnu"
    fi
    settings+=(
        "$(variable CARGO_TARGET LINKER)=$linker"
        "$(variable CARGO_TARGET RUNNER)=$runner"
        "CC_$under=$gnu-gcc"
        "AR_$under=$gnu-ar"
        "CFLAGS_$under=${core_flags:-}"
        # GREENLET_EMULATED makes tests skip what an emulator cannot do. GREENLET_RUNNER is how tests
        # start other programs of the target, which the kernel cannot execute.
        "GREENLET_EMULATED=$LEAST_QEMU"
        "GREENLET_RUNNER=$runner"
        # Reading a program's symbols takes longer than most tests.
        RUST_BACKTRACE=0
    )
    if [ "$std" = nightly ]; then
        # Environment variables rather than arguments, so that they reach a Cargo that a test starts.
        settings+=(
            RUSTUP_TOOLCHAIN=nightly
            'CARGO_UNSTABLE_BUILD_STD=std,panic_unwind,panic_abort,test'
        )
    fi
    # Skipped tests are counted in the summary instead.
    timeout --kill-after=10 "$LIMIT" env -u GREENLET_SKIPPED "${settings[@]}" \
        cargo "$subcommand" --locked --target "$triple" "$@" || status=$?
    [ $status != 124 ] || echo "$triple: stopped after $LIMIT s" >&2
    return $status
}

tests_run() { awk '/^test result: / { n += $4 + $6 } END { print n + 0 }' "$1"; }
tests_skipped() { grep -ac '^skipped: ' "$1" || true; }

# test_switch ARGUMENT…: tests registers and unwinding of a switch that is built with these arguments.
test_switch() {
    cargo_target test --features trace "$@" --test switch -- registers:: unwind:: 2>&1 | tee "$log.switch" &&
        [ "$(tests_run "$log.switch")" -gt 0 ]
}

# run_target LOG: builds and tests, documentation examples included. If it fails, $reason says where.
run_target() {
    local log=$1
    reason='set-up'
    set_up_target || return 1

    say "$triple: building"
    reason=build
    cargo_target test --features trace --no-run || return 1
    # Only built: the tools of these features do not run here. The features change the layout of blocks.
    cargo_target build --all-features || return 1

    say "$triple: testing"
    reason=tests
    cargo_target test --features trace --no-fail-fast 2>&1 | tee "$log" || return 1
    # Fails if no test ran.
    [ "$(tests_run "$log")" -gt 0 ] || return 1

    # The switch, optimized; dependencies are not.
    say "$triple: optimized, walk $WALKED"
    reason='optimized'
    test_switch "${OPTIMIZED[@]}" || return 1
    cargo_target run --features trace "${OPTIMIZED[@]}" --example walk -- "$WALKED" >"$log.walk" || return 1
    tail -n 5 "$log.walk"
    [ -s "$log.walk" ] || return 1

    # The core built for BTI, where indirect jumps need a landing pad.
    if [ "$short" = aarch64 ]; then
        reason='marked'
        core_flags=-mbranch-protection=bti test_switch || return 1
    fi
}

# run_tests LOG ARGUMENT…: runs `cargo test` with these arguments.
run_tests() {
    reason='set-up'
    set_up_target || return 1
    reason=tests
    cargo_target test --features trace "${@:2}" 2>&1 | tee "$1"
}

main() {
    local run=run_target names=() name failed=() summary=() started log verdict
    local short triple std gnu debian qemu cpu reason

    while [ $# -gt 0 ]; do
        if [ "$1" = -- ]; then run=run_tests; shift; break; fi
        choose "$1"
        names+=("$short")
        shift
    done
    [ ${#names[@]} -gt 0 ] || mapfile -t names < <(awk 'NF { print $1 }' <<<"$TARGETS")
    mkdir -p "$cache"

    for name in "${names[@]}"; do
        choose "$name"
        log=$cache/$short.log
        rm -f "$log" "$log.walk"; : >"$log"
        started=$SECONDS
        if "$run" "$log" "$@"; then
            verdict=PASS
        else
            verdict="FAIL ($reason)"
            failed+=("$short")
        fi
        summary+=("$(printf '%-14s %-36s %4d tests, %d skipped %5d s' "$verdict" "$triple" \
            "$(tests_run "$log")" "$(tests_skipped "$log")" "$((SECONDS - started))")")
    done

    say summary
    printf '%s\n' "${summary[@]}"
    [ ${#failed[@]} = 0 ] || { printf 'failed: %s\n' "${failed[*]}"; exit 1; }
}

main "$@"
