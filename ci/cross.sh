#!/usr/bin/env bash
# Runs the test suite and the `walk` example on other architectures, under qemu-user.
#
#   ci/cross.sh [target…]     targets by short name or triple; default: aarch64 armv7hf riscv64
#
# Compilers, their C libraries and a Rust toolchain that has `std` for these targets come from
# Debian trixie, in a chroot that is made on the first run and kept for the next.
#
#   GREENLET_CROSS_TIMEOUT     seconds that one target's suite may take: a switch gone wrong hangs
#
# Set-up that it shares with others, and its settings, are in ci/chroot.sh.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/chroot.sh"

# std: "packaged" for a `std` that Debian ships (or one built here on a day when it cannot be
# installed: a mirror may be half updated), "source" for one that is always built here.
# The cross compiler is package gcc-GNU, the linker GNU-gcc, the sysroot /usr/GNU.
# cpu: about the least that the triple promises, so that a core which uses more is caught: armel has
# no floating point unit at all. armv7hf has more than its triple's 16 double registers because
# rustc's own std uses 32. aarch64 has every extension, with pointer authentication made cheap.
#
# short     triple                              GNU                   Debian  qemu          cpu                    std
TARGETS='
aarch64     aarch64-unknown-linux-gnu           aarch64-linux-gnu     arm64   qemu-aarch64  max,pauth-impdef=on    packaged
armv7hf     armv7-unknown-linux-gnueabihf       arm-linux-gnueabihf   armhf   qemu-arm      cortex-a9              packaged
riscv64     riscv64gc-unknown-linux-gnu         riscv64-linux-gnu     riscv64 qemu-riscv64  rv64                   packaged
armel       arm-unknown-linux-gnueabi           arm-linux-gnueabi     armel   qemu-arm      arm1176,vfp=off        source
thumbv7neon thumbv7neon-unknown-linux-gnueabihf arm-linux-gnueabihf   armhf   qemu-arm      cortex-a9              source
'
DEFAULT='aarch64 armv7hf riscv64'

TOOLS='qemu-user gdb-multiarch'
PACKAGE=greenlet
WALKED=/etc
LIMIT=${GREENLET_CROSS_TIMEOUT:-1800}
# Variables that reach the tests when they are set; nothing else of the caller's environment does.
PASSED='RUST_BACKTRACE RUST_TEST_THREADS PROPTEST_CASES CARGO_BUILD_JOBS CARGO_TERM_COLOR'

# Sets $short, $triple, … from the table's line for a short name or triple.
choose() {
    local row
    row=$(awk -v name="$1" '$1 == name || $2 == name' <<<"$TARGETS")
    [ -n "$row" ] || return 1
    read -r short triple gnu debian qemu cpu std <<<"$row"
    if [ -f "$stamps/source-$short" ]; then std=source; fi
}

# ---- set-up

install_compiler() {
    say "$triple: installing its compiler"
    apt_update inside && install_inside "gcc-$gnu" "libc6-dev-$debian-cross"
}

# The tools are named again because packages of several architectures must have one version.
install_std() {
    say "$triple: installing std"
    inside dpkg --add-architecture "$debian" || return 1
    # shellcheck disable=SC2086
    if apt_update inside && discard_std && install_inside $RUST $TOOLS "libstd-rust-web-dev:$debian"; then
        return 0
    fi
    # An architecture that cannot be updated would spoil every later update.
    inside dpkg --remove-architecture "$debian" || true
    echo "$triple: no packaged std to be had" >&2
    return 1
}

set_up_target() {
    once "compiler-$short" "$gnu $debian" install_compiler || return 1
    if [ "$std" = packaged ] && once "packaged-$short" '' install_std; then return 0; fi
    once "source-$short" "$(inside rustc --version)" \
        build_std std,panic_unwind,panic_abort,test "$(variable CARGO_TARGET LINKER)=$gnu-gcc"
}

# ---- running

