#!/usr/bin/env bash
# Checks what only a release needs: the changelog has a heading for it; the address of the repository is
# set; a tag has its version; the package builds, and its examples run without the rest of the
# repository; docs.rs will build its pages; no dependency has an unwanted licence or a known
# vulnerability; and the version admits all changes of the public API. Publishes nothing.
#
#   ci/release.sh
#
# Runs all checks, lists at the end which failed, and fails if any did. Installs cargo-deny and
# cargo-semver-checks under Cargo's target directory where they are missing, which takes minutes.
# Needs a network: for the registry, and for the list of known faults.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source-path=SCRIPTDIR/..
. ci/steps.sh

target=${CARGO_TARGET_DIR:-target}
PATH=$PATH:$(realpath -m "$target/release-tools")/bin

install_tool() {
    command -v "$1" >/dev/null || cargo install --locked --root "$target/release-tools" "$1"
}

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)

# As "## [0.1.0] - 2026-11-24".
changelog() {
    if ! grep -qE "^## \[${version//./\\.}\] - [0-9]{4}-[0-9]{2}-[0-9]{2}\$" CHANGELOG.md; then
        echo "CHANGELOG.md has no heading for $version and its day" >&2
        return 1
    fi
}

# crates.io links to it.
repository() {
    if ! grep -qE '^repository = "https://[^"…]+"$' Cargo.toml; then
        echo 'Cargo.toml has no repository = "https://..."' >&2
        return 1
    fi
}

# A commit that is tagged as a version has that one.
tag() {
    local tags
    tags=$(git tag --points-at HEAD --list 'v*') || return 1
    if [ -n "$tags" ] && ! grep -qxF "v$version" <<<"$tags"; then
        echo "the version is $version, and the tag is $tags" >&2
        return 1
    fi
}

publish() { cargo publish -p greenlet --locked --dry-run; }

# The package that `publish` has made.
examples() {
    cargo test --doc --all-features --manifest-path "$target/package/greenlet-$version/Cargo.toml"
}

# As docs.rs does, which has a nightly Rust for the marks of features.
pages() {
    RUSTDOCFLAGS='--cfg docsrs -D warnings' \
        cargo "+${GREENLET_TOOLCHAIN:-nightly}" doc --locked -p greenlet --no-deps --all-features
}

dependencies() { install_tool cargo-deny && cargo deny --config ci/deny.toml --all-features check; }

compatibility() {
    local last
    if ! last=$(git describe --tags --abbrev=0 --match 'v*' HEAD~ 2>/dev/null); then
        skip 'compatibility: nothing has been released that it could be compared with'
        return
    fi
    install_tool cargo-semver-checks && cargo semver-checks --baseline-rev "$last"
}

for check in changelog repository tag publish examples pages dependencies compatibility; do step "$check"; done
all_passed 'ready for a release'
