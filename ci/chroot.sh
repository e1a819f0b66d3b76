# A Debian in a chroot, with the Rust and the cross compilers that the machine itself lacks. Sourced
# by the scripts that run tests in it, which share one, made on the first run.
#
#   GREENLET_CROSS_ROOT        where the chroot, build output and logs are kept
# shellcheck shell=bash disable=SC2034,SC2154

SUITE=trixie
RUST='rustc-web cargo-web gcc libc6-dev'

cache=${GREENLET_CROSS_ROOT:-/var/cache/greenlet-cross}
chroot=$cache/$SUITE
stamps=$chroot/var/lib/greenlet-cross
script=$(basename "$0")
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# Cargo compares modification times, so two checkouts must not share build output.
key=$(cksum <<<"$repo" | cut -d' ' -f1)

say() { printf '\n== %s\n' "$*"; }
die() { printf '%s: %s\n' "$script" "$*" >&2; exit 2; }

# Runs the script again in a mount namespace of its own: however it ends, its mounts end with it.
unshare_mounts() {
    # shellcheck disable=SC2016
    [ "$(id -u)" = 0 ] || die "must be root, for chroot and mount: sudo env \"PATH=\$PATH\" \"HOME=\$HOME\" ci/$script"
    if [ "${GREENLET_CROSS_UNSHARED:-}" != $$ ]; then
        GREENLET_CROSS_UNSHARED=$$ exec unshare --mount --propagation private -- "$BASH" "$0" "$@"
    fi
}

# once NAME STATE COMMAND…: runs the command unless it has succeeded before in the same state.
once() {
    local stamp=$stamps/$1 state=$2
    shift 2
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$state" ]; then return 0; fi
    rm -f "$stamp"
    "$@" || return 1
    mkdir -p "$stamps"
    printf '%s\n' "$state" >"$stamp"
}

inside() { chroot "$chroot" env -u TMPDIR HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }

# An index may be replaced while it is read: the next try gets it whole.
apt_update() {
    local try
    for try in 1 2 3; do
        "$@" apt-get update --error-on=any && return 0
        [ "$try" = 3 ] || sleep 10
    done
    return 1
}

install_inside() {
    # Finishes what an interrupted run left half installed.
    inside dpkg --configure -a && inside apt-get install -y --no-install-recommends "$@"
}

install_tools() {
    say "installing $*"
    apt_update inside && install_inside "$@"
}

install_debootstrap() {
    command -v debootstrap >/dev/null && return 0
    say 'installing debootstrap'
    apt_update env && apt-get install -y --no-install-recommends debootstrap
}

# Under another name until it is whole, so that an interrupted one is made anew.
make_chroot() {
    [ -d "$chroot" ] && return 0
    say "making a $SUITE chroot in $chroot"
    rm -rf --one-file-system "$chroot.part"
    debootstrap --variant=minbase --include=ca-certificates "$SUITE" "$chroot.part" || return 1
    mv "$chroot.part" "$chroot"
}

mount_system() {
    mount --bind /proc "$chroot/proc"
    mount --rbind /dev "$chroot/dev"
    cp -L /etc/resolv.conf "$chroot/etc/resolv.conf"
}

mount_sources() {
    local registry=${CARGO_HOME:-$HOME/.cargo}/registry
    mkdir -p "$chroot/src" "$chroot/root/.cargo/registry"
    mount -o bind,ro "$repo" "$chroot/src"
    mount -o bind,ro "$registry" "$chroot/root/.cargo/registry"
}

# Outside the chroot, where the network's certificates are trusted. Without a network it is enough
# that nothing is missing.
fetch() {
    local manifest=$1 locked=
    [ ! -f "$(dirname "$manifest")/Cargo.lock" ] || locked=--locked
    cargo fetch --offline $locked --manifest-path "$manifest" 2>/dev/null ||
        cargo fetch $locked --manifest-path "$manifest"
}

# open_chroot TOOLS MANIFEST: the chroot with Rust and these packages (words), the repository in
# /src, and what the package of the manifest depends on.
open_chroot() {
    command -v cargo >/dev/null || die 'cargo is not in PATH'
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock 9

    install_debootstrap || die 'no debootstrap'
    make_chroot || die 'debootstrap failed'
    mount_system
    # shellcheck disable=SC2086
    once "tools-$script" "$RUST $1" install_tools $RUST $1 || die 'the tools could not be installed'
    fetch "$2" || die 'the dependencies could not be fetched'
    mount_sources
    mkdir -p "$cache/log"
}

# Removes the standard library of $triple with all that was compiled against it, which Cargo would
# not notice.
discard_std() {
    rm -rf "${chroot:?}/usr/lib/rustlib/$triple" "${chroot:?}/target"/*/"$triple"
}

# build_std CRATES [VARIABLE=VALUE…]: builds these crates of the standard library for $triple.
#
# Installed like packaged ones rather than built with the crate: build scripts that probe with
# rustc find them, and nothing of the crate is compiled with RUSTC_BOOTSTRAP.
build_std() {
    local crates=$1 library work=/tmp/std-$triple lib=/usr/lib/rustlib/$triple/lib
    shift
    say "$triple: building $crates"
    apt_update inside && install_inside rust-web-src || return 1
    # shellcheck disable=SC2016
    library=$(inside sh -c 'echo /usr/src/rustc-$(rustc --version | cut -d" " -f2)/library')
    RUSTC_BOOTSTRAP=1 fetch "$chroot$library/Cargo.toml" || return 1

    rm -rf "${chroot:?}$work"
    mkdir -p "$chroot$work/src"
    printf '[package]\nname = "empty"\nedition = "2024"\n' >"$chroot$work/Cargo.toml"
    echo '#![no_std]' >"$chroot$work/src/lib.rs"
    inside env -C "$work" RUSTC_BOOTSTRAP=1 "$@" \
        cargo build --release --offline --target "$triple" "-Zbuild-std=$crates" || return 1
    discard_std || return 1
    inside sh -ec "rm -f $work/target/$triple/release/deps/libempty-*
        mkdir -p $lib; cp $work/target/$triple/release/deps/*.rlib $lib; rm -r $work"
}
