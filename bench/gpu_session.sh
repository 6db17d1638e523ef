#!/usr/bin/env bash
# gpu_session.sh - everything that wants a GPU, in parts, for a machine that is there for minutes. What a part finds is
# printed at once and kept under $OUT (build-gpu/results): summary.txt, results.jsonl, products.txt, and logs.tgz with
# everything that was printed. A part that fails, or that has no time left, stops no other.
#
#   PARTS="smoke products tests"    of:
#     smoke         one minute: does it run, is it right, how fast is one product
#     products      cuda_bench: every result compared first, then its rate
#     full          OLMoE-1B-7B, full tuning: topk beside condenser, then densemixer
#     adapters      the same model: lora, esft, smt
#     transformers  the same model, weights and tokens in transformers and peft
#     tests         every test over the device
#     qwen          Qwen1.5-MoE-A2.7B fully tuned
#     sanitize      compute-sanitizer's four tools over the tests of ops
#   BUDGET=570      seconds of all parts together
#   PACK=FILE       what bench/gpu_pack.sh made; without one, programs of BIN
#   BIN=DIR         a build folder (build-gpu)
#   TOKENS=16384 SEQUENCE=4096   of a step (TOKENS=32768 of products)
#   WORK=DIR        42 GB for models (/dev/shm, where there is room, else TMPDIR)
#   DEVICE=cuda     cpu: to try the script; MODELS=DIR: configurations of smaller models (bench)
set -uo pipefail
cd "$(dirname "$0")/.." || exit
out=${OUT:-build-gpu/results}
budget=${BUDGET:-570}
device=${DEVICE:-cuda}
models=${MODELS:-bench}
pack=${PACK-build-gpu/pack.tar.xz}
free=$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1)
[ "${free:-0}" -gt 60000000 ] && room=/dev/shm || room=${TMPDIR:-/tmp}
work=${WORK:-$room/moetune-gpu}
log=$work/log
mkdir -p "$out" "$log"
rm -f "$log"/*
say() { printf '%4d s  %s\n' "$SECONDS" "$*" | tee -a "$out/summary.txt"; }
left() { echo $((budget - SECONDS)); }

# ---- the programs

bin=
open_pack() {
    tar -C "$work" -xJf "$pack" || return
    bin=$work/pack/bin
    local root
    root=$(cat "$work/pack/root")
    [ -e "$root" ] || { mkdir -p "$(dirname "$root")" && ln -sfn "$PWD" "$root"; }
}

# program NAME - it by its name, in a pack or in a build folder.
program() {
    local f
    for f in "$bin/$1" "$bin/tests/$1" "$bin/bench/$1"; do
        [ ! -x "$f" ] || { echo "$f"; return; }
    done
}

# The pack's libraries for its own programs alone: Python has others.
run() {
    local name=$1 f
    shift
    f=$(program "$name")
    [ -n "$f" ] || { echo "no program $name"; return 127; }
    LD_LIBRARY_PATH=$libraries "$f" "$@"
}

export -f program run

find_libraries() {
    export libraries=$work/pack/lib
    local d
    for d in /usr/local/cuda/lib64 $(python3 -c 'import sysconfig, glob
print(*glob.glob(sysconfig.get_path("purelib") + "/nvidia/*/lib"))' 2>/dev/null); do
        [ ! -d "$d" ] || libraries=$libraries:$d
    done
}

