#!/usr/bin/env bash
# routing.sh BUILD [STEPS [SEEDS [EXAMPLES]]] - fine-tunes demo/model on the demo's task with each routing,
# from the same examples and in as many steps of the optimizer, and says what each learnt, what it forgot,
# and what became of the experts that the base model uses least, all on EXAMPLES that were held out.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1 steps=${2:-300} seeds=${3:-2} examples=${4:-200}
work=$1/demo/routing
begin=$SECONDS
. demo/task.sh
if [ $((steps % 2)) != 0 ] || [ "$steps" -lt 2 ]; then
    echo "routing.sh: $steps steps; an even number expected, for two phases" >&2
    exit 2
fi

# Two phases have half of the steps each, so that no routing takes more than another. The bias moves by
# 1e-4 a step: 1/E is 0.06 here, and the default of 1e-3, a rate for logits, changes half of all choices
# within the run.
routings="topk bias condenser densemixer"
declare -A options=([bias]="--bias-rate 1e-4" [condenser]="--bias-rate 1e-4")
declare -A phases=([condenser]=2)

# A process a seed: single threads leave no core waiting for another, and the result is the same.
threads=$(($(nproc) / seeds))
[ "$threads" -ge 1 ] || threads=1

# measure MODEL OUT [option...] - scores of a model in the folder OUT.
measure() {
    score "$1" held-out loss "${@:3}" >"$2/task" &&
        score "$1" held-out exact "${@:3}" >"$2/exact" &&
        score "$1" other loss "${@:3}" >"$2/other"
}

# one ROUTING SEED
one() {
    local out=$work/$1-$2 start=$SECONDS
    local with="--routing $1 ${options[$1]:-} --threads $threads --quiet"
    # shellcheck disable=SC2086 # words on purpose
    train_task "$out/run" $((steps / ${phases[$1]:-1})) --seed "$2" $with &&
        echo $((SECONDS - start)) >"$out/seconds" &&
        measure "$out/run/model" "$out" $with
}

all_of_seed() {
    local routing log
    for routing in $routings; do
        mkdir "$work/$routing-$1"
        log=$work/$routing-$1/log
        one "$routing" "$1" >"$log" 2>&1 || { cat "$log" >&2; return 1; }
        echo "$routing, seed $1: $steps steps in $(cat "$work/$routing-$1/seconds") s"
    done
}

# rows FILE - a line for each MoE layer: rows that each expert got, from a score's line.
rows() {
    sed -n 's/.*"usage":\[\[\(.*\)\]\].*/\1/p' "$1" | sed 's/\],\[/\n/g'
}

# condensers MODEL - a line for each MoE layer; none where the model has none.
condensers() {
    [ ! -e "$1/forced_experts_records.json" ] ||
        tr -d ' \n' <"$1/forced_experts_records.json" |
        grep -o '"forced_expert_indices":\[[^]]*\]' | sed 's/.*\[//; s/\]//'
}

# load SCORE MODEL - "before after always", means over layers. The tail is the half of a layer's experts
# that the base model uses least; before and after: its share of the rows that are routed, in the base
# model and in this one. Condensers are not routed to: they are left out of both, and `always` is their
# share of all rows.
load() {
    paste -d '|' <(rows "$work/base/task") <(rows "$1") <(condensers "$2") | awk -F '|' '{
        experts = split($1, base, ",")
        split($2, now, ",")
        n = split($3, list, ",")
        split("", forced)
        for (i = 1; i <= n; i++) forced[list[i] + 1]
        routed_then = routed = tail_then = tail = always = 0
        for (e = 1; e <= experts; e++) {
            if (e in forced) { always += now[e]; continue }
            routed_then += base[e]
            routed += now[e]
            less = 0
            for (f = 1; f <= experts; f++) {
                less += base[f] + 0 < base[e] + 0 || (base[f] == base[e] && f < e)
            }
            if (less >= int(experts / 2)) continue
            tail_then += base[e]
            tail += now[e]
        }
        before += tail_then / routed_then
        after += tail / routed
        forces += always / (routed + always)
    } END { print before / NR, after / NR, forces / NR }'
}

