#!/usr/bin/env bash
# full_size.sh BUILD WORK [PYTHON] - a whole OLMoE-1B-7B (6.9 billion parameters, 13.8 GB, random weights) tuned on
# this machine: lora, smt and esft, 5 steps of 2,048 tokens each; seconds, tokens/s and the largest resident memory.
# With PYTHON (one that has transformers and peft) the same LoRA job there. WORK takes 14 GB for the model.
set -euo pipefail
cd "$(dirname "$0")/.."
moetune=$1/moetune work=$2 python=${3:-}
model=$work/olmoe-1b-7b
mkdir -p "$work"
[ -e "$model/config.json" ] || "$moetune" init --config bench/olmoe-1b-7b.json --out "$model" --seed 1

# Two sequences of 1,024 random ids a step, all of them learnt.
awk 'BEGIN {
    srand(1)
    for (i = 0; i < 64; i++) {
        line = ""
        for (k = 0; k < 1024; k++) line = line (k ? "," : "") int(rand() * 50000)
        printf "{\"input_ids\":[%s],\"labels\":[%s]}\n", line, line
    }
}' >"$work/random.jsonl"

# train NAME OPTION... - samples the resident memory while it runs.
train() {
    local name=$1 peak=0 anon=0 now
    shift
    "$moetune" train --model "$model" --data "$work/random.jsonl" --out "$work/$name" --overwrite \
        --batch-tokens 2048 --max-steps 5 --lr 1e-4 "$@" >"$work/$name.log" 2>&1 &
    local pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        now=$(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status" 2>/dev/null || true)
        [ -z "$now" ] || [ "$now" -le "$peak" ] || peak=$now
        now=$(awk '/^RssAnon/ { print $2 }' "/proc/$pid/status" 2>/dev/null || true)
        [ -z "$now" ] || [ "$now" -le "$anon" ] || anon=$now
        sleep 0.2
    done
    if ! wait "$pid"; then
        tail -n 3 "$work/$name.log" >&2
        exit 1
    fi
    awk -v name="$name" -v peak="$peak" -v anon="$anon" -F '[:,}]' '
        { # of the last stage: a stage before it that only scores is another job
            for (i = 1; i < NF; i++) {
                if ($i ~ /"stage"/ && $(i + 1) != stage) { stage = $(i + 1); best = 0 }
                if ($i ~ /"tokens_per_second"/ && $(i + 1) > best) best = $(i + 1)
            }
        }
        END { printf "%s: %.1f tokens/s at best, resident at most %.2f GiB, %.2f of it private\n",
                name, best, peak / 1048576, anon / 1048576 }' "$work/$name/metrics.jsonl"
}
train lora --tuning lora --lora-rank 32 --lora-dropout 0
train smt --tuning smt --smt-warmup-steps 2
train esft --tuning esft --esft-top-p 0.1 --esft-tokens 8192
[ -z "$python" ] || "$python" bench/peft_lora.py "$model" 5 2048
