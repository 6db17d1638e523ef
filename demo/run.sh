#!/usr/bin/env bash
# run.sh BUILD - fine-tunes demo/model to say English sentences in a made-up language, and measures it
# before and after on sentences that are in no training file.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1 model=demo/model work=$1/demo/run
moetune=$build/moetune generate=$build/demo/generate
begin=$SECONDS

rm -rf "$work"
mkdir -p "$work"
"$generate" --kind task --count 12000 --seed 11 >"$work/train.jsonl"
"$generate" --kind task --count 200 --seed 12 --held-out >"$work/held-out.jsonl"
if sort -u "$work/held-out.jsonl" | grep -qxFf - "$work/train.jsonl"; then
    echo "demo: a held-out example is in the training file" >&2
    exit 1
fi
echo "The task, for example:"
head -n 2 "$work/held-out.jsonl"

# score MODEL TASK KEY - one number of `moetune eval --json`.
score() {
    "$moetune" eval --model "$1" --data "$work/held-out.jsonl" --task "$2" --max-new-tokens 48 \
        --batch-sequences 50 --json | sed -n "s/.*\"$3\": *\([0-9.eE+-]*\).*/\1/p"
}
loss_before=$(score "$model" loss loss)
exact_before=$(score "$model" exact exact_match)

"$moetune" train --model "$model" --out "$work/out" --seed 1 \
    --data "$work/train.jsonl" --batch-tokens 1024 --max-steps 300 --no-recompute \
    --lr 2e-3 --schedule cosine-floor --warmup-steps 10

loss_after=$(score "$work/out/model" loss loss)
exact_after=$(score "$work/out/model" exact exact_match)
echo "The fine-tuned model is in $work/out/model"
awk -v a="$loss_before" -v b="$loss_after" -v c="$exact_before" -v d="$exact_after" \
    -v s=$((SECONDS - begin)) 'BEGIN {
    printf "demo: loss %.3f -> %.3f, exact-match %.1f %% -> %.1f %%, %d s\n",
        a, b, 100 * c, 100 * d, s }'