# numbers NAME OUT MODEL - one line for the table.
numbers() {
    echo "$1 $(number loss <"$2/task") $(number exact_match <"$2/exact")" \
        "$(number loss <"$2/other") $(load "$2/task" "$3") $(cat "$2/seconds")"
}

make_task $((17 * steps)) "$examples"
"$generate" --kind mix --count "$examples" --seed 21 >"$work/other.jsonl"
mkdir "$work/base"
echo 0 >"$work/base/seconds"
measure "$model" "$work/base" --quiet 2>"$work/base/log" || { cat "$work/base/log" >&2; exit 1; }

workers=() failed=0
for seed in $(seq "$seeds"); do
    all_of_seed "$seed" &
    workers+=($!)
done
for worker in "${workers[@]}"; do wait "$worker" || failed=1; done
[ "$failed" = 0 ] || exit 1

{
    numbers base "$work/base" "$model"
    for routing in $routings; do
        for seed in $(seq "$seeds"); do
            numbers "$routing" "$work/$routing-$seed" "$work/$routing-$seed/run/model"
        done
    done
} >"$work/numbers"

echo
# The mean over seeds, and half of their range.
awk '
function cell(name, column, scale, digits,    i, v, sum, low, high, form) {
    for (i = 1; i <= count[name]; i++) {
        v = scale * value[name, i, column]
        sum += v
        if (i == 1 || v < low) low = v
        if (i == 1 || v > high) high = v
    }
    form = "%." digits "f"
    if (count[name] == 1) return sprintf(form, sum)
    return sprintf(form " +- " form, sum / count[name], (high - low) / 2)
}
{
    if (!count[$1]++) order[++n] = $1
    for (k = 2; k <= NF; k++) value[$1, count[$1], k] = $k
}
END {
    form = "%-10s  %-14s  %-12s  %-14s  %-13s  %-12s  %-12s  %s\n"
    printf form, "routing", "task loss", "exact %", "other loss", "tail before %", "tail after %",
        "always on %", "seconds"
    for (i = 1; i <= n; i++) {
        name = order[i]
        tuned = name != "base"
        printf form, name, cell(name, 2, 1, 3), cell(name, 3, 100, 1), cell(name, 4, 1, 3),
            cell(name, 5, 100, 1), tuned ? cell(name, 6, 100, 1) : "-",
            value[name, 1, 7] + 0 ? cell(name, 7, 100, 1) : "-", tuned ? cell(name, 8, 1, 0) : "-"
    }
}' "$work/numbers"
cat <<END

base         demo/model as it is
task loss    mean cross-entropy of $examples answers, to sentences that no training file holds
exact %      greedy answers to these $examples that are exactly the reference
other loss   mean cross-entropy on $examples new documents of the twelve kinds of text that the base model
             learnt; the task is none of them: what was forgotten
tail %       the tail: of each layer's experts the half that the base model uses least on these
             examples. Its share of the rows that are routed, mean over layers, in the base model and
             in the tuned one; condensers, which are not routed to, are left out of both
always on %  the condensers' share of all rows
seconds      of training; $seeds at a time, with $threads thread(s) each
+-           half of the range over the seeds 1 to $seeds, which decide the order of the examples

Each routing: the same $((17 * steps)) examples, about twice over, $steps steps of the optimizer of at most 1024
tokens, AdamW at 2e-3, 10 steps of warm-up, then a cosine to a tenth. condenser has half of the steps in
each of its two phases, each with an optimizer and a schedule of its own, as the method has it.
bias and condenser: --bias-rate 1e-4. Everything else is the default.

END
echo "demo-routing: 4 routings, $steps steps, $seeds seeds, $((SECONDS - begin)) s"