# Where the programs of the pack do not run: from the sources, with the pack's headers.
build_here() {
    local root=$work/pack/sysroot
    say "the pack's programs do not run here: building, minutes"
    bin=$work/build
    PATH=$PATH:/usr/local/cuda/bin:$root/bin LD_LIBRARY_PATH=$libraries LIBRARY_PATH=$work/pack/lib \
        PKG_CONFIG_SYSROOT_DIR=$root PKG_CONFIG_PATH=$(echo "$root"/usr/lib/*/pkgconfig) CMAKE_PREFIX_PATH=$root/usr \
        timeout "$(left)" make CUDA=1 BUILD="$bin" TARGETS="$(basename -a "$work"/pack/bin/* | tr '\n' ' ')" \
        CMAKE_ARGS=-DCMAKE_CUDA_ARCHITECTURES=90a-real >"$log/build.txt" 2>&1
}

open_programs() {
    export bin=${BIN:-build-gpu}
    find_libraries
    if [ -n "$pack" ] && [ -e "$pack" ]; then open_pack || return; fi
    run moetune --version >"$log/version.txt" 2>&1 || build_here || tail -n 5 "$log/build.txt"
    say "$(run moetune --version 2>&1 | head -n 1), programs of $bin"
}

# ---- parts

# step NAME SECONDS COMMAND... - with at most so many seconds, and what is left of the budget; says how it ended.
step() {
    local name=$1 limit=$2 status start=$SECONDS rest
    shift 2
    rest=$(left)
    [ "$rest" -gt 5 ] || { say "$name: no time left"; return 1; }
    [ "$limit" -lt "$rest" ] || limit=$rest
    timeout -k 5 "$limit" bash -c '"$@"' _ "$@" >"$log/$name.txt" 2>&1
    status=$?
    case $status in
    0) say "$name: passed, $((SECONDS - start)) s" ;;
    77) say "$name: skipped, $(tail -n 1 "$log/$name.txt")" ;;
    124 | 137) say "$name: stopped after $((SECONDS - start)) s" ;;
    *) say "$name: FAILED ($status), $((SECONDS - start)) s"
        grep -aE 'FAILED|rror|differs|failed' "$log/$name.txt" | head -n 6 | grep . || tail -n 4 "$log/$name.txt" ;;
    esac
    return $status
}

# A model of random weights, made once.
make_model() {
    [ ! -e "$work/$1.made" ] || return 0
    rm -rf "${work:?}/$1"
    step "init-$1" 150 run moetune init --config "$models/$1.json" --out "$work/$1" --seed 1234 --fused &&
        touch "$work/$1.made"
}

# measure NAME MODEL OPTION... - steps of `bench`; what it says goes to results.jsonl.
measure() {
    local name=$1 model=$2
    shift 2
    make_model "$model" || return
    step "$name" 240 run moetune bench --model "$work/$model" --device "$device" --json \
        --tokens "${TOKENS:-16384}" --sequence "${SEQUENCE:-4096}" "$@"
    local status=$?
    [ -e "$log/$name.txt" ] || return $status
    sed -n "s/^{/{\"run\": \"$name\", /p" "$log/$name.txt" >>"$out/results.jsonl"
    grep -a ' s a step' "$log/$name.txt" | sed 's/^/        /'
    return $status
}

smoke() {
    local name
    for name in ops:sums products:'products: whole' attention:'*heads of 128' experts:'up: whole'; do
        step "smoke-${name%%:*}" 25 run "test_cuda_${name%%:*}" "${name#*:}"
    done
    TOKENS=${TOKENS:-4096} SEQUENCE=${SEQUENCE:-1024} measure smoke-step olmoe-small
}

products() {
    step products 150 run cuda_bench "${TOKENS:-32768}"
    [ -e "$log/products.txt" ] || return
    grep -a TFLOP "$log/products.txt" | cut -c 1-150
    cp "$log/products.txt" "$out/products.txt"
}

# With all activations kept, else computed again where the plan says that they do not fit.
fitting() {
    local name=$1
    shift
    measure "$name" "$@" && return
    grep -aqs 'the model needs' "$log/$name.txt" && measure "$name-recompute" "$@" --recompute
}

full() {
    fitting full olmoe-1b-7b --tuning full --routing topk,condenser
    fitting full-densemixer olmoe-1b-7b --tuning full --routing densemixer
}

adapters() {
    fitting lora olmoe-1b-7b --tuning lora --lora-rank 32 --lora-dropout 0
    fitting smt olmoe-1b-7b --tuning smt --smt-attention-fraction 0.005 --smt-mlp-fraction 0.005
    fitting esft olmoe-1b-7b --tuning esft
    fitting lora-routings olmoe-1b-7b --tuning lora --lora-dropout 0 --routing condenser,densemixer
}

transformers() {
    local job
    make_model olmoe-1b-7b || return
    for job in full lora; do
        [ "$(left)" -gt 5 ] || return
        step "transformers-$job" 200 python3 bench/transformers_gpu.py "$work/olmoe-1b-7b" --job "$job" \
            --device "$device" --tokens "${TOKENS:-16384}" --sequence "${SEQUENCE:-4096}"
        grep -a '^{' "$log/transformers-$job.txt" | tee -a "$out/results.jsonl"
    done
}

tests() {
    local t name
    for t in products attention experts blocks ops rows leaves dump_parity; do
        step "test-$t" 100 run "test_cuda_$t"
    done
    for name in topk aux bias condenser densemixer; do # side by side
        step "test-pairs-$name" 240 run test_cuda_pairs "$name: *" &
    done
    wait
    grep -ahs '^FAILED' "$log"/test-*.txt | head -n 20
}

# 14.3 billion parameters at 6 bytes, and at 4.
qwen() {
    local states
    for states in bf16 8bit; do
        measure "qwen-$states" qwen1.5-moe-a2.7b --tuning full --recompute \
            --optimizer-states "$states" --master-weights none --fused-backward
    done
}

sanitize() {
    local tool t
    command -v compute-sanitizer >/dev/null || { say "no compute-sanitizer"; return; }
    export MOETUNE_TEST_SECONDS=170
    for t in products experts attention ops rows blocks leaves; do
        for tool in memcheck racecheck initcheck synccheck; do
            step "$tool-$t" 180 run_sanitized "$tool" "$t" &
        done
        wait
    done
}
run_sanitized() {
    LD_LIBRARY_PATH=$libraries compute-sanitizer --tool "$1" --target-processes all --error-exitcode 9 --print-limit 5 \
        "$(program "test_cuda_$2")"
}
export -f run_sanitized

# ---- the session

export PATH=$PATH:/usr/local/cuda/bin
: >"$out/summary.txt"
say "$(nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm --format=csv,noheader 2>&1 | head -n 1)"
say "commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), $(nproc) cores, models in $work"
open_programs || { say "no programs"; exit 1; }
for part in ${PARTS:-smoke products tests full adapters transformers qwen sanitize}; do
    say "== $part"
    declare -F "$part" >/dev/null || { say "no part $part"; continue; }
    "$part"
    tar -C "$work" -czf "$out/logs.tgz" log
done
say "done"
