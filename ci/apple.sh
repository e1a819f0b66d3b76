#!/usr/bin/env bash
# Builds and links the crate, its tests and `walk` for macOS, and compares the core in them with that
# of ELF targets (tests/mach_o.rs). Does not run them.
#
#   ci/apple.sh
#
# Installs what is missing: zig from PyPI, which has stubs of Apple's system library to link against, and
# the standard libraries by rustup.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source-path=SCRIPTDIR/..
. ci/install.sh

# The programs are not debugged.
export CARGO_PROFILE_DEV_DEBUG=0

output=$(realpath -m "${CARGO_TARGET_DIR:-target}")
programs=()

# build ARCHITECTURE: builds everything, and adds `walk` to $programs.
build() {
    local triple=$1-apple-darwin under=$1_apple_darwin
    install_std "$triple"
    env \
        "CARGO_TARGET_${under^^}_LINKER=$PWD/ci/zig-cc.sh" \
        "CC_$under=$PWD/ci/zig-cc.sh" "AR_$under=$PWD/ci/zig-ar.sh" \
        "GREENLET_ZIG_TARGET=-target $1-macos" \
        SDKROOT="$PWD" \
        cargo test --locked --no-run --target "$triple" --features trace
    programs+=("$output/$triple/debug/examples/walk")
}

install_zig
for architecture in aarch64 x86_64; do build "$architecture"; done

log=$output/apple.log
GREENLET_MACH_O=$(IFS=:; echo "${programs[*]}") \
    cargo test --locked --test package -- --ignored mach_o:: 2>&1 | tee "$log"
# Fails if tests were renamed or left out.
grep -q '^test result: ok. 3 passed' "$log"
file=$(ls -l "${programs[@]}")
printf 'linked, not run:\n%s\n' "$file"
