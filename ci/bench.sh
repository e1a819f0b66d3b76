#!/usr/bin/env bash
# Measures this crate beside its peers (benches/peers).
#
#   ci/bench.sh [--quick] [--only WORDS] [--json FILE]     --help says what they mean
#
# Installs what that needs and is missing: a C++ compiler and boost.context from Debian, Python's
# greenlet from PyPI into an environment of its own under Cargo's target directory.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PACKAGES='g++ libboost-context-dev python3-venv'

installed() { dpkg-query --show --showformat='${Status}\n' "$1" 2>/dev/null | grep -q '^install ok installed'; }

missing=()
for package in $PACKAGES; do
    installed "$package" || missing+=("$package")
done
if [ ${#missing[@]} != 0 ]; then
    root=()
    [ "$(id -u)" = 0 ] || root=(sudo)
    "${root[@]}" apt-get update
    "${root[@]}" apt-get install -y --no-install-recommends "${missing[@]}"
fi

python=${CARGO_TARGET_DIR:-target}/peers-python
if ! "$python/bin/python" -c 'import greenlet' 2>/dev/null; then
    python3 -m venv --clear "$python"
    "$python/bin/pip" install --quiet --disable-pip-version-check greenlet
fi

exec cargo run --locked --profile bench -p greenlet-peers -- --python "$python/bin/python" "$@"
