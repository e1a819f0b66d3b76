#!/usr/bin/env bash
# Checks formatting, lints, scripts, documentation, and which files the package contains. Runs all checks,
# and fails at the end if any failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source-path=SCRIPTDIR/..
. ci/steps.sh

# The files that the package may contain: what a user needs to build the crate and to read about it. One
# extended regular expression a line, each of which must match a file.
PACKAGED='
Cargo\.toml
Cargo\.(toml\.orig|lock)|\.cargo_vcs_info\.json
build\.rs
asm/(x86_64(_windows)?|aarch64|riscv|arm)\.S
asm/([a-z]+\.h|README\.md)
src/([a-z0-9_]+/)*[a-z0-9_]+\.rs
src/diagnostics/greenlet-gdb\.py
src/guide/[a-z_]+\.md
tests/compile_fail(_without_std)?\.md
README\.md
CHANGELOG\.md
LICENSE-MIT
LICENSE-APACHE
'

format() {
    cargo fmt --all --check &&
        # Packages outside the workspace, which tests build.
        rustfmt --check --edition 2024 tests/two-versions/src/main.rs tests/large-messages/src/{lib,bin/large,bin/small}.rs &&
        # Built for boards only.
        cargo fmt --manifest-path tests/boards/Cargo.toml --check
}

lint() {
    cargo clippy --locked --all-targets -- -D warnings &&
        cargo clippy --locked --all-targets --all-features -- -D warnings &&
        cargo clippy --locked -p greenlet --no-default-features --lib --test without_std -- -D warnings &&
        cargo clippy --locked -p greenlet-hub-bench --all-targets -- -D warnings || return 1
    # Its build script compiles C++.
    if command -v c++ >/dev/null && [ -e /usr/include/boost/context/fiber.hpp ]; then
        cargo clippy --locked -p greenlet-peers --all-targets -- -D warnings
    else
        skip 'lint: benches/peers needs g++ and libboost-context-dev'
    fi
}

scripts() {
    if command -v shellcheck >/dev/null; then
        shellcheck --external-sources ci/*.sh .ci/run
    else
        skip 'scripts: shellcheck is not installed'
    fi
}

document() {
    local features
    for features in --all-features --no-default-features; do
        RUSTDOCFLAGS="${RUSTDOCFLAGS:-} -D warnings" cargo doc --locked -p greenlet --no-deps "$features" || return 1
    done
}

package() {
    local listed patterns pattern surplus status=0
    listed=$(cargo package -p greenlet --list --locked --allow-dirty) || return 1
    patterns=$(sed '/^$/d; s/.*/^(&)$/' <<<"$PACKAGED")
    if surplus=$(grep -vE "$patterns" <<<"$listed"); then
        printf 'files that the package should not contain:\n%s\n' "$surplus" >&2
        status=1
    fi
    while read -r pattern; do
        if ! grep -qE "$pattern" <<<"$listed"; then
            printf 'no file of the package matches %s\n' "$pattern" >&2
            status=1
        fi
    done <<<"$patterns"
    return "$status"
}

for check in format lint scripts document package; do step "$check"; done
all_passed 'all checks passed'
