# shellcheck shell=bash
# Installs what scripts need of Debian and of rustup, if it is missing. Source this.

# as_root COMMAND…
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# one_at_a_time COMMAND…: waits for what another script installs.
one_at_a_time() {
    local target=${CARGO_TARGET_DIR:-target}
    mkdir -p "$target"
    (
        flock 9
        "$@"
    ) 9>"$target/install.lock"
}

apt() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 "$@"; }

# It does not lock the toolchain that it changes.
rustup() { one_at_a_time command rustup "$@"; }

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
    command -v "$1" >/dev/null || [ -e "$1" ] || install_packages "${@:2}"
}

update_and_install() { apt_update apt && apt install -y --no-install-recommends "$@"; }
install_packages() { one_at_a_time update_and_install "$@"; }

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

# install_environment DIRECTORY REQUIREMENTS PYTHON: Python packages from PyPI, with the hashes that
# are listed, in an environment of their own.
install_environment() {
    local at=$1 wanted=$2 python=$3
    cmp -s "$wanted" "$at/installed" && return 0
    # A Debian's Python comes without this.
    "$python" -c 'import ensurepip' 2>/dev/null || install_packages python3 python3-venv || return 1
    "$python" -m venv --clear "$at" &&
        "$at/bin/pip" install --quiet --disable-pip-version-check \
            --require-hashes --only-binary :all: -r "$wanted" &&
        cp "$wanted" "$at/installed"
}

# zig, a C compiler and linker for many systems. Sets $GREENLET_ZIG for ci/zig-cc.sh.
install_zig() {
    local at
    at=$(realpath -m "${CARGO_TARGET_DIR:-target}")/zig
    export GREENLET_ZIG=$at/bin/python
    install_environment "$at" ci/zig.txt python3
}
