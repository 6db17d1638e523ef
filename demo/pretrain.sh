#!/usr/bin/env bash
# pretrain.sh BUILD - makes demo/model again from nothing but its config files: text, tokenizer, random
# weights, training. The same machine gives the same bytes.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1 model=demo/model work=$1/demo/pretrain
moetune=$build/moetune generate=$build/demo/generate

rm -rf "$work"
mkdir -p "$work"
"$generate" --kind mix --count 60000 --seed 1 >"$work/mix.jsonl"
"$generate" --kind mix --count 200 --seed 2 >"$work/held-out.jsonl"
"$generate" --kind mix --count 6000 --seed 3 --raw | "$build/demo/train_tokenizer" 768 \
    >"$work/tokenizer.json"

"$moetune" init --config "$model/config.json" --out "$work/random" --seed 1
cp "$work/tokenizer.json" "$model/tokenizer_config.json" "$model/generation_config.json" \
    "$work/random/"

"$moetune" train --model "$work/random" --out "$work/run" --seed 1 \
    --data "$work/mix.jsonl" --validation "$work/held-out.jsonl" --eval-every 800 \
    --batch-tokens 1024 --max-length 512 --max-steps 2400 --no-recompute \
    --lr 2e-3 --schedule cosine-floor --min-lr-rate 0.05 --warmup-steps 100 --beta2 0.98

cp "$work/run/model/model.safetensors" "$work/tokenizer.json" "$model/"
du -b --max-depth=0 "$model"
