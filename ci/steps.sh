# shellcheck shell=bash
# For scripts that do several things: all are done, and what failed or was skipped is said at the
# end. To be sourced.

failed=()

# What was skipped, one a line. The scripts and tests that a step runs add to the same list, which
# is told and removed by the script that has made it.
if [ -z "${GREENLET_SKIPPED:-}" ]; then
    GREENLET_SKIPPED=$(mktemp)
    export GREENLET_SKIPPED
    list_of_skips=$GREENLET_SKIPPED
    trap 'rm -f "$list_of_skips"' EXIT
fi

# step COMMAND…: does it, whatever has failed before.
step() {
    printf '\n==== %s\n' "$*"
    "$@" || failed+=("$1")
}

# skip WORDS: to be called by a step that cannot do all that it is for, which is then no failure.
skip() {
    printf 'skipped: %s\n' "$1"
    printf '%s\n' "$1" >>"$GREENLET_SKIPPED"
}

# all_passed WORDS: says so, or which steps failed, and ends with that. What was skipped is said
# either way.
all_passed() {
    local skips=
    if [ -n "${list_of_skips:-}" ] && [ -s "$list_of_skips" ]; then
        skips=', but for what was skipped'
        printf '\nskipped:\n'
        sort -u "$list_of_skips" | sed 's/^/  /'
    fi
    if [ ${#failed[@]} != 0 ]; then
        printf '\nfailed: %s\n' "${failed[*]}" >&2
        exit 1
    fi
    printf '\n%s\n' "$1$skips"
}
