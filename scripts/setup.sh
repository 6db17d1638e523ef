#!/usr/bin/env bash
# setup.sh [--check] [--arch ARCH] [build|checks] - installs the Debian (or Ubuntu) packages that the build needs, and
# with `checks` also what .ci/run needs. Only what is missing is installed: when nothing is, it takes neither network nor
# rights. --check installs nothing and fails if something is missing. --arch arm64 is for building for that machine on
# this one (scripts/arm64.cmake): its libraries, the compiler that makes it, and qemu to run the result.
set -euo pipefail

# a|b: a, or b in a release that has no a (nothing, if b is empty).
tools=(make cmake pkg-config locales)
compilers=(gcc g++)
libraries=(libc6-dev libdnnl-dev libjansson-dev libyaml-dev libpcre2-dev libutf8proc-dev zlib1g-dev libcmocka-dev)
# The code is laid out by clang-format 14 alone; compiled it is by every later clang, too.
checks=('clang-14|clang' 'libclang-rt-14-dev|libclang-rt-dev' dpkg-dev)
check_libraries=('libomp-14-dev|libomp-dev')
formats=('clang-format-14|' 'clang-tidy-14|')

check_only=false arch=
while [[ ${1:-} == --* ]]; do
    case $1 in
    --check) check_only=true ;;
    --arch) arch=${2:-} && shift ;;
    *)
        echo "setup.sh: '$1' is not '--check' or '--arch'" >&2
        exit 2
        ;;
    esac
    shift
done
case "${1:-build}" in
build) ;;
checks)
    tools+=("${checks[@]}")
    libraries+=("${check_libraries[@]}")
    [ -n "$arch" ] || tools+=("${formats[@]}")
    ;;
*)
    echo "setup.sh: '$1' is not 'build' or 'checks'" >&2
    exit 2
    ;;
esac
case "$arch" in
'') packages=("${tools[@]}" "${compilers[@]}" "${libraries[@]}") ;;
arm64)
    packages=("${tools[@]}" "${compilers[@]/%/-aarch64-linux-gnu}" qemu-user)
    for library in "${libraries[@]}"; do
        packages+=("$(sed -E "s/[^|]+/&:$arch/g" <<<"$library")")
    done
    ;;
*)
    echo "setup.sh: --arch is '$arch', expected 'arm64'" >&2
    exit 2
    ;;
esac

if ! command -v dpkg-query >/dev/null; then
    echo "setup.sh: no Debian packages here; the build needs what these hold: ${packages[*]}" >&2
    exit 0 # CMake says what is really missing
fi

is_installed() {
    local state
    state=$(dpkg-query -W -f='${db:Status-Abbrev}\n' "$1" 2>/dev/null | head -n 1 || true)
    [[ $state == ?i* ]]
}

missing=()
for package in "${packages[@]}"; do
    is_installed "${package%%|*}" && continue
    other=${package#*|}
    [[ $package == *'|'* && -n $other ]] && is_installed "$other" && continue
    missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if $check_only; then
    echo "setup.sh: missing packages: ${missing[*]}; 'make setup' installs them" >&2
    exit 1
fi
as_root=()
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "setup.sh: run this as root: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi
if [ -n "$arch" ] && ! dpkg --print-foreign-architectures | grep -qx "$arch"; then
    "${as_root[@]}" dpkg --add-architecture "$arch"
fi
# The lists may be absent or old: they are fetched first, and only when something is to be installed.
"${as_root[@]}" apt-get update
chosen=()
for package in "${missing[@]}"; do
    if [[ $package == *'|'* && -z $(apt-cache madison "${package%%|*}") ]]; then
        package=${package#*|}
    fi
    [ -z "${package%%|*}" ] || chosen+=("${package%%|*}")
done
[ ${#chosen[@]} -gt 0 ] || exit 0
echo "installing: ${chosen[*]}"
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${chosen[@]}"
