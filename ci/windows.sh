#!/usr/bin/env bash
# Builds the crate for Windows with mingw's C compiler and linker, and runs its suite and `walk` under
# Wine. Type-checks it for Microsoft's toolchain (msvc).
#
#   ci/windows.sh
#
# Installs what is missing: Wine and mingw from Debian, the standard libraries by rustup.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source-path=SCRIPTDIR/..
. ci/install.sh

target=x86_64-pc-windows-gnu
output=$(realpath -m "${CARGO_TARGET_DIR:-target}")
mkdir -p "$output"

install x86_64-w64-mingw32-gcc gcc-mingw-w64-x86-64-win32
install /usr/lib/wine/wine64 wine64
install_std "$target"
install_std x86_64-pc-windows-msvc

export WINEPREFIX=$output/wine WINEDEBUG=-all GREENLET_WINE=1
# Keeps Wine from installing a browser and .NET.
export WINEDLLOVERRIDES='mscoree,mshtml='
system=$WINEPREFIX/drive_c/windows/system32
if [ ! -e "$system/bcryptprimitives.dll" ]; then
    # This fails to start the 32-bit part of Wine, which is not installed and not needed.
    timeout 120 /usr/lib/wine/wine64 wineboot --init || true
    # std takes its random numbers from this library, which Debian 12's Wine does not have.
    printf '%s\n' \
        'int SystemFunction036(void *, unsigned long);' \
        '__declspec(dllexport) int ProcessPrng(void *to, unsigned long long bytes)' \
        '{ return SystemFunction036(to, bytes); }' |
        x86_64-w64-mingw32-gcc -shared -o "$output/bcryptprimitives.dll" -x c - -ladvapi32
    cp "$output/bcryptprimitives.dll" "$system"
fi

# Line tables only: backtraces are tested, and nothing else reads debug information.
export CARGO_PROFILE_DEV_DEBUG=1
# Wine sometimes fails to start a program while it starts others.
export RUST_TEST_THREADS=1
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER="timeout 300 /usr/lib/wine/wine64"

echo 'Tests that are not for Windows:'
grep -rn --include='*.rs' 'cfg(unix)\].*// not on Windows: ' tests | sed 's/:[0-9]*:.*not on Windows/: not on Windows/' | sort

# at_least COUNT CARGO-OPTIONS…: runs tests, and fails if fewer than COUNT pass.
at_least() {
    local least=$1 log=$output/windows.log passed
    cargo test --locked --target "$target" "${@:2}" 2>&1 | tee "$log"
    passed=$(sed -n 's/^test result: ok\. \([0-9]*\) passed.*/\1/p' "$log" | awk '{ sum += $1 } END { print sum + 0 }')
    printf '%s tests passed under Wine: %s\n' "$passed" "${*:2}"
    [ "$passed" -ge "$least" ]
}

at_least 420 --features trace -p greenlet -p greenlet-futures -p greenlet-random --lib --tests
# Control words, and the inlined switch.
at_least 350 --release --features trace,fp-control --test suite --test switch --test stacks
at_least 3 --no-default-features -p greenlet --test without_std
RUSTDOCFLAGS='-D warnings' cargo doc --locked -p greenlet --no-deps --target "$target" --features trace
cargo run --locked --release --target "$target" --example walk -- src | tail -n 5

# mingw assembles the core, and nothing is linked. The `cc` crate calls the archiver with the options of
# Microsoft's.
archiver=$output/lib.sh
cat >"$archiver" <<'END'
#!/bin/sh
for word; do
    case $word in
    -out:*) out=${word#-out:} ;;
    -*) ;;
    *) objects="$objects $word" ;;
    esac
done
exec x86_64-w64-mingw32-ar cq "$out" $objects
END
chmod +x "$archiver"
CC_x86_64_pc_windows_msvc=x86_64-w64-mingw32-gcc AR_x86_64_pc_windows_msvc=$archiver \
    cargo check --locked -p greenlet --target x86_64-pc-windows-msvc --features trace,fp-control
