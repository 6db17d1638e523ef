#!/usr/bin/env bash
# run.sh [--tiny] BUILD [STAGE...] - the study of docs/RESULTS.md: everything it says, made again. Stages, all of them
# in this order unless some are named:
#   pretrain   the base model, from nothing but results/model, and what its experts do
#   search     a learning rate for each method and task
#   runs       every method on both tasks with every seed, measured
#   sweep      lora, dora and smt with more and fewer values that learn
#   tables     results/*.jsonl, the tables of docs/RESULTS.md and its charts
# What is done is not done again, so that a run that was stopped goes on. Two runs at a time, with one thread each.
# --tiny: the same chain in seconds, in BUILD/results/tiny, with figures that mean nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
tiny=0
if [ "${1:-}" = --tiny ]; then
    tiny=1
    shift
fi
build=${1:?run.sh [--tiny] BUILD [STAGE...]}
shift
stages="${*:-pretrain search runs sweep tables}"
. results/study.sh
workers=2 log=$work/log
mkdir -p "$work/records" "$work/time"

# pieces STAGE - lines of job.sh's words on standard input, so many at a time.
pieces() {
    mkdir -p "$work/records/$1"
    xargs -P "$workers" -L 1 bash results/job.sh "$build" "$tiny" "$1"
}

write_data() {
    local task kind seed
    [ ! -e "$work/data/done" ] || return 0
    mkdir -p "$work/data/kinds"
    "$generate" --kind mix --count "$documents" --seed 1 >"$work/data/mix.jsonl"
    "$generate" --kind mix --count 200 --seed 2 >"$work/data/held-out.jsonl"
    for kind in $kinds mix; do
        "$generate" --kind "$kind" --count "$kind_documents" --seed 21 >"$work/data/kinds/$kind.jsonl"
    done
    # `mix` stands for all kinds in their shares, so it takes more documents to be like them.
    "$generate" --kind mix --count $((20 * kind_documents)) --seed 22 >"$work/data/kinds/mix.jsonl"
    for task in $tasks; do
        for seed in $search_seed $seeds; do
            "$generate" --kind "$task" --count "$examples" --seed $((100 + seed)) >"$work/data/$task-$seed.jsonl"
        done
        "$generate" --kind "$task" --count "$test_examples" --seed 12 --held-out >"$work/data/$task-valid.jsonl"
        "$generate" --kind "$task" --count "$test_examples" --seed 13 --held-out >"$work/data/$task-test.jsonl"
    done
    touch "$work/data/done"
}

# A shape for --tiny: what the real one is, but small.
small_shape() {
    sed 's/"vocab_size": [0-9]*/"vocab_size": '"$vocabulary"'/; s/"hidden_size": [0-9]*/"hidden_size": 32/
        s/"intermediate_size": [0-9]*/"intermediate_size": 16/; s/"num_hidden_layers": [0-9]*/"num_hidden_layers": 2/
        s/"num_experts": [0-9]*/"num_experts": 8/; s/"num_experts_per_tok": [0-9]*/"num_experts_per_tok": 3/' \
        results/model/config.json
}

make_random_model() {
    local config=results/model/config.json
    if [ "$tiny" = 1 ]; then
        config=$work/base/config.json
        small_shape >"$config"
    fi
    "$generate" --kind mix --count $((documents < 6000 ? documents : 6000)) --seed 3 --raw |
        "$build/demo/train_tokenizer" "$vocabulary" >"$work/base/tokenizer.json"
    rm -rf "$work/base/random"
    "$moetune" init --config "$config" --out "$work/base/random" --seed 1 >"$log" 2>&1
    cp "$work/base/tokenizer.json" results/model/tokenizer_config.json results/model/generation_config.json \
        "$work/base/random/"
}

# The coefficient of the load-balancing loss keeps experts alive without making them all alike. A training that was
# stopped goes on from its last checkpoint.
train_base() {
    local run=$work/base/run
    [ ! -e "$base/config.json" ] || return 0
    mkdir -p "$work/base"
    if compgen -G "$run/checkpoint-*" >/dev/null; then
        set -- --resume --out "$run" --quiet
    else
        make_random_model
        set -- --model "$work/base/random" --out "$run" --overwrite --seed 1 --quiet \
            --data "$work/data/mix.jsonl" --validation "$work/data/held-out.jsonl" --eval-every 1000 --save-every 1000 \
            --batch-tokens "$pretrain_tokens" --max-length 512 --max-steps "$pretrain_steps" --no-recompute \
            --routing aux --aux-coef 0.001 --threads "$pretrain_threads" \
            --lr 2e-3 --schedule cosine-floor --min-lr-rate 0.05 --warmup-steps 100 --beta2 0.98
    fi
    "$moetune" train "$@" >>"$log" 2>&1 || { cat "$log" >&2; return 1; }
    mv "$run/model" "$base"
    rm -rf "$run"/checkpoint-*
}

# of_base MODEL KIND - what a model does with a kind of text, and without the experts that the kind uses least.
of_base() {
    local out=$work/base/measured file=$work/records/base/kind-$1-$2.json
    rm -rf "$out"
    mkdir -p "$out"
    ask eval --model "$work/base/$1" --data "$work/data/kinds/$2.jsonl" --task loss >"$out/loss.json"
    ask experts --model "$work/base/$1" --data "$work/data/kinds/$2.jsonl" --prune least \
        --prune-at "$prune_at" >"$out/usage.jsonl"
    "$record" "$out" what=kind model="$1" kind="$2" \
        share="$("$generate" --list | sed -n "s/^$2 //p")" >"$work/record" && mv "$work/record" "$file"
}

