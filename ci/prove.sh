#!/usr/bin/env bash
# Proves the switch cores for all register values and all contents of memory: what asm/README.md
# promises, on their object code. tests/prove/ has the prover.
#
#   ci/prove.sh [VARIANT…]        default: all variants of the ABIs, with a sample of the mutants
#   ci/prove.sh --all             with all mutants: these take about an hour
#   ci/prove.sh --elf PROGRAM     the core in a linked program
#
# Installs the cross compilers (apt) and the Python packages (an environment of its own) that it needs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source-path=SCRIPTDIR/..
. ci/install.sh

# The packages that bring the compilers which are missing.
missing=()
for gnu in aarch64-linux-gnu riscv64-linux-gnu arm-linux-gnueabi arm-linux-gnueabihf arm-none-eabi riscv64-unknown-elf; do
    command -v "$gnu-gcc" >/dev/null || missing+=("gcc-$gnu")
done
[ ${#missing[@]} = 0 ] || install_packages "${missing[@]}" >&2

# The standard library of each target, of which `core` is enough.
mapfile -t targets < <(grep -oE '"[a-z0-9_]+-(unknown|none)-[a-z0-9-]+"' tests/prove/compiled.py | tr -d '"' | sort -u)
rustup target add "${targets[@]}" >&2

environment=$(realpath -m "${CARGO_TARGET_DIR:-target}/prove")
# The wheels are for this one.
python=$(command -v python3.11 || command -v python3)
install_environment "$environment" tests/prove/requirements.txt "$python" >&2

export GREENLET_PROVE_TARGET=$environment PYTHONDONTWRITEBYTECODE=1
exec "$environment/bin/python" tests/prove/prove.py "$@"
