# shellcheck shell=bash
# Functions that install what other scripts need, if it is missing, from Debian, rustup and PyPI. Source
# this.

# as_root COMMAND…: runs it as root, by sudo for other users.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# one_at_a_time COMMAND…: runs it while no other script installs anything.
one_at_a_time() {
    local target=${CARGO_TARGET_DIR:-target}
    mkdir -p "$target"
    (
        flock 9
        "$@"
    ) 9>"$target/install.lock"
}

apt() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 "$@"; }

# rustup does not lock the toolchain that it changes.
rustup() { one_at_a_time command rustup "$@"; }

# apt_update COMMAND…: updates the package index by apt or apt-get. Retries, because a mirror may replace
# the index while it is read.
apt_update() {
    local try
    for try in 1 2 3; do
        "$@" update --error-on=any && return 0
        [ "$try" = 3 ] || sleep 10
    done
    return 1
}

# install THING PACKAGE…: installs the packages if the command or file THING is missing.
install() {
    command -v "$1" >/dev/null || [ -e "$1" ] || install_packages "${@:2}"
}

update_and_install() { apt_update apt && apt install -y --no-install-recommends "$@"; }
install_packages() { one_at_a_time update_and_install "$@"; }

# install_std TRIPLE: installs the target's standard library, if it is missing.
install_std() {
    [ -d "$(rustc --print target-libdir --target "$1")" ] || rustup target add "$1"
}

# Installs a nightly Rust with the sources of its standard library, if it is missing.
install_nightly() {
    local sources=lib/rustlib/src/rust/library/Cargo.lock
    [ -e "$(rustc +nightly --print sysroot 2>/dev/null)/$sources" ] ||
        rustup toolchain install nightly --no-self-update --profile minimal --component rust-src
}

# install_environment DIRECTORY REQUIREMENTS PYTHON: makes a Python environment with the listed packages
# of PyPI, whose hashes must match.
install_environment() {
    local at=$1 wanted=$2 python=$3
    cmp -s "$wanted" "$at/installed" && return 0
    # Debian packages it apart from Python.
    "$python" -c 'import ensurepip' 2>/dev/null || install_packages python3 python3-venv || return 1
    "$python" -m venv --clear "$at" &&
        "$at/bin/pip" install --quiet --disable-pip-version-check \
            --require-hashes --only-binary :all: -r "$wanted" &&
        cp "$wanted" "$at/installed"
}

# Installs zig, a C compiler and linker for many systems. Sets $GREENLET_ZIG for ci/zig-cc.sh.
install_zig() {
    local at
    at=$(realpath -m "${CARGO_TARGET_DIR:-target}")/zig
    export GREENLET_ZIG=$at/bin/python
    install_environment "$at" ci/zig.txt python3
}
