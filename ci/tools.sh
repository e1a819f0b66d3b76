#!/usr/bin/env bash
# Runs the suite under AddressSanitizer, ThreadSanitizer and Valgrind, each with the feature that tells
# the tool about stacks and switches. Then runs a test without the feature, which must fail with a false
# report: otherwise the first run shows nothing.
# Runs a part of the suite under Miri, with Stacked Borrows and with Tree Borrows.
#
#   ci/tools.sh [asan] [tsan] [valgrind] [miri]     default: all
#
#   GREENLET_TOOLCHAIN      the toolchain of the sanitizers and Miri, default nightly: stable Rust has
#                           none. tsan and Miri need its rust-src, because they build the standard
#                           library.
#   GREENLET_PROGRAMS       programs of each random test, default below
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source-path=SCRIPTDIR/..
. ci/install.sh

toolchain=${GREENLET_TOOLCHAIN:-nightly}
target=$(rustc -vV | sed -n 's/^host: //p')
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Without the tests that build examples and other programs, which would need the same flags.
SUITE=(abort faults model reentrancy stacks suite switch)
# Also without the soak test, which takes long and finds nothing more, and the tests that start gdb on
# this program.
NOT_HERE=(--skip soak:: --skip gdb::)

# The command in front of cargo, if any.
limit=()

# cargo_test FEATURES TEST… [-- ARGUMENT…]: runs these test binaries.
cargo_test() {
    local features=$1 tests=()
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        tests+=(--test "$1")
        shift
    done
    "${limit[@]}" cargo "${cargo[@]}" test --locked --no-fail-fast --features "$features" "${tests[@]}" "$@"
}

# sanitizer NAME PROGRAMS: sets the flags and the number of random programs for the functions below.
sanitizer() {
    cargo=("+$toolchain")
    export RUSTFLAGS="-Zsanitizer=$1" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/$1"
    export CARGO_BUILD_TARGET=$target PROPTEST_CASES=${GREENLET_PROGRAMS:-$2}
}

# needs_feature REPORT TEST [ARGUMENT…]: runs the test without the feature. It must fail and print REPORT.
# A confused tool may hang afterwards, so the time is limited.
needs_feature() {
    printf '\n== %s without the feature\n' "$2"
    local limit=(timeout --kill-after=5 180)
    if cargo_test trace "$2" -- "${@:3}" >"$log" 2>&1; then
        echo "the tool reports nothing without the feature" >&2
        return 1
    fi
    grep -aom 1 -- "$1" "$log" || { tail -n 40 "$log" >&2; return 1; }
}

asan() (
    sanitizer address 10000
    # Some tests check how a process is killed by a signal, so the sanitizer must not handle it.
    options=detect_leaks=0:handle_segv=0:handle_sigbus=0:handle_abort=0
    skip=(
        "${NOT_HERE[@]}"
        # The sanitizer keeps freed memory in a quarantine.
        --skip untracked_memory
        # Instrumented functions have no stack probes (rustc leaves them out).
        --skip s26_a_frame_larger_than_a_page_does_not_step_over_the_guard
    )
    export ASAN_OPTIONS=$options:detect_stack_use_after_return=0
    cargo_test asan,trace "${SUITE[@]}" -- "${skip[@]}" 2>&1 | tee "$log"
    # The sanitizer's message for a stack that it does not know.
    if grep -a 'ASan is ignoring requested' "$log"; then return 1; fi

    # This option moves locals to the heap, so tests of stack usage do not apply.
    export ASAN_OPTIONS=$options:detect_stack_use_after_return=1
    cargo_test asan,trace model -- "${skip[@]}"
    cargo_test asan,trace suite -- cases:: rules:: "${skip[@]}" --skip stack_saved

    # The last leak is on purpose, so there is no second check at exit.
    export ASAN_OPTIONS=$options:detect_stack_use_after_return=0:detect_leaks=1:leak_check_at_exit=0
    cargo_test asan,trace suite -- --ignored lsan::
    needs_feature 'a suspended stack is not searched' suite --ignored lsan::

    export ASAN_OPTIONS=$options:detect_stack_use_after_return=0
    needs_feature 'ASan is ignoring requested' abort
)

