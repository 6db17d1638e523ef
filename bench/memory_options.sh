#!/usr/bin/env bash
# memory_options.sh MOETUNE [TOKENS] - step time and peak private memory of full tuning with each way to keep what
# learns, beside float32 throughout: a line of JSON each (docs/PERFORMANCE.md, "Optimizer states").
set -euo pipefail
moetune=$(realpath "$1")
tokens=${2:-2048}
config=$(dirname "$0")/olmoe-small.json

for options in "" "--optimizer-states bf16" "--optimizer-states 8bit" "--master-weights none" "--fused-backward" \
    "--optimizer-states bf16 --master-weights none --fused-backward" \
    "--optimizer-states 8bit --master-weights none --fused-backward"; do
    # shellcheck disable=SC2086
    line=$("$moetune" bench --config "$config" --tokens "$tokens" --tuning full --json --quiet $options)
    echo "${options:-as it is}: $line"
done
