#!/usr/bin/env bash
# Builds the crate with the oldest Rust that it promises to build with, Debian stable's, and with
# the oldest dependencies that Cargo.toml allows. As root, in a chroot that is kept; needs a Debian
# with debootstrap in its archive.
#
#   GREENLET_MSRV_ROOT   where the chroot is kept
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo 'msrv.sh: must be root, for chroot and mount' >&2; exit 2; }
if [ "${GREENLET_MSRV_UNSHARED:-}" != $$ ]; then
    # However this ends, its mounts end with it.
    GREENLET_MSRV_UNSHARED=$$ exec unshare --mount --propagation private -- "$BASH" "${BASH_SOURCE[0]}"
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

chroot=${GREENLET_MSRV_ROOT:-/var/cache/greenlet-msrv}
promised=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

inside() { chroot "$chroot" env -u TMPDIR HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }

if [ ! -f "$chroot/complete" ]; then
    command -v debootstrap >/dev/null || { apt-get update && apt-get install -y --no-install-recommends debootstrap; }
    rm -rf --one-file-system "$chroot"
    debootstrap --variant=minbase --include=ca-certificates trixie "$chroot"
    cp -L /etc/resolv.conf "$chroot/etc/resolv.conf"
    inside apt-get update
    inside apt-get install -y --no-install-recommends rustc cargo gcc libc6-dev
    touch "$chroot/complete"
fi

# A copy of what a package holds: no dev-dependency, no other member of the workspace.
work=$(mktemp -d "$chroot/tmp/msrv.XXXXXX")
trap 'rm -rf "$work"' EXIT
cp -r build.rs asm src README.md "$work"
sed -e '/^\[workspace\]/,/^$/d' -e '/^\[dev-dependencies\]/,/^$/d' -e '/^\[\[/,/^$/d' Cargo.toml >"$work/Cargo.toml"
# The oldest versions that the requirements allow; what they need in turn is chosen as ever.
sed -i -E '/^\[(build-)?dependencies\]/,/^$/s/"([0-9.]+)"/"=\1"/' "$work/Cargo.toml"
# Outside the chroot, where the network's certificates are trusted.
cargo fetch --manifest-path "$work/Cargo.toml"
mkdir -p "$chroot/root/.cargo/registry"
mount -o bind,ro "${CARGO_HOME:-$HOME/.cargo}/registry" "$chroot/root/.cargo/registry"

rustc=$(inside rustc --version | cut -d' ' -f2)
[[ $rustc == "$promised".* ]] || { echo "msrv.sh: Debian's Rust is $rustc, and Cargo.toml promises $promised" >&2; exit 1; }
for features in '' '--no-default-features' '--all-features'; do
    # shellcheck disable=SC2086
    inside cargo build --offline --manifest-path "${work#"$chroot"}/Cargo.toml" $features
done
echo "builds with Rust $rustc"
