#!/usr/bin/env bash
# job.sh BUILD TINY STAGE WORD... - one piece of the study, run by run.sh, two at a time with one thread each:
#   search TASK METHOD RANK [RATE...]   tries rates on a seed of its own, of which the validation loss decides
#   runs TASK METHOD RANK SEED          trains at the best rate and measures everything
#   sweep TASK METHOD RANK SEED         the same, but measures the target task and the loss on the mix alone
# A record that is there already is not made again.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1 tiny=$2 stage=$3 task=$4 method=$5 rank=$6
shift 6
. results/study.sh

# train RATE SEED [option...] - into $out/run; its seconds (wall, user, system) into $out/time.
train() {
    local TIMEFORMAT='%R %U %S'
    rm -rf "$out"
    mkdir -p "$out"
    log=$out/log
    # shellcheck disable=SC2086 # words on purpose
    set -f && set -- "$@" $options && set +f
    { time "$moetune" train --model "$base" --out "$out/run" --data "$work/data/$task-$2.jsonl" --lr "$1" \
        --seed "$2" --batch-tokens 1024 --max-steps $((steps / phases)) --no-recompute \
        --schedule cosine-floor --warmup-ratio 0.1 --no-eval-first --no-report --threads 1 --json "${@:3}" \
        >"$out/lines" 2>"$log"; } 2>"$out/time" || { cat "$log" >&2; return 1; }
    rm -rf "$out/run"/checkpoint-*
}

# keep NAME=VALUE... - the record of $out.
keep() {
    "$record" "$out" task="$task" method="$method" rank="$rank" "$@" \
        wall="$(cut -d ' ' -f 1 "$out/time")" cpu="$(awk '{ print $2 + $3 }' "$out/time")" \
        learning="$(number learning <"$out/run/plan.json")" memory="$(number total <"$out/run/plan.json")" \
        >"$out/record" && mv "$out/record" "$file"
    rm -rf "$out"
}

try() {
    out=$work/search/$task-$method-$rank-$1 file=$work/records/search/$task-$method-$rank-$1.json
    [ ! -e "$file" ] || return 0
    train "$1" $search_seed --validation "$work/data/$task-valid.jsonl"
    keep lr="$1" valid="$(tail -n 1 "$out/lines" | number eval_loss)"
}

# Three rates a factor of two apart; then on at the end that is best, to at most $most_rates.
search() {
    local rates best low high
    method_options "$method" "$rank"
    read -ra rates <<<"${*:-$first_rates}"
    for rate in "${rates[@]}"; do try "$rate"; done
    while [ $# -eq 0 ] && [ ${#rates[@]} -lt "$most_rates" ]; do
        best=$(best_rate "$task" "$method" "$rank")
        low=${rates[0]} high=${rates[-1]}
        if [ "$(times "$best" 1)" = "$(times "$low" 1)" ]; then
            rates=("$(times "$low" 0.5)" "${rates[@]}")
            try "${rates[0]}"
        elif [ "$(times "$best" 1)" = "$(times "$high" 1)" ]; then
            rates+=("$(times "$high" 2)")
            try "${rates[-1]}"
        else
            break
        fi
    done
}

# The result as options of a command: a whole model, or the base with an adapter.
result_is() {
    result=(--model "$out/run/model")
    [ ! -d "$out/run/adapter" ] || result=(--model "$base" --adapter "$out/run/adapter")
    state=$out/run/model
    [ ! -d "$out/run/adapter" ] || state=$out/run/adapter
}

measure_task() {
    ask eval "${result[@]}" --data "$work/data/$task-test.jsonl" --task loss >"$out/loss.json"
    ask eval "${result[@]}" --data "$work/data/$task-test.jsonl" --task exact --max-new-tokens "$max_new" \
        --batch-sequences 100 >"$out/exact.json"
}

measure_kinds() {
    local kind
    mkdir "$out/kinds"
    for kind in "$@"; do
        ask eval "${result[@]}" --data "$work/data/kinds/$kind.jsonl" --task loss >"$out/kinds/$kind.json"
    done
}

measure_experts() {
    cp "$work/base/$task.jsonl" "$out/base.jsonl"
    [ ! -e "$state/forced_experts_records.json" ] ||
        cp "$state/forced_experts_records.json" "$out/condensers.json"
    ask experts "${result[@]}" --base "$base" --data "$work/data/$task-test.jsonl" --limit 100 --prune both \
        --prune-at "$prune_at" --correlation both --correlation-tokens 128 >"$out/experts.jsonl"
}

tuned() {
    local seed=$1 rate
    out=$work/$stage/$task-$method-$rank-$seed file=$work/records/$stage/$task-$method-$rank-$seed.json
    [ ! -e "$file" ] || return 0
    method_options "$method" "$rank"
    rate=$(best_rate "$task" "$rates_of" "$rank")
    train "$rate" "$seed"
    result_is
    measure_task
    if [ "$stage" = runs ]; then
        # shellcheck disable=SC2086 # words on purpose
        measure_kinds $kinds
        measure_experts
    else
        measure_kinds mix
    fi
    keep seed="$seed" lr="$rate"
}

case $stage in
search) search "$@" ;;
runs | sweep) tuned "$@" ;;
*) exit 2 ;;
esac
