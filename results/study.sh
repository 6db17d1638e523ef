# study.sh - the study's sizes, tasks and methods; sourced by run.sh and job.sh. $build and $tiny are set there.
# shellcheck shell=bash disable=SC2034,SC2154
moetune=$build/moetune generate=$build/results/generate_study record=$build/results/study_record

if [ "$tiny" = 1 ]; then # the whole chain in seconds: figures without meaning
    tasks=translate
    work=$build/results/tiny kept=$work/kept
    pretrain_steps=6 pretrain_tokens=512 pretrain_threads=1 vocabulary=300 documents=100
    steps=4 examples=60 test_examples=6 kind_documents=1 max_new=8 seeds="1 2" prune_at=0,50
    study_methods=${STUDY_METHODS:-topk lora-condenser}
    sweep_methods=smt sweep_ranks="1 2" sweep_seeds=$seeds main_rank=2 blocks_a_rank=4 most_rates=4
    kinds="story records glossary velan"
else
    tasks="translate passive"
    work=$build/results/work kept=results
    pretrain_steps=12000 pretrain_tokens=2048 pretrain_threads=2 vocabulary=1024 documents=150000
    steps=200 examples=2500 test_examples=200 kind_documents=12 max_new=48 seeds="1 2 3 4 5" prune_at=0,25,50,75
    kinds=$("$generate" --list | cut -d ' ' -f 1)
    study_methods=${STUDY_METHODS:-topk frozen aux bias condenser condenser-sigmoid condenser-softmax condenser-one
        condenser-released densemixer esft lora dora smt lora-condenser smt-condenser}
    # main_rank is that of lora and dora in the runs; smt has as many values: 544 blocks of 16 x 16 are as many as
    # rank 1 in every projection has (139,264).
    sweep_methods="lora dora smt" sweep_ranks="2 8 32" sweep_seeds="1 2 3" main_rank=8 blocks_a_rank=544 most_rates=5
fi
base=$work/base/model
sweep_task=translate
search_seed=0

# method_options METHOD RANK - the options of a method, and how many phases share the steps. A method whose rate was
# not searched for itself (`rates_of`) takes that of the method named there.
method_options() {
    local rank=$2
    phases=1 rates_of=$1 first_rates="2e-3 4e-3 8e-3"
    # The bias moves p, which is about 1/64: within half of the steps by a quarter of that at most. In the logits
    # (preset released) it has the published rate.
    local bias="--bias-rate 5e-5"
    local condenser="--routing condenser $bias --phase2-rate 2.5e-6"
    local low_rank="--lora-rank $rank --lora-alpha $((2 * rank))"
    local blocks="--tuning smt --smt-block 16 --smt-scope all --smt-warmup-steps 20"
    blocks+=" --smt-blocks $((blocks_a_rank * rank))"
    case $1 in
    topk) options="" ;;
    frozen) options="--freeze *.mlp.gate.weight" ;;
    aux) options="--routing aux" ;;
    bias) options="--routing bias $bias" ;;
    condenser) options=$condenser phases=2 ;;
    condenser-sigmoid | condenser-softmax | condenser-one)
        options="$condenser --condenser-gate ${1#condenser-}" phases=2 rates_of=condenser
        ;;
    condenser-released)
        options="--routing condenser --condenser-preset released --bias-rate 1e-3 --phase2-rate 5e-5" phases=2
        ;;
    densemixer) options="--routing densemixer" ;;
    esft) options="--tuning esft --esft-tokens 8192" first_rates="2e-3 4e-3 8e-3" ;;
    lora | dora) options="--tuning $1 $low_rank" first_rates="4e-3 8e-3 1.6e-2" ;;
    smt) options=$blocks first_rates="4e-3 8e-3 1.6e-2" ;;
    lora-condenser) options="--tuning lora $low_rank $condenser" phases=2 first_rates="4e-3 8e-3 1.6e-2" ;;
    smt-condenser) options="$blocks $condenser" phases=2 first_rates="4e-3 8e-3 1.6e-2" ;;
    *)
        echo "study.sh: no method '$1'" >&2
        return 1
        ;;
    esac
}

# number KEY - a number of a JSON line.
number() {
    sed -n "s/.*\"$1\": *\([0-9.eE+-]*\).*/\1/p"
}

# times RATE FACTOR
times() {
    awk -v r="$1" -v f="$2" 'BEGIN { printf "%.3g", r * f }'
}

# best_rate TASK METHOD RANK - of the rates tried, the one with the lowest validation loss.
best_rate() {
    local trial
    for trial in "$work/records/search/$1-$2-$3-"*.json; do
        [ ! -e "$trial" ] || echo "$(number valid <"$trial") $(number lr <"$trial")"
    done | sort -g | head -n 1 | cut -d ' ' -f 2
}

# ask COMMAND [option...] - moetune with one thread, lines for programs alone; its words are in $log and are shown
# where it fails.
ask() {
    OMP_NUM_THREADS=1 "$moetune" "$@" --threads 1 --json --quiet 2>>"$log" || { cat "$log" >&2; return 1; }
}
