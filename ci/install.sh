# shellcheck shell=bash
# What scripts need of Debian and of rustup, where the machine lacks it. To be sourced.

# as_root COMMAND…
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# apt ARGUMENT…: apt-get, which waits for another one to finish.
apt() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 "$@"; }

# An index may be replaced while it is read: the next try gets it whole.
apt_update() {
    local try
    for try in 1 2 3; do
        "$@" update --error-on=any && return 0
        [ "$try" = 3 ] || sleep 10
    done
    return 1
}

# install THING PACKAGE…: the packages that bring a command or a file, if it is missing.
install() {
    if ! command -v "$1" >/dev/null && ! [ -e "$1" ]; then
        apt_update apt && apt install -y --no-install-recommends "${@:2}"
    fi
}

# install_std TRIPLE: rustup's standard library for a target, if it is missing.
install_std() {
    [ -d "$(rustc --print target-libdir --target "$1")" ] || rustup target add "$1"
}

# A nightly Rust with the sources of its standard library.
install_nightly() {
    local sources=lib/rustlib/src/rust/library/Cargo.lock
    [ -e "$(rustc +nightly --print sysroot 2>/dev/null)/$sources" ] ||
        rustup toolchain install nightly --no-self-update --profile minimal --component rust-src
}
