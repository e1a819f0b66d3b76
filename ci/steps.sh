# shellcheck shell=bash
# For scripts that run several steps: runs all of them, and lists at the end what failed or was skipped, and
# why. Source this after setting pipefail.

# What the steps print is kept until the end, where a log that is cut short is still read; beside it
# the names of those that failed, and how long each took, one a line.
logs_of_steps=$(mktemp -d)
failed=$logs_of_steps/.failed
times=$logs_of_steps/.times
touch "$failed" "$times"
tidy=("$logs_of_steps")
trap 'rm -rf "${tidy[@]}"' EXIT

# What was skipped, one a line. The scripts and tests that a step runs add to the same list, which
# is told and removed by the script that has made it.
if [ -z "${GREENLET_SKIPPED:-}" ]; then
    GREENLET_SKIPPED=$(mktemp)
    export GREENLET_SKIPPED
    list_of_skips=$GREENLET_SKIPPED
    tidy+=("$list_of_skips")
fi

# step COMMAND…: does it, whatever has failed before.
step() {
    local started=$SECONDS
    printf '\n==== %s\n' "$*"
    "$@" 2>&1 | tee "$logs_of_steps/${1//\//_}" || echo "$1" >>"$failed"
    printf '%5d s  %s\n' "$((SECONDS - started))" "$*" >>"$times"
}

# lanes FUNCTION…: the steps of one function beside those of another. Each line that they print is
# headed by the function that printed it.
lanes() {
    local lane
    for lane; do
        { "$lane" || echo "$lane" >>"$failed"; } 2>&1 | tee "$logs_of_steps/$lane" | sed -u "s/^/$lane: /" &
    done
    wait
}

# why STEP: of what it printed, the lines that say what was wrong, and the last ones.
why() {
    local log=$logs_of_steps/${1//\//_}
    printf '\n==== %s failed:\n' "$1"
    grep -anE '^(---- |error|FAIL|==== |== |thread .* panicked at|test result: FAILED)|FAILED$' "$log" | tail -n 25 || true
    printf '...\n'
    tail -n 15 "$log"
}

# skip WORDS: to be called by a step that cannot do all that it is for, which is then no failure.
skip() {
    printf 'skipped: %s\n' "$1"
    printf '%s\n' "$1" >>"$GREENLET_SKIPPED"
}

# all_passed WORDS: says so, or which steps failed, and ends with that. What each step took and what
# was skipped is said either way.
all_passed() {
    local skips=
    printf '\n'
    cat "$times"
    if [ -n "${list_of_skips:-}" ] && [ -s "$list_of_skips" ]; then
        skips=', but for what was skipped'
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
