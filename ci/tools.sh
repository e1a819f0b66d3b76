#!/usr/bin/env bash
# Runs the suite under AddressSanitizer, ThreadSanitizer and Valgrind, each with the feature that
# tells the tool of stacks and switches, and then shows that the feature is needed: without it
# the tool must report what is not so, or the run proves nothing.
# Runs a part of the suite under Miri, by both models of which pointers may be used when.
#
#   ci/tools.sh [asan] [tsan] [valgrind] [miri]     default: all
#
#   GREENLET_TOOLCHAIN      of the sanitizers and Miri, which stable Rust does not have: nightly.
#                           tsan and Miri need its rust-src, because they must see into the
#                           standard library.
#   GREENLET_PROGRAMS       programs of each random test, default below
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source-path=SCRIPTDIR/..
. ci/install.sh

toolchain=${GREENLET_TOOLCHAIN:-nightly}
target=$(rustc -vV | sed -n 's/^host: //p')
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Not here: the tests that build examples and other programs, which would need the same flags.
SUITE=(abort faults model reentrancy stacks suite switch)
# Nor what takes long and shows nothing more, and what debugs this program with another.
NOT_HERE=(--skip soak:: --skip gdb::)

# What cargo_test runs under.
limit=()

# cargo_test FEATURES TEST… [-- ARGUMENT…]
cargo_test() {
    local features=$1 tests=()
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        tests+=(--test "$1")
        shift
    done
    "${limit[@]}" cargo "${cargo[@]}" test --locked --no-fail-fast --features "$features" "${tests[@]}" "$@"
}

# sanitizer NAME PROGRAMS: sets what the functions below run with.
sanitizer() {
    cargo=("+$toolchain")
    export RUSTFLAGS="-Zsanitizer=$1" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/$1"
    export CARGO_BUILD_TARGET=$target PROPTEST_CASES=${GREENLET_PROGRAMS:-$2}
}

# needs_feature REPORT TEST [ARGUMENT…]: without the feature the test must fail, with this in what
# is printed. A tool that is led astray may also hang after it.
needs_feature() {
    printf '\n== %s without the feature\n' "$2"
    local limit=(timeout --kill-after=5 180)
    if cargo_test trace "$2" -- "${@:3}" >"$log" 2>&1; then
        echo "the tool is content without being told of stacks" >&2
        return 1
    fi
    grep -aom 1 -- "$1" "$log" || { tail -n 40 "$log" >&2; return 1; }
}

asan() (
    sanitizer address 10000
    # A process that is killed by a signal is what some tests are about.
    options=detect_leaks=0:handle_segv=0:handle_sigbus=0:handle_abort=0
    skip=(
        "${NOT_HERE[@]}"
        # Freed memory stays in a quarantine.
        --skip untracked_memory
        # Instrumented functions have no stack probes (rustc leaves them out).
        --skip s26_a_frame_larger_than_a_page_does_not_step_over_the_guard
    )
    export ASAN_OPTIONS=$options:detect_stack_use_after_return=0
    cargo_test asan,trace "${SUITE[@]}" -- "${skip[@]}" 2>&1 | tee "$log"
    # The sanitizer's words when it meets a stack that it does not know.
    if grep -a 'ASan is ignoring requested' "$log"; then return 1; fi

    # Locals are on the heap then, so what is in use of a stack is not what tests expect.
    export ASAN_OPTIONS=$options:detect_stack_use_after_return=1
    cargo_test asan,trace model -- "${skip[@]}"
    cargo_test asan,trace suite -- cases:: rules:: "${skip[@]}" --skip stack_saved

    # The last leak is on purpose, and so not to be told again at the end.
    export ASAN_OPTIONS=$options:detect_stack_use_after_return=0:detect_leaks=1:leak_check_at_exit=0
    cargo_test asan,trace suite -- --ignored lsan::
    needs_feature 'a suspended stack is not searched' suite --ignored lsan::

    export ASAN_OPTIONS=$options:detect_stack_use_after_return=0
    needs_feature 'ASan is ignoring requested' abort
)

tsan() (
    sanitizer thread 1000
    # Without a standard library that is instrumented too, its locks are not seen.
    cargo+=(-Zbuild-std)
    tests=()
    for test in "${SUITE[@]}"; do
        case $test in
            # Its process forks while it has threads, and the sanitizer's own locks stay held.
            faults) ;;
            *) tests+=("$test") ;;
        esac
    done
    skip=(
        "${NOT_HERE[@]}"
        # These fork, too.
        --skip guard:: --skip limits:: --skip overflow::
        # Its handlers allocate, as backtraces do, and that is reported.
        --skip signals::
        # The sanitizer's own memory grows with each greenlet.
        --skip untracked_memory
        # It has its own pthread_exit, through which nothing unwinds.
        --skip s28_a_forced_unwind_that_reaches_the_base_aborts_with_a_message
        # Its child starts a thread, after a fork of a process that has some.
        --skip a_thread_that_ends_unmaps_its_stacks_when_its_last_greenlet_dies
    )
    cargo_test tsan,trace "${tests[@]}" -- "${skip[@]}"

    # It is made to report what it would fail for otherwise.
    export TSAN_OPTIONS=exitcode=0
    cargo_test tsan,trace suite -- --ignored tsan::
    needs_feature 'an unseen race\|calls of another stack' suite --ignored tsan::
)

# Each greenlet is a thread there (src/arch/miri.rs). What cannot run is marked in the tests, with
# the reason.
miri() (
    rustup component add --toolchain "$toolchain" miri rust-src
    local model failed=0 modules=(rules:: inspect:: generator:: future::)
    cargo_miri() {
        CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/miri" \
            cargo "+$toolchain" miri test --locked --features trace --test suite "$@"
    }
    # Addresses travel as integers between Rust and assembly; tests read the environment; and they
    # forget handles and greenlets on purpose.
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
        # It has no flags of floating-point exceptions.
        --skip registers::
        # Below.
        --skip signals::
        # It takes neither a limit of address space nor as many mappings as there may be, nor 64 GiB
        # in one.
        --skip is_limited
        --skip inspecting_a_huge_stack_costs_what_inspecting_a_large_one_does
        # Three minutes.
        --skip guards_of_hundreds_of_sizes_take_no_more_than_of_a_few
        # The test reads a stack below its end, and Valgrind allows that to nobody.
        --skip s24_nothing_runs_on_a_stack_that_is_inspected
    )
    cargo_test valgrind,trace "${tests[@]}" -- "${skip[@]}"
    # It brings a signal stack, and Valgrind takes that for another stack only where it is further
    # away than a frame may be large: by itself that is 2 MB.
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
