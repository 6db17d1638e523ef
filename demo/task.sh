# task.sh - the demo's task: its data, its training, its scores. Sourced where $build and $work are set.
# shellcheck shell=bash disable=SC2154
model=demo/model moetune=$build/moetune generate=$build/demo/generate

# make_task COUNT HELD_OUT - so many examples in $work/train.jsonl, and in held-out.jsonl, none in both.
make_task() {
    rm -rf "$work"
    mkdir -p "$work"
    "$generate" --kind task --count "$1" --seed 11 >"$work/train.jsonl"
    "$generate" --kind task --count "$2" --seed 12 --held-out >"$work/held-out.jsonl"
    if sort -u "$work/held-out.jsonl" | grep -qxFf - "$work/train.jsonl"; then
        echo "demo: a held-out example is in the training file" >&2
        exit 1
    fi
}

# train_task OUT STEPS [option...]
train_task() {
    "$moetune" train --model "$model" --out "$1" --data "$work/train.jsonl" \
        --batch-tokens 1024 --max-steps "$2" --no-recompute \
        --lr 2e-3 --schedule cosine-floor --warmup-steps 10 "${@:3}"
}

# score MODEL DATA TASK [option...] - the line of `moetune eval --json`.
score() {
    "$moetune" eval --model "$1" --data "$work/$2.jsonl" --task "$3" --max-new-tokens 48 \
        --batch-sequences 50 --json "${@:4}"
}

# number KEY - a number of such a line.
number() {
    sed -n "s/.*\"$1\": *\([0-9.eE+-]*\).*/\1/p"
}
