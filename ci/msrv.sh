#!/usr/bin/env bash
# Builds the crate with the oldest Rust and the oldest direct dependencies that Cargo.toml allows.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source-path=SCRIPTDIR/..
. ci/install.sh

promised=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
rustup toolchain install "$promised" --no-self-update --profile minimal

# A copy of the package, without dev-dependencies and the other members of the workspace.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r build.rs asm src README.md "$work"
sed -e '/^\[workspace\]/,/^$/d' -e '/^\[dev-dependencies\]/,/^$/d' -e '/^\[\[/,/^$/d' Cargo.toml >"$work/Cargo.toml"
# Pins direct dependencies to their oldest allowed version. Cargo chooses indirect ones as usual.
sed -i -E '/^\[(build-)?dependencies\]/,/^$/s/"([0-9.]+)"/"=\1"/' "$work/Cargo.toml"

for features in '' '--no-default-features' '--all-features'; do
    # shellcheck disable=SC2086
    cargo "+$promised" build --manifest-path "$work/Cargo.toml" --target-dir "$work/target" $features
done
echo "builds with Rust $promised"
