#!/usr/bin/env bash
# check-deb.sh BUILD - makes the Debian packages of a build and tries them: lintian finds no error (where it is
# installed), and in a system that has nothing else they install, run, and go again without a trace. That system is made
# by mmdebstrap or debootstrap from the network; where neither is possible the packages are installed into an empty
# folder with dpkg, and run with this machine's libraries.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$(realpath "$1")
work=$(mktemp -d "${TMPDIR:-/tmp}/moetune-deb-XXXXXX")
trap 'rm -rf "$work"' EXIT

die() {
    echo "check-deb: $*" >&2
    exit 1
}

bash packaging/debian.sh "$build" "$work/packages"
version=$("$build/moetune" --version | cut -d ' ' -f 2)
for package in moetune libmoetune"${version%%.*}" libmoetune-dev; do
    deb=$(echo "$work/packages/${package}_${version}_"*.deb)
    [ -f "$deb" ] || die "no package $package"
    dpkg-deb -f "$deb" Package Version Architecture Depends
    [ "$(dpkg-deb -f "$deb" Version)" = "$version" ] || die "$package is of another version"
    dpkg-deb -c "$deb" | awk '$2 != "root/root" { exit 1 }' || die "$package: files that are not root's"
done
dpkg-deb -f "$work/packages/moetune_${version}"_*.deb Depends | grep -q libdnnl || die "moetune does not depend on oneDNN"
if command -v lintian >/dev/null; then
    lintian --fail-on error "$work/packages"/*.deb 2>&1 || die "lintian finds errors"
fi

# --- what is run there: a toy is made, trained and scored, and the library's example does the same
mkdir "$work/try"
cat >"$work/try/config.json" <<'JSON'
{"architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "vocab_size": 64, "hidden_size": 32,
 "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
 "num_experts": 8, "num_experts_per_tok": 2, "max_position_embeddings": 4096, "eos_token_id": 0}
JSON
for i in $(seq 10 29); do
    echo "{\"input_ids\": [$i, 7, 1, 9, 2, 11, 3, 5], \"labels\": [$i, 7, 1, 9, 2, 11, 3, 5]}"
done >"$work/try/data.jsonl"
cat >"$work/try/try.sh" <<'SH'
set -eu
cd "$(dirname "$0")"
moetune --version
moetune init --config config.json --out base --quiet
moetune train --model base --data data.jsonl --max-steps 2 --out run --quiet
moetune eval --model run/model --data data.jsonl --quiet
mkdir out
./example base data.jsonl data.jsonl out 2
moetune eval --model out/merged --data data.jsonl --quiet
SH
dpkg-deb -x "$work/packages/libmoetune-dev_${version}"_*.deb "$work/dev"
dpkg-deb -x "$work/packages/libmoetune${version%%.*}_${version}"_*.deb "$work/dev"
PKG_CONFIG_PATH=$(dirname "$(find "$work/dev" -name moetune.pc)")
export PKG_CONFIG_PATH
mapfile -t flags < <(pkg-config --cflags --libs moetune | xargs -n 1)
"$(sed -n 's/^CMAKE_C_COMPILER:[A-Z]*=//p' "$build/CMakeCache.txt")" docs/example.c -o "$work/try/example" \
    "${flags[@]}" -Wl,--allow-shlib-undefined

# --- a clean system
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
root=$work/root
made=none
if [ "$(id -u)" = 0 ] && command -v mmdebstrap >/dev/null &&
    mmdebstrap --quiet --variant=apt "$suite" "$root" >"$work/log.txt" 2>&1; then
    made=mmdebstrap
elif [ "$(id -u)" = 0 ] && rm -rf "$root" && command -v debootstrap >/dev/null &&
    debootstrap --variant=minbase "$suite" "$root" >"$work/log.txt" 2>&1; then
    made=debootstrap
fi

if [ $made != none ]; then
    cp -r "$work/packages" "$work/try" "$root/srv/"
    in_root() {
        chroot "$root" env DEBIAN_FRONTEND=noninteractive OMP_NUM_THREADS=1 PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
    }
    packages=()
    for deb in "$work/packages"/*.deb; do
        packages+=("/srv/packages/$(basename "$deb")")
    done
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    in_root apt-get update >"$work/log.txt" 2>&1 || die "no lists of packages: $(tail -5 "$work/log.txt")"
    in_root apt-get install -y --no-install-recommends "${packages[@]}" >"$work/log.txt" 2>&1 ||
        die "does not install: $(tail -5 "$work/log.txt")"
    in_root sh /srv/try/try.sh
    in_root dpkg --purge moetune libmoetune-dev "libmoetune${version%%.*}" >"$work/log.txt" 2>&1 ||
        die "does not go: $(tail -5 "$work/log.txt")"
    left=$(find "$root/usr" "$root/etc" "$root/var/lib/dpkg/info" -name '*moetune*')
    [ -z "$left" ] || die "left after purge: $left"
    echo "check-deb: installs, runs and goes in a clean $suite made by $made"
else
    echo "check-deb: no clean system: $(tail -1 "$work/log.txt" 2>/dev/null || echo "neither root nor tools")"
    mkdir -p "$root/var/lib/dpkg/updates" "$root/var/lib/dpkg/info"
    touch "$root/var/lib/dpkg/status"
    fakeroot=()
    [ "$(id -u)" = 0 ] || fakeroot=(fakeroot)
    "${fakeroot[@]}" dpkg --root="$root" --force-depends --force-not-root --force-script-chrootless --log="$work/dpkg.log" \
        -i "$work/packages"/*.deb >"$work/log.txt" 2>&1 || die "does not install: $(tail -5 "$work/log.txt")"
    libraries=$(dirname "$(find "$root/usr/lib" -name 'libmoetune.so.*' | head -1)")
    PATH=$root/usr/bin:$PATH LD_LIBRARY_PATH=$libraries OMP_NUM_THREADS=1 sh "$work/try/try.sh"
    echo "check-deb: installs into an empty folder, and runs with this machine's libraries"
fi