# The base on a target task or on the mix, its pruning study with it.
base_on() {
    local out=$work/base/measured file=$work/records/base/task-$1.json
    rm -rf "$out"
    mkdir -p "$out"
    ask experts --model "$base" --data "$2" --limit 100 --prune both --prune-at "$prune_at" \
        --correlation both --correlation-tokens 128 >"$work/base/$1.jsonl"
    cp "$work/base/$1.jsonl" "$out/experts.jsonl"
    cp "$work/base/$1.jsonl" "$out/base.jsonl"
    cp "$work/base/$1.jsonl" "$out/usage.jsonl"
    ask eval --model "$base" --data "$2" --task loss >"$out/loss.json"
    [ "$1" = mix ] || ask eval --model "$base" --data "$2" --task exact --max-new-tokens "$max_new" \
        --batch-sequences 100 >"$out/exact.json"
    "$record" "$out" what=task task="$1" >"$work/record" && mv "$work/record" "$file"
}

measure_base() {
    local kind task
    [ ! -e "$work/records/base/done" ] || return 0
    mkdir -p "$work/records/base"
    for kind in $kinds; do
        of_base model "$kind"
        of_base random "$kind"
    done
    for task in $tasks; do base_on "$task" "$work/data/$task-test.jsonl"; done
    base_on mix "$work/data/kinds/mix.jsonl"
    mkdir -p "$work/base/facts"
    "$record" "$work/base/facts" what=facts commit="$(git rev-parse --short HEAD 2>/dev/null || echo none)" \
        processor="$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" cores="$(nproc)" \
        parameters="$(grep -m 1 '"parameters"' "$work/base/run/plan.json" | number parameters)" steps="$pretrain_steps" tokens=$((pretrain_steps * pretrain_tokens)) \
        fine_tuning_steps="$steps" examples="$examples" >"$work/record"
    mv "$work/record" "$work/records/base/facts.json"
    touch "$work/records/base/done"
}

pretrain() {
    write_data
    train_base
    measure_base
}

# Methods whose rates stand for themselves.
search() {
    local task method
    for method in $study_methods; do
        method_options "$method" "$main_rank"
        [ "$rates_of" = "$method" ] || continue
        for task in $tasks; do echo "$task $method $main_rank"; done
    done | pieces search
}

runs() {
    local seed task method
    for seed in $seeds; do
        for task in $tasks; do
            for method in $study_methods; do echo "$task $method $main_rank $seed"; done
        done
    done | pieces runs
}

# The rate that was best at the main size and one a factor of two towards this size, then some seeds.
sweep() {
    local method rank rate seed other
    for method in $sweep_methods; do
        for rank in $sweep_ranks; do
            [ "$rank" != "$main_rank" ] || continue
            rate=$(best_rate "$sweep_task" "$method" "$main_rank")
            [ -n "$rate" ] || rate=4e-3
            other=$([ "$rank" -lt "$main_rank" ] && echo 2 || echo 0.5)
            echo "$sweep_task $method $rank $(times "$rate" 1) $(times "$rate" "$other")"
        done
    done | pieces search
    for seed in $sweep_seeds; do
        for method in $sweep_methods; do
            for rank in $sweep_ranks; do
                [ "$rank" = "$main_rank" ] || echo "$sweep_task $method $rank $seed"
            done
        done
    done | pieces sweep
}

# in_order STAGE - its records, the methods' as study.sh lists them: the order of the tables.
in_order() {
    local task method
    if [ "$1" = base ]; then
        ls "$work/records/base"/*.json
        return
    fi
    for task in $tasks; do
        # shellcheck disable=SC2086 # words on purpose
        for method in $(printf '%s\n' $study_methods $sweep_methods | awk '!seen[$0]++'); do
            find "$work/records/$1" -name "$task-$method-[0-9]*.json" | sort -V
        done
    done
}

tables() {
    local stage
    mkdir -p "$kept"
    for stage in base search runs sweep; do
        [ -d "$work/records/$stage" ] || continue
        in_order "$stage" | xargs -r cat >"$kept/$stage.jsonl"
    done
    for stage in pretrain search runs sweep; do
        [ ! -e "$work/time/$stage" ] || echo "{\"stage\":\"$stage\",\"seconds\":$(cat "$work/time/$stage")}"
    done >"$kept/time.jsonl"
    if [ "$tiny" = 1 ]; then
        cp docs/RESULTS.md "$work/RESULTS.md"
        "$build/results/study_tables" "$kept" "$work/RESULTS.md" "$work/charts"
    else
        "$build/results/study_tables" "$kept" docs/RESULTS.md docs/results
    fi
}

for stage in $stages; do
    begin=$SECONDS
    case $stage in
    pretrain | search | runs | sweep | tables) ;;
    *)
        echo "run.sh: no stage '$stage'; pretrain, search, runs, sweep or tables expected" >&2
        exit 2
        ;;
    esac
    "$stage"
    took=$((SECONDS - begin))
    [ "$stage" = tables ] || echo $(($(cat "$work/time/$stage" 2>/dev/null || echo 0) + took)) >"$work/time/$stage"
    echo "results: $stage, $took s"
done
echo "results: done, $SECONDS s"
