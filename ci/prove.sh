#!/usr/bin/env bash
# Proves the contract of asm/README.md for the object code of the switch cores, for all register values
# and all memory contents. The prover is in tests/prove/.
#
#   ci/prove.sh [VARIANT…]        proves variants of the ABIs, default all, and refuses a sample of mutants
#   ci/prove.sh --all             refuses all mutants, which takes about an hour
#   ci/prove.sh --elf PROGRAM     proves the core in a linked program
#
# Installs what is missing: cross compilers from Debian, Python packages from PyPI into an environment
# of their own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source-path=SCRIPTDIR/..
. ci/install.sh

# The packages of the compilers that are missing.
missing=()
for gnu in aarch64-linux-gnu riscv64-linux-gnu arm-linux-gnueabi arm-linux-gnueabihf arm-none-eabi riscv64-unknown-elf; do
    command -v "$gnu-gcc" >/dev/null || missing+=("gcc-$gnu")
done
[ ${#missing[@]} = 0 ] || install_packages "${missing[@]}" >&2

# The prover compiles the crate for these targets.
mapfile -t targets < <(grep -oE '"[a-z0-9_]+-(unknown|none)-[a-z0-9-]+"' tests/prove/compiled.py | tr -d '"' | sort -u)
rustup target add "${targets[@]}" >&2

environment=$(realpath -m "${CARGO_TARGET_DIR:-target}/prove")
# The listed wheels are for Python 3.11.
python=$(command -v python3.11 || command -v python3)
install_environment "$environment" tests/prove/requirements.txt "$python" >&2

export GREENLET_PROVE_TARGET=$environment PYTHONDONTWRITEBYTECODE=1
exec "$environment/bin/python" tests/prove/prove.py "$@"
