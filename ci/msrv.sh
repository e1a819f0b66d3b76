#!/usr/bin/env bash
# Builds the crate with the oldest Rust that it promises to build with, Debian stable's, and with
# the oldest dependencies that Cargo.toml allows.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/chroot.sh"
unshare_mounts "$@"

# A chroot beside that of the others, whose Rust is a newer one.
chroot=$cache/$SUITE-msrv
stamps=$chroot/var/lib/greenlet-cross
RUST='rustc cargo gcc libc6-dev'
promised=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$repo/Cargo.toml")

open_chroot '' "$repo/Cargo.toml"
rustc=$(inside rustc --version | cut -d' ' -f2)
[[ $rustc == "$promised".* ]] || die "Debian's Rust is $rustc, and Cargo.toml promises $promised"

# A copy of what a package holds: no dev-dependency, no other member of the workspace.
work=$(mktemp -d "$chroot/tmp/msrv-XXXXXXXX")
trap 'rm -rf "$work"' EXIT
(cd "$repo" && cp -r build.rs asm src README.md "$work")
sed -e '/^\[workspace\]/,/^$/d' -e '/^\[dev-dependencies\]/,/^$/d' -e '/^\[\[/,/^$/d' "$repo/Cargo.toml" >"$work/Cargo.toml"
# The oldest versions that the requirements allow; what they need in turn is chosen as ever.
sed -i -E '/^\[(build-)?dependencies\]/,/^$/s/"([0-9.]+)"/"=\1"/' "$work/Cargo.toml"
fetch "$work/Cargo.toml" || die 'the oldest dependencies could not be fetched'

for features in '' '--no-default-features' '--all-features'; do
    # shellcheck disable=SC2086
    inside cargo build --offline --manifest-path "${work#"$chroot"}/Cargo.toml" $features
done
echo "builds with Rust $rustc"
