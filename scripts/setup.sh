#!/usr/bin/env bash
# setup.sh [--check] [build|checks] - installs the Debian (or Ubuntu) packages that the build needs,
# and with `checks` also what .ci/run needs. Only what is missing is installed: when nothing is, it
# takes neither network nor rights. --check installs nothing and fails if something is missing.
set -euo pipefail

build=(gcc g++ libc6-dev make cmake pkg-config libdnnl-dev libjansson-dev libyaml-dev libpcre2-dev
    libutf8proc-dev zlib1g-dev libcmocka-dev)
checks=(clang-14 clang-format-14 clang-tidy-14 libclang-rt-14-dev libomp-14-dev
    dpkg-dev)

check_only=false
if [ "${1:-}" = --check ]; then
    check_only=true
    shift
fi
packages=("${build[@]}")
case "${1:-build}" in
build) ;;
checks) packages+=("${checks[@]}") ;;
*)
    echo "setup.sh: '$1' is not 'build' or 'checks'" >&2
    exit 2
    ;;
esac

if ! command -v dpkg-query >/dev/null; then
    echo "setup.sh: no Debian packages here; the build needs what these hold: ${packages[*]}" >&2
    exit 0 # CMake says what is really missing
fi

missing=()
for package in "${packages[@]}"; do
    state=$(dpkg-query -W -f='${db:Status-Abbrev}\n' "$package" 2>/dev/null | head -n 1 || true)
    [[ $state == ?i* ]] || missing+=("$package")
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
install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y
    --no-install-recommends "${missing[@]}")
echo "installing: ${missing[*]}"
# The lists may be absent or old: they are fetched first, and only when something is to be installed.
"${as_root[@]}" apt-get update
"${install[@]}"
