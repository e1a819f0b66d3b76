#!/usr/bin/env bash
# Builds the crate with the oldest Rust that Cargo.toml promises, and with the oldest dependencies that it
# allows.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source-path=SCRIPTDIR/..
. ci/install.sh

promised=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
rustup toolchain install "$promised" --no-self-update --profile minimal

# A copy of what a package holds: no dev-dependency, no other member of the workspace.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r build.rs asm src README.md "$work"
sed -e '/^\[workspace\]/,/^$/d' -e '/^\[dev-dependencies\]/,/^$/d' -e '/^\[\[/,/^$/d' Cargo.toml >"$work/Cargo.toml"
# The oldest versions that the requirements allow; what they need in turn is chosen as ever.
sed -i -E '/^\[(build-)?dependencies\]/,/^$/s/"([0-9.]+)"/"=\1"/' "$work/Cargo.toml"

for features in '' '--no-default-features' '--all-features'; do
    # shellcheck disable=SC2086
    cargo "+$promised" build --manifest-path "$work/Cargo.toml" --target-dir "$work/target" $features
done
echo "builds with Rust $promised"
