#!/usr/bin/env bash
# gpu_pack.sh [BUILD] - for a machine that has a GPU, nvcc and Python but neither a network nor the project's libraries:
# builds the program, the tests over a device and cuda_bench here for one architecture, and packs them into
# BUILD/pack.tar.xz (build-gpu) with
#   lib/       the shared libraries that they need, but the C library and the driver's
#   sysroot/   the headers, libraries, pkg-config and make with which bench/gpu_session.sh builds there what does not run
#   root       where this checkout lies: tests look for their fixtures there
# ARCH=90a  what is compiled for (80: A100)    JOBS=N  MOST=BYTES  the largest pack: 64 MiB less what git tracks
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build-gpu}
pack=$build/pack
tracked=$(git ls-files -z | xargs -0 du -cb | tail -n 1 | cut -f 1)
most=${MOST:-$((64 * 1024 * 1024 - tracked))}

programs=(moetune bench/cuda_bench)
for source in tests/cuda/test_*.c tests/ops/test_cuda_*.c tests/cli/test_dump_parity.c; do
    name=$(basename "$source" .c)
    name=${name#test_}
    [[ $name == device || $name == lost ]] || programs+=("tests/test_cuda_${name#cuda_}") # for the emulated device alone
done

make CUDA=1 BUILD="$build" CMAKE_ARGS="-DCMAKE_CUDA_ARCHITECTURES=${ARCH:-90a}-real" JOBS="${JOBS:-$(nproc)}" \
    TARGETS="$(basename -a "${programs[@]}" | tr '\n' ' ')"

rm -rf "$pack"
mkdir -p "$pack/bin" "$pack/lib" "$pack/sysroot/bin"
pwd >"$pack/root"
for p in "${programs[@]}"; do
    strip -o "$pack/bin/$(basename "$p")" "$build/$p"
done

# libraries PROGRAM... - the files that they are linked with, but those that the machine must have.
libraries() {
    ldd "$@" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
        grep -vE '/(libc|libm|libpthread|libdl|librt|libcuda|libcublas|libcublasLt|libnvidia[^/]*)\.so'
}
for f in $(libraries "$pack"/bin/* /usr/bin/pkgconf); do
    cp -L "$f" "$pack/lib/"
done

cp -L /usr/bin/make "$pack/sysroot/bin/"
cp -L /usr/bin/pkgconf "$pack/sysroot/bin/pkg-config"
for package in libdnnl-dev libjansson-dev libyaml-dev libpcre2-dev libutf8proc-dev zlib1g-dev libcmocka-dev; do
    dpkg -L "$package" | grep -E '\.(h|hpp|pc|so)$|/cmocka' || true
done | while read -r f; do
    [ -f "$f" ] || continue
    mkdir -p "$pack/sysroot$(dirname "$f")"
    if [[ $f == *.so ]]; then
        cp -L "$f" "$pack/sysroot$f"
    else
        cp -P "$f" "$pack/sysroot$f"
    fi
done
# Of what is linked one copy, under the name that is linked with.
for f in "$pack"/lib/*; do
    name=$(basename "$f")
    for linked in "$pack"/sysroot/usr/lib/*/"${name%%.so*}.so"; do
        [ ! -e "$linked" ] || ln -sf "../../../../lib/$name" "$linked"
    done
done

tar -C "$build" -c pack | xz -T0 -6 >"$build/pack.tar.xz"
size=$(stat -c %s "$build/pack.tar.xz")
echo "gpu_pack: $build/pack.tar.xz, $((size / 1024)) KiB of at most $((most / 1024)); $(find "$pack" -type f | wc -l) files"
[ "$size" -le "$most" ] || { echo "gpu_pack: too large"; exit 1; }