# variable PREFIX NAME: what Cargo calls this target's setting.
variable() {
    local name=${triple//-/_}
    printf '%s_%s_%s' "$1" "${name^^}" "$2"
}

# cargo_target SUBCOMMAND ARGUMENT…: cargo for the chosen target, in the chroot, under the emulator.
cargo_target() {
    local subcommand=$1 name under=${triple//-/_} runner="$qemu -cpu $cpu -L /usr/$gnu" settings=() status
    shift
    for name in $PASSED; do
        [ -z "${!name+set}" ] || settings+=("$name=${!name}")
    done
    settings+=(
        "CARGO_TARGET_DIR=/target/$key"
        "$(variable CARGO_TARGET LINKER)=$gnu-gcc"
        "$(variable CARGO_TARGET RUNNER)=$runner"
        "CC_$under=$gnu-gcc"
        "AR_$under=$gnu-ar"
        "CFLAGS_$under=${core_flags:-}"
        # For tests: what cannot be asked of an emulator, and what goes in front of a program that
        # a test starts itself, as the kernel does not know how.
        GREENLET_EMULATED=1
        "GREENLET_RUNNER=$runner"
        ${CARGO_INCREMENTAL+"CARGO_INCREMENTAL=$CARGO_INCREMENTAL"}
    )
    timeout --kill-after=10 "$LIMIT" \
        chroot "$chroot" env -i -C /src HOME=/root LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        "${settings[@]}" \
        cargo "$subcommand" --locked --offline -p "$PACKAGE" --target "$triple" "$@" || {
        status=$?
        [ $status != 124 ] || echo "$triple: stopped after $LIMIT s" >&2
        return $status
    }
}

tests_run() { awk '/^test result: / { n += $4 + $6 } END { print n + 0 }' "$1"; }

# Leaves the reason in $reason when it fails. Doctests are run, too: cargo hands them to the runner.
run_target() {
    local log=$1
    reason='set-up'
    set_up_target || return 1

    say "$triple: building"
    reason=build
    # The tools' features make blocks larger, and none of the tools runs here.
    cargo_target build --all-features || return 1
    cargo_target test --features trace --no-run || return 1

    say "$triple: testing"
    reason=tests
    cargo_target test --features trace --no-fail-fast 2>&1 | tee "$log" || return 1
    # A suite that runs nothing shows nothing.
    [ "$(tests_run "$log")" -gt 0 ] || return 1

    # The core as it is where indirect jumps need a mark.
    if [ "$short" = aarch64 ]; then
        core_flags=-mbranch-protection=bti \
            cargo_target test --features trace --test registers --test unwind || return 1
    fi

    say "$triple: walk $WALKED"
    reason=walk
    cargo_target run --release --example walk -- "$WALKED" >"$log.walk" || return 1
    tail -n 5 "$log.walk"
    [ -s "$log.walk" ]
}

main() {
    local name failed=() summary=() started log verdict
    local short triple gnu debian qemu cpu std reason

    # shellcheck disable=SC2086
    [ $# -gt 0 ] || set -- $DEFAULT
    for name; do
        choose "$name" || die "no target \"$name\"; there are:$(awk 'NF { printf " %s", $1 }' <<<"$TARGETS")"
    done
    open_chroot "$TOOLS" "$repo/Cargo.toml"

    for name; do
        choose "$name"
        log=$cache/log/$key-$short
        rm -f "$log" "$log.walk"; : >"$log"
        started=$SECONDS
        if run_target "$log"; then
            verdict=PASS
        else
            verdict="FAIL ($reason)"
            failed+=("$short")
        fi
        summary+=("$(printf '%-16s %-36s %4d tests %5d s' "$verdict" "$triple" "$(tests_run "$log")" "$((SECONDS - started))")")
    done

    say summary
    printf '%s\n' "${summary[@]}"
    [ ${#failed[@]} = 0 ] || { printf 'failed: %s\n' "${failed[*]}"; exit 1; }
}

unshare_mounts "$@"
main "$@"