tsan() (
    sanitizer thread 1000
    # The sanitizer does not see the locks of a standard library that is not instrumented.
    cargo+=(-Zbuild-std)
    tests=()
    for test in "${SUITE[@]}"; do
        case $test in
            # It forks a process that has threads, and the sanitizer's own locks stay held.
            faults) ;;
            *) tests+=("$test") ;;
        esac
    done
    skip=(
        "${NOT_HERE[@]}"
        # These fork a process that has threads.
        --skip guard:: --skip limits:: --skip overflow::
        # Its signal handlers make backtraces, which allocate, and the sanitizer reports that.
        --skip signals::
        # The sanitizer's own memory grows with each greenlet.
        --skip untracked_memory
        # The sanitizer's pthread_exit does not unwind.
        --skip s28_a_forced_unwind_that_reaches_the_base_aborts_with_a_message
        # Its child is a fork of a process that has threads, and starts a thread.
        --skip a_thread_that_ends_unmaps_its_stacks_when_its_last_greenlet_dies
    )
    cargo_test tsan,trace "${tests[@]}" -- "${skip[@]}"

    # A report must not fail the run: the test looks for it.
    export TSAN_OPTIONS=exitcode=0
    cargo_test tsan,trace suite -- --ignored tsan::
    needs_feature 'an unseen race\|calls of another stack' suite --ignored tsan::
)

# Under Miri each greenlet is a thread (src/arch/miri.rs). Tests that cannot run there are marked in the
# tests, with the reason.
miri() (
    rustup component add --toolchain "$toolchain" miri rust-src
    local model failed=0 modules=(rules:: inspect:: generator:: future::)
    cargo_miri() {
        CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/miri" \
            cargo "+$toolchain" miri test --locked --features trace --test suite "$@"
    }
    # permissive-provenance: Rust and assembly exchange addresses as integers. disable-isolation: tests
    # read the environment. ignore-leaks: tests forget handles and greenlets on purpose.
    local flags='-Zmiri-permissive-provenance -Zmiri-disable-isolation -Zmiri-ignore-leaks'
    declare -A flags_of=([Stacked]='' [Tree]=-Zmiri-tree-borrows) running
    logs=$(mktemp -d)
    trap 'rm -rf "$log" "$logs"' EXIT
    MIRIFLAGS=$flags cargo_miri --no-run
    for model in "${!flags_of[@]}"; do
        MIRIFLAGS="$flags ${flags_of[$model]}" cargo_miri --no-fail-fast -- "${modules[@]}" --skip cases:: >"$logs/$model" 2>&1 &
        running[$model]=$!
    done
    for model in "${!flags_of[@]}"; do
        local status=0
        wait "${running[$model]}" || status=$?
        grep -aE '^test ' "$logs/$model" | grep -av '\.\.\. ok$' || true
        local ran
        ran=$(awk '/^test result:/ { ran += $4 } /skipped: / { ran -= 1 } END { print ran + 0 }' \
            "$logs/$model")
        printf '== %s Borrows: %d tests ran\n' "$model" "$ran"
        if [ "$status" != 0 ] || [ "$ran" -le 0 ]; then
            tail -n 60 "$logs/$model" >&2
            failed=1
        fi
    done
    return "$failed"
)

valgrind() (
    cargo=()
    export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/valgrind"
    export PROPTEST_CASES=${GREENLET_PROGRAMS:-1000}
    local runner
    runner=CARGO_TARGET_$(tr a-z- A-Z_ <<<"$target")_RUNNER
    export "$runner=valgrind --quiet --error-exitcode=9"
    tests=()
    for test in "${SUITE[@]}"; do
        case $test in
            # A child that aborts counts as an error.
            abort) ;;
            *) tests+=("$test") ;;
        esac
    done
    skip=(
        "${NOT_HERE[@]}"
        # Valgrind does not model the flags of floating-point exceptions.
        --skip registers::
        # Runs with other options below.
        --skip signals::
        # Valgrind fails with a limit of address space, with the maximum of mappings, and with a mapping
        # of 64 GiB.
        --skip is_limited --skip a_limit_of_address_space
        --skip inspecting_a_huge_stack_costs_what_inspecting_a_large_one_does
        # Takes three minutes.
        --skip guards_of_hundreds_of_sizes_take_no_more_than_of_a_few
        # The test reads below a stack pointer, which Valgrind reports.
        --skip s24_nothing_runs_on_a_stack_that_is_inspected
    )
    cargo_test valgrind,trace "${tests[@]}" -- "${skip[@]}"
    # These tests use an alternate signal stack. Valgrind recognizes it as another stack only if it is
    # further away than the largest frame, 2 MB by default.
    (
        export "$runner=valgrind --quiet --max-stackframe=131072 --error-exitcode=9"
        cargo_test valgrind,trace switch -- signals::
    )
    needs_feature '==[0-9]*== .*[Uu]ninitialised' suite cases::
)

[ $# -gt 0 ] || set -- asan tsan valgrind miri
for tool; do
    case $tool in
        asan | tsan | valgrind | miri) ;;
        *)
            echo "no tool \"$tool\"; there are: asan tsan valgrind miri" >&2
            exit 2
            ;;
    esac
done
for tool; do
    printf '\n==== %s\n' "$tool"
    "$tool"
done
