#!/usr/bin/env bash
# gpu_session.sh [OUT] - everything that wants a GPU, in one go, for a machine that is there for minutes:
# build, the tests over the real device, compute-sanitizer on small shapes, then the figures. Each part has a
# time limit, and a part that fails does not stop the next. Results and logs go to OUT (else $OUT, else
# build-gpu/results); the table at the end says what passed.
#
#   MOETUNE_DIR=DIR  a folder of binaries built elsewhere (moetune and tests/test_cuda_*); default: build here,
#                    which needs nvcc, cmake and the packages of scripts/setup.sh
#   PARTS="..."      which parts, of: build tests sanitize bench; default: all
#   BUDGET=SECONDS   of all parts together (1500)
set -uo pipefail
cd "$(dirname "$0")/.."

out=${1:-${OUT:-build-gpu/results}}
bin=${MOETUNE_DIR:-build-gpu}
parts=${PARTS:-build tests sanitize bench}
budget=${BUDGET:-1500}
mkdir -p "$out"
export PATH=$PATH:/usr/local/cuda/bin

summary=()
# part NAME LIMIT COMMAND...: runs it with what is left of the budget, at most LIMIT seconds.
part() {
    local name=$1 limit=$2 left=$((budget - SECONDS)) status start=$SECONDS
    shift 2
    [ "$left" -gt 10 ] || { summary+=("$name: no time left"); return; }
    [ "$limit" -lt "$left" ] || limit=$left
    timeout "$limit" "$@" >"$out/$name.log" 2>&1
    status=$?
    summary+=("$name: exit $status after $((SECONDS - start)) s")
    [ "$status" = 0 ] || tail -n 15 "$out/$name.log"
}

wanted() {
    [[ " $parts " == *" $1 "* ]]
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv >"$out/gpu.csv" 2>&1
cat "$out/gpu.csv"

if wanted build && [ -z "${MOETUNE_DIR:-}" ]; then
    part build 600 make CUDA=1 BUILD="$bin" TARGETS=all
fi

tests=("$bin"/tests/test_cuda_*)
if wanted tests; then
    for t in "${tests[@]}"; do
        part "$(basename "$t")" 240 "$t"
    done
fi

# The tests of single ops are small already; pairs and parity are too long under a tool.
if wanted sanitize; then
    for tool in memcheck racecheck initcheck synccheck; do
        for t in ops rows products experts attention blocks; do
            [ -x "$bin/tests/test_cuda_$t" ] || continue
            part "$tool-$t" 180 compute-sanitizer --tool "$tool" --error-exitcode 9 \
                "$bin/tests/test_cuda_$t"
        done
    done
fi

# OLMoE-1B-7B's shape, random weights, 16,384 tokens a step.
if wanted bench; then
    for tuning in full lora smt; do
        part "bench-$tuning" 300 "$bin/moetune" bench --config bench/olmoe-1b-7b.json --device cuda \
            --tokens 16384 --recompute --routing topk,condenser,densemixer --tuning "$tuning" --json
    done
    cat "$out"/bench-*.log | grep '^{' >"$out/bench.jsonl"
fi

printf '%s\n' "${summary[@]}" | tee "$out/summary.txt"
