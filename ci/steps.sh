# shellcheck shell=bash
# For scripts that run several steps: runs all of them, and says at the end which failed or were skipped,
# and why. Source this after setting pipefail.

# The output of the steps is kept, because the end of a long log is read first. Beside it lie the names
# of the failed steps and the time of each, one a line.
logs_of_steps=$(mktemp -d)
failed=$logs_of_steps/.failed
times=$logs_of_steps/.times
touch "$failed" "$times"
tidy=("$logs_of_steps")
trap 'rm -rf "${tidy[@]}"' EXIT

# The list of what was skipped, one a line. Scripts and tests that a step runs add to the same list. The
# script that made it prints and removes it.
if [ -z "${GREENLET_SKIPPED:-}" ]; then
    GREENLET_SKIPPED=$(mktemp)
    export GREENLET_SKIPPED
    list_of_skips=$GREENLET_SKIPPED
    tidy+=("$list_of_skips")
fi

# step COMMAND…: runs it, also if an earlier step has failed.
step() {
    local started=$SECONDS
    printf '\n==== %s\n' "$*"
    "$@" 2>&1 | tee "$logs_of_steps/${1//\//_}" || echo "$1" >>"$failed"
    printf '%5d s  %s\n' "$((SECONDS - started))" "$*" >>"$times"
}

# lanes FUNCTION…: runs functions that consist of steps, in parallel. Each line of output begins with the
# function's name.
lanes() {
    local lane
    for lane; do
        { "$lane" || echo "$lane" >>"$failed"; } 2>&1 | tee "$logs_of_steps/$lane" | sed -u "s/^/$lane: /" &
    done
    wait
}

# why STEP: prints the lines of its output that name failures, and the last lines.
why() {
    local log=$logs_of_steps/${1//\//_}
    printf '\n==== %s failed:\n' "$1"
    grep -anE '^(---- |error|FAIL|==== |== |thread .* panicked at|test result: FAILED)|FAILED$' "$log" | tail -n 25 || true
    printf '...\n'
    tail -n 15 "$log"
}

# skip WORDS: records that a step left something out, which is not a failure.
skip() {
    printf 'skipped: %s\n' "$1"
    printf '%s\n' "$1" >>"$GREENLET_SKIPPED"
}

# all_passed WORDS: prints the time of each step and what was skipped. Then prints WORDS if no step failed;
# otherwise prints which failed and why, and exits with status 1.
all_passed() {
    local skips=
    printf '\n'
    cat "$times"
    if [ -n "${list_of_skips:-}" ] && [ -s "$list_of_skips" ]; then
        skips=', except what was skipped'
        printf '\nskipped:\n'
        sort -u "$list_of_skips" | sed 's/^/  /'
    fi
    if [ -s "$failed" ]; then
        local name
        while read -r name; do why "$name"; done <"$failed" >&2
        printf '\nfailed: %s\n' "$(paste -sd ' ' "$failed")" >&2
        exit 1
    fi
    printf '\n%s\n' "$1$skips"
}
