#!/usr/bin/env bash
# debian.sh BUILD [OUT] - the Debian packages of what BUILD holds, into OUT (BUILD/debian): moetune (the program, its
# manual and completions), libmoetuneN (the shared library) and libmoetune-dev (header, archive, pkg-config, example).
# What they depend on is found in the binaries by dpkg-shlibdeps; the version is that of the build.
# DEBFULLNAME and DEBEMAIL name who packages; SOURCE_DATE_EPOCH makes two calls give the same bytes.
set -euo pipefail
umask 022
build=$(realpath "$1")
out=${2:-$build/debian}
source=$(cd "$(dirname "$0")/.." && pwd)

version=$("$build/moetune" --version | cut -d ' ' -f 2)
library=libmoetune${version%%.*}
arch=$(dpkg --print-architecture)
triplet=$(dpkg-architecture -qDEB_HOST_MULTIARCH)
maintainer="${DEBFULLNAME:-moetune authors} <${DEBEMAIL:-moetune@packages.invalid}>"
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git -C "$source" log -1 --format=%ct 2>/dev/null || stat -c %Y "$source/CMakeLists.txt")
fi
export SOURCE_DATE_EPOCH

work=$(mktemp -d "${TMPDIR:-/tmp}/moetune-debian-XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/debian" "$out"
printf 'Source: moetune\nMaintainer: %s\n\nPackage: moetune\nArchitecture: any\nDescription: x\n' \
    "$maintainer" >"$work/debian/control"

# stage PACKAGE COMPONENT - the component's files, stripped, as a Debian system has them.
stage() {
    local root=$work/$1
    cmake --install "$build" --prefix "$root/usr" --component "$2" --strip >/dev/null
    local doc=$root/usr/share/doc/$1
    mkdir -p "$doc" "$root/DEBIAN"
    if [ -d "$root/usr/share/zsh/site-functions" ]; then
        mv "$root/usr/share/zsh/site-functions" "$root/usr/share/zsh/vendor-completions"
    fi
    if [ -d "$root/usr/lib" ]; then
        mkdir "$root/usr/$triplet"
        mv "$root/usr/lib"/* "$root/usr/$triplet/"
        mv "$root/usr/$triplet" "$root/usr/lib/"
        find "$root/usr/lib" -name moetune.pc -exec sed -i "s|^prefix=.*|&/..|; s|^libdir=.*|&/$triplet|" {} +
    fi
    if [ "$1" != moetune ] && [ -d "$root/usr/share/doc/moetune" ]; then
        mv "$root/usr/share/doc/moetune"/* "$doc/"
        rmdir "$root/usr/share/doc/moetune"
    fi
    {
        printf 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n'
        printf 'Files: *\nCopyright: %s\nLicense: Expat\n' "$(sed -n 's/^Copyright (c) //p' "$source/LICENSE")"
        sed -e '1,/^Copyright/d' -e '1,/./{/^$/d}' -e 's/^$/./; s/^/ /' "$source/LICENSE" | sed '1{/^ \.$/d}'
    } >"$doc/copyright"
    printf 'moetune (%s) unstable; urgency=medium\n\n  * Release %s.\n\n -- %s  %s\n' "$version" "$version" \
        "$maintainer" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$doc/changelog.gz"
    find "$root/usr/share/man" -type f -exec gzip -9n {} + 2>/dev/null || true
    find "$root" -type d -exec chmod 755 {} +
}

# pack PACKAGE SECTION DEPENDS SUMMARY TEXT
pack() {
    local root=$work/$1 depends=$3 binary
    mapfile -t binaries < <(find "$root/usr/bin" "$root/usr/lib" -type f \( -perm -u+x -o -name '*.so.*' \) 2>/dev/null)
    if [ ${#binaries[@]} -gt 0 ]; then
        chmod 755 "${binaries[@]}"
        for binary in "${binaries[@]}"; do # a library is not to be executable
            [[ $binary != *.so.* ]] || chmod 644 "$binary"
        done
        depends+=$(cd "$work" && dpkg-shlibdeps -O -e"${binaries[0]}" 2>/dev/null | sed 's/^shlibs:Depends=//')
    fi
    (cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
    cat >"$root/DEBIAN/control" <<EOF
Package: $1
Source: moetune
Version: $version
Architecture: $arch
Maintainer: $maintainer
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f 1)
Depends: $depends
Section: $2
Multi-Arch: $([ "$2" = science ] && echo foreign || echo same)
Priority: optional
Description: $4
$5
EOF
    dpkg-deb --root-owner-group -b "$root" "$out/$1_${version}_$arch.deb"
}

about=" moetune reads a checkpoint in Hugging Face's layout and a file of examples, and
 writes a fine-tuned model or an adapter that other programs load. It combines
 ways of routing tokens to experts (ExpertCondenser, DenseMixer, load
 balancing) with ways of tuning (full, ESFT, LoRA, DoRA, SMT)."
processor=
[ "$arch" != amd64 ] || processor="
 .
 It needs a processor with AVX2 (x86-64-v3)."

stage moetune program
stage "$library" library
stage libmoetune-dev development
echo "libmoetune ${version%%.*} $library (>= $version)" >"$work/$library/DEBIAN/shlibs"
echo "activate-noawait ldconfig" >"$work/$library/DEBIAN/triggers"

pack moetune science "" "fine-tuning of Mixture-of-Experts language models" "$about$processor"
pack "$library" libs "" "fine-tuning of Mixture-of-Experts language models - library" "$about$processor
 .
 This package holds the shared library."
pack libmoetune-dev libdevel "$library (= $version)" \
    "fine-tuning of Mixture-of-Experts language models - development" "$about
 .
 This package holds the header, the static library and an example program. To
 link the static library, the development packages of oneDNN, jansson, libyaml,
 PCRE2, utf8proc and zlib are needed, too."
