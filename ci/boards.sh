#!/usr/bin/env bash
# Runs the programs of tests/boards on emulated boards, without an operating system, and says what
# a greenlet takes there.
#
#   ci/boards.sh [target…]         default: all, see tests/boards/.cargo/config.toml
#
#   GREENLET_BOARDS_TIMEOUT        seconds that one program may run: a switch gone wrong hangs
#
# Compilers and emulators come from Debian, in the chroot of ci/chroot.sh; Rust's `core` and `alloc`
# are built there. Where rustup can add the targets, `cargo run --target …` in tests/boards does
# the same with arm-none-eabi and riscv64-unknown-elf gcc and binutils, and qemu-system.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/chroot.sh"

TARGETS='thumbv6m-none-eabi thumbv7em-none-eabihf riscv64gc-unknown-none-elf riscv64imac-unknown-none-elf'
TOOLS='gcc-arm-none-eabi gcc-riscv64-unknown-elf qemu-system-arm qemu-system-riscv'
# The tests take a second.
LIMIT=${GREENLET_BOARDS_TIMEOUT:-60}

output=/target/$key

# cargo_board SUBCOMMAND ARGUMENT…: cargo in the chroot, in tests/boards, for $triple.
cargo_board() {
    chroot "$chroot" env -i -C /src/tests/boards HOME=/root LC_ALL=C.UTF-8 \
        PATH=/usr/sbin:/usr/bin:/sbin:/bin "CARGO_TARGET_DIR=$output" RUSTFLAGS='-D warnings' \
        cargo "$1" --locked --offline --target "$triple" "${@:2}"
}

# run PROFILE PROGRAM: on the board.
run() {
    timeout --kill-after=10 "$LIMIT" bash -c 'cargo_board run --quiet --profile "$@"' run "$1" --bin "$2" </dev/null || {
        local status=$?
        [ $status != 124 ] || echo "$triple: $2 stopped after $LIMIT s" >&2
        return $status
    }
}
# For the shell that `timeout` starts.
export -f cargo_board
export chroot output

# text PROGRAM: bytes of code and constants.
text() { inside riscv64-unknown-elf-size "$output/$triple/release/$1" | awk 'END { print $1 }'; }

# Leaves the reason in $reason when it fails, else the measures in $measured.
run_target() {
    local log=$1 profile
    reason='set-up'
    # With bitcode, as others are, for programs that are optimized as a whole.
    once "boards-$triple" "$(inside rustc --version)" \
        build_std core,alloc RUSTFLAGS='-C embed-bitcode=yes' || return 1

    for profile in dev release; do
        say "$triple: building, $profile"
        reason="build, $profile"
        cargo_board build --profile "$profile" --bins || return 1
        reason="tests, $profile"
        run "$profile" suite 2>&1 | tee "$log" || return 1
        # A suite that runs nothing shows nothing.
        tail -n 1 "$log" | grep -qx '[1-9][0-9]* passed, 0 failed' || return 1
    done

    # Measured only if they work.
    reason='smallest program'
    run release smallest || return 1
    run release nothing || return 1
    measured="$(text smallest) bytes of text with a greenlet, $(text nothing) without"
    measured+=$'\n'"$(sed -n 's/^a greenlet: /each greenlet: /p' "$log")"
}

main() {
    local failed=() summary=() log
    local triple reason measured
    export triple

    # shellcheck disable=SC2086
    [ $# -gt 0 ] || set -- $TARGETS
    for triple; do
        [[ " $TARGETS " == *" $triple "* ]] || die "no target \"$triple\"; there are: $TARGETS"
    done
    open_chroot "$TOOLS" "$repo/tests/boards/Cargo.toml"

    for triple; do
        log=$cache/log/$key-$triple
        if run_target "$log"; then
            summary+=("PASS $triple: $(tail -n 1 "$log")")
            while read -r line; do summary+=("     $line"); done <<<"$measured"
        else
            summary+=("FAIL $triple ($reason)")
            failed+=("$triple")
        fi
    done

    say summary
    printf '%s\n' "${summary[@]}"
    [ ${#failed[@]} = 0 ] || { printf 'failed: %s\n' "${failed[*]}"; exit 1; }
}

unshare_mounts "$@"
main "$@"
