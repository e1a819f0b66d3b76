#!/usr/bin/env bash
# Measures this crate and its peers in one run (benches/peers), and prints the machine and all versions.
#
#   ci/bench.sh [--quick] [--only WORDS] [--json FILE]
#
# --help explains the options. The crate is measured twice, without its feature fp-control and with it.
#
# Installs what is missing: a C++ compiler and boost.context from Debian; Python's greenlet from PyPI,
# into an environment of its own under Cargo's target directory.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=ci/install.sh
. "$repo/ci/install.sh"

install g++ g++
install /usr/include/boost/context/fiber.hpp libboost-context-dev
python3 -c 'import ensurepip' 2>/dev/null || install_packages python3 python3-venv

python=${CARGO_TARGET_DIR:-$repo/target}/peers-python
if ! "$python/bin/python" -c 'import greenlet' 2>/dev/null; then
    python3 -m venv --clear "$python"
    "$python/bin/pip" install --quiet --disable-pip-version-check greenlet
fi

# What the figures depend on. Processors are printed as "2 × AMD EPYC, family 25, model 1", because
# virtual machines often hide the rest of the name.
awk -F '[ \t]*: ' '
    $1 == "cpu family" { family = $2 }
    $1 == "model" { model = $2 }
    $1 == "model name" { name = $2 }
    $1 == "" && name { print name ", family " family ", model " model; name = "" }
' /proc/cpuinfo | sort | uniq -c | awk '{ $1 = $1 " ×"; print }'
uname -sr
rustc --version
g++ --version | sed -n 1p
cargo tree --locked --manifest-path "$repo/Cargo.toml" -p greenlet-peers --depth 1 --edges normal --prefix none --format '{p}' |
    grep -E '^(corosensei|generator|wasmtime-)'
sed -n 's/^#define BOOST_LIB_VERSION "\(.*\)"/boost \1/p' /usr/include/boost/version.hpp
"$python/bin/python" -c 'import greenlet, platform; print("CPython", platform.python_version(), "with greenlet", greenlet.__version__)'
date +%F
echo

# The program is built twice. The one without the feature starts the other and prints both results.
build() {
    cargo build --locked --profile bench --manifest-path "$repo/Cargo.toml" -p greenlet-peers "$@"
}
target=${CARGO_TARGET_DIR:-$repo/target}
build --features fp-control
cp "$target/release/greenlet-peers" "$target/peers-fp-control"
build
exec "$target/release/greenlet-peers" --fp-control "$target/peers-fp-control" \
    --python "$python/bin/python" "$@"
