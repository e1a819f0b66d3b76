#!/usr/bin/env bash
# Runs the programs of tests/boards on emulated boards, without an operating system, and measures the
# memory that a greenlet takes there.
#
#   ci/boards.sh [target…]         default: all, see tests/boards/.cargo/config.toml
#
#   GREENLET_BOARDS_TIMEOUT        seconds until a program is stopped (a wrong switch may hang); default 60
#
# Installs what is missing: compilers and emulators from Debian, Rust's `core` and `alloc` by rustup.
# To run one program, `cargo run --target …` in tests/boards suffices.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source-path=SCRIPTDIR/..
. ci/install.sh

TARGETS=(
    thumbv6m-none-eabi thumbv7em-none-eabihf
    riscv64gc-unknown-none-elf riscv64imac-unknown-none-elf riscv32imac-unknown-none-elf
)
# Seconds. The tests take one.
LIMIT=${GREENLET_BOARDS_TIMEOUT:-60}
# Bytes of text that a program has more with a greenlet, at most. One use of core's formatting of numbers or
# structs in the crate adds thousands. Raise it only in the commit that needs it.
MOST_TEXT=10500

output=$(realpath -m "${CARGO_TARGET_DIR:-target}")/boards

say() { printf '\n== %s\n' "$*"; }
die() { printf 'boards.sh: %s\n' "$*" >&2; exit 2; }

set_up() {
    install arm-none-eabi-gcc gcc-arm-none-eabi &&
        install riscv64-unknown-elf-gcc gcc-riscv64-unknown-elf &&
        install qemu-system-arm qemu-system-arm &&
        install qemu-system-riscv32 qemu-system-misc &&
        install_std "$triple"
}

# cargo_board SUBCOMMAND ARGUMENT…: runs cargo in tests/boards for $triple.
cargo_board() {
    (cd tests/boards && CARGO_TARGET_DIR=$output RUSTFLAGS='-D warnings' \
        cargo "$1" --locked --target "$triple" "${@:2}")
}

# run PROFILE PROGRAM: runs it on the emulated board.
run() {
    timeout --kill-after=10 "$LIMIT" bash -c 'cargo_board run --quiet --profile "$@"' run "$1" --bin "$2" </dev/null || {
        local status=$?
        [ $status != 124 ] || echo "$triple: $2 stopped after $LIMIT s" >&2
        return $status
    }
}
# For the shell that `timeout` starts.
export -f cargo_board
export output

# text PROGRAM: prints the bytes of its code and constants.
text() { riscv64-unknown-elf-size "$output/$triple/release/$1" | awk 'END { print $1 }'; }

# run_target LOG: builds, tests and measures. If it fails, $reason says where; otherwise $measured has
# the measures.
run_target() {
    local log=$1 profile
    reason='set-up'
    set_up || return 1

    for profile in dev release; do
        say "$triple: building, $profile"
        reason="build, $profile"
        cargo_board build --profile "$profile" --bins || return 1
        reason="tests, $profile"
        run "$profile" suite 2>&1 | tee "$log" || return 1
        # Fails if no test ran.
        tail -n 1 "$log" | grep -qx '[1-9][0-9]* passed, 0 failed' || return 1
    done

    # The sizes of these two are measured, so they must work.
    reason='smallest program'
    run release smallest || return 1
    run release nothing || return 1
    local with without
    with=$(text smallest) without=$(text nothing)
    reason="text, $((with - without)) bytes more with a greenlet"
    [ $((with - without)) -le "$MOST_TEXT" ] || return 1
    measured="$with bytes of text with a greenlet, $without without"
    measured+=$'\n'"$(sed -n 's/^a greenlet: /each greenlet: /p' "$log")"
}

main() {
    local failed=() summary=() log
    local triple reason measured
    export triple

    [ $# -gt 0 ] || set -- "${TARGETS[@]}"
    for triple; do
        [[ " ${TARGETS[*]} " == *" $triple "* ]] || die "no target \"$triple\"; there are: ${TARGETS[*]}"
    done
    mkdir -p "$output"

    for triple; do
        log=$output/$triple.log
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

main "$@"
