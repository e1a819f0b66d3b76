# shellcheck shell=bash
# For scripts that do several things: all are done, and what failed is said at the end. To be
# sourced.

failed=()

# step COMMAND…: does it, whatever has failed before.
step() {
    printf '\n==== %s\n' "$*"
    "$@" || failed+=("$1")
}

# all_passed WORDS: says so, or which steps failed, and ends with that.
all_passed() {
    if [ ${#failed[@]} != 0 ]; then
        printf '\nfailed: %s\n' "${failed[*]}" >&2
        exit 1
    fi
    printf '\n%s\n' "$1"
}
