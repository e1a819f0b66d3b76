#!/usr/bin/env bash
# Checks what only a release needs, and publishes nothing:
#
#   the changelog has a heading for the version; the repository's address is set; a version tag on this
#   commit names the version; the package builds, and its examples run without the rest of the
#   repository; docs.rs can build the pages; no dependency has an unwanted licence or a known
#   vulnerability; semver allows the changes of the public API in this version.
#
#   ci/release.sh
#
# Runs all checks, and fails at the end if any failed. If cargo-deny and cargo-semver-checks are missing,
# installs them under Cargo's target directory, which takes minutes. Needs a network, for the registry
# and the list of vulnerabilities.
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

# The heading is like "## [0.1.0] - 2026-11-24".
changelog() {
    if ! grep -qE "^## \[${version//./\\.}\] - [0-9]{4}-[0-9]{2}-[0-9]{2}\$" CHANGELOG.md; then
        echo "CHANGELOG.md has no heading \"## [$version] - DATE\"" >&2
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

# A version tag on this commit names the version of Cargo.toml.
tag() {
    local tags
    tags=$(git tag --points-at HEAD --list 'v*') || return 1
    if [ -n "$tags" ] && ! grep -qxF "v$version" <<<"$tags"; then
        echo "the version is $version, but the tag is $tags" >&2
        return 1
    fi
}

publish() { cargo publish -p greenlet --locked --dry-run; }

# In the package that `publish` has made.
examples() {
    cargo test --doc --all-features --manifest-path "$target/package/greenlet-$version/Cargo.toml"
}

# As docs.rs builds them: with a nightly Rust, for the badges of features, and with clang for other targets.
pages() {
    local toolchain=${GREENLET_TOOLCHAIN:-nightly} targets target
    targets=$(sed -n '/^targets = \[/,/^\]/s/^ *"\(.*\)",$/\1/p' Cargo.toml | grep .) || return 1
    for target in $targets; do
        rustup target add --toolchain "$toolchain" "$target" &&
            DOCS_RS=1 RUSTDOCFLAGS='--cfg docsrs -D warnings' cargo "+$toolchain" doc \
                --locked -p greenlet --no-deps --features trace --target "$target" || return 1
    done
}

dependencies() { install_tool cargo-deny && cargo deny --config ci/deny.toml --all-features check; }

compatibility() {
    local last
    if ! last=$(git describe --tags --abbrev=0 --match 'v*' HEAD~ 2>/dev/null); then
        skip 'compatibility: there is no earlier release to compare with'
        return
    fi
    install_tool cargo-semver-checks && cargo semver-checks --baseline-rev "$last"
}

for check in changelog repository tag publish examples pages dependencies compatibility; do step "$check"; done
all_passed 'ready for a release'
