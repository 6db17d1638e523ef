#!/usr/bin/env bash
# check-suite.sh BUILD SUITE [ARCH] - does this checkout build and pass in another release? Makes a clean system of SUITE
# (a Debian codename, or an Ubuntu one where MIRROR says so and its keys are installed) below BUILD/suites, kept for the
# next call, lets scripts/setup.sh install what the project needs there, and in it builds everything with the release's
# gcc and clang, runs all tests of the first and those of single parts of the second, as .ci/run does. The files are those
# of the checkout that git does not ignore.
# ARCH=arm64 on another machine compiles and links everything for arm64 with both compilers, and runs the tests of the
# lowest parts under qemu, of gcc's alone: an hour, for it is slow. TARGETS narrows what is built, TESTS (a regular expression) what is run.
# As root; the first call of a suite fetches 200 to 350 MB from the network and keeps 1.2 GB (arm64: 1.7), the build
# folders beside them 0.5. MIRROR is where packages come from.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$(realpath -m "$1") suite=${2:-} host=$(dpkg --print-architecture)
arch=${3:-$host}
parts='^(base|io|ops|routing|tuning|model|eval|fuzz)/'

die() {
    echo "check-suite: $*" >&2
    exit 1
}

[ -n "$suite" ] || die "no suite is named: make check-suite SUITE=trixie"
[[ $arch == "$host" || $arch == arm64 ]] || die "ARCH is '$arch', expected '$host' or 'arm64'"
[ "$(id -u)" = 0 ] || die "a clean system is made by root alone"
command -v mmdebstrap >/dev/null || die "mmdebstrap is missing (apt-get install mmdebstrap)"

root=$build/suites/$suite-$arch
if [ ! -e "$root/made" ]; then
    rm -rf "$root"
    mkdir -p "$build/suites"
    # What this machine's apt was told of its mirror holds there, too.
    apt-config dump --no-empty --format '%f "%v";%n' Acquire::Check-Valid-Until Acquire::Check-Date \
        Acquire::http::Proxy Acquire::https::Proxy >"$build/suites/apt.conf"
    mmdebstrap --quiet --variant=apt --aptopt="$build/suites/apt.conf" "$suite" "$root" ${MIRROR:+"$MIRROR"}
    touch "$root/made"
fi
cp /etc/resolv.conf "$root/etc/resolv.conf"

rm -rf "$root/srv/moetune"
mkdir -p "$root/srv/moetune"
git ls-files -z --cached --others --exclude-standard | tar -c --null --files-from=- --ignore-failed-read |
    tar -x --no-same-owner -C "$root/srv/moetune"

# within COMMAND - in the clean system; what is mounted for it goes with it.
within() {
    # shellcheck disable=SC2016 # expanded by the inner shells
    unshare --mount --propagation private bash -c '
        mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" &&
        exec chroot "$1" env -i HOME=/root LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin bash -c "
            set -euo pipefail; cd /srv/moetune; $2"' x "$root" "$1"
}

section() {
    printf '\n===== %s %s: %s (%d s so far)\n' "$suite" "$arch" "$1" "$SECONDS"
}

setup=(scripts/setup.sh) options=() gcc=gcc
every=${TESTS:-.} single=${TESTS:-$parts}
if [ "$arch" != "$host" ]; then
    setup+=(--arch "$arch") options=(-DCMAKE_TOOLCHAIN_FILE=scripts/arm64.cmake) gcc=aarch64-linux-gnu-gcc
    every=${TESTS:-^(base|io|ops|routing|tuning|fuzz)/} single=
fi

section "packages"
within "bash ${setup[*]} checks && apt-get clean"
section "versions"
within "$gcc --version | head -n 1; clang --version | head -n 1; cmake --version | head -n 1
    dpkg-query -W -f='\${Package} \${Version} \${Architecture}\n' 'libdnnl*' libjansson4 'libcmocka0*' | sort -u"
section "gcc: everything, warnings as errors"
within "make all BUILD=build-gcc TARGETS='${TARGETS:-all}' CC=$gcc CMAKE_ARGS='${options[*]}'"
section "gcc: tests"
within "ctest --test-dir build-gcc --output-on-failure -R '$every'"
section "clang: everything, warnings as errors"
within "make all BUILD=build-clang TARGETS='${TARGETS:-all}' CC=clang CMAKE_ARGS='${options[*]}'"
if [ -n "$single" ]; then
    section "clang: tests of single parts"
    within "ctest --test-dir build-clang --output-on-failure -R '$single'"
fi
section "all passed"
