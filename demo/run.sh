#!/usr/bin/env bash
# run.sh BUILD - fine-tunes demo/model to say English sentences in a made-up language, and measures it
# before and after on sentences that are in no training file.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1 work=$1/demo/run
begin=$SECONDS
. demo/task.sh

make_task 12000 200
echo "The task, for example:"
head -n 2 "$work/held-out.jsonl"

loss_before=$(score "$model" held-out loss | number loss)
exact_before=$(score "$model" held-out exact | number exact_match)

train_task "$work/out" 300 --seed 1

loss_after=$(score "$work/out/model" held-out loss | number loss)
exact_after=$(score "$work/out/model" held-out exact | number exact_match)
echo "The fine-tuned model is in $work/out/model"
awk -v a="$loss_before" -v b="$loss_after" -v c="$exact_before" -v d="$exact_after" \
    -v s=$((SECONDS - begin)) 'BEGIN {
    printf "demo: loss %.3f -> %.3f, exact-match %.1f %% -> %.1f %%, %d s\n",
        a, b, 100 * c, 100 * d, s }'
