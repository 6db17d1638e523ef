#!/usr/bin/env bash
# The program killed with SIGKILL at random moments of a run, from its start to its report; and asked to stop with
# SIGTERM and SIGINT, at times a second signal behind the first. Gone on with, each run ends with the bytes of one that
# nobody disturbed. A first signal loses no step that was made: it ends with status 130 and a checkpoint of the last
# step, or finishes what it was about to. Argument: the binary.
if [ -w /dev/shm ]; then export TMPDIR=/dev/shm; fi # no waiting for a disk: shorter runs, more of them
# shellcheck source=tests/cli/common.sh
. "$(dirname "$0")/../cli/common.sh"
kills=8 stops=3
if [ "${TORTURE:-}" = full ]; then kills=1000 stops=100; fi

cat > config.json <<'JSON'
{"architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "hidden_size": 32,
 "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
 "num_key_value_heads": 2, "num_experts": 8, "num_experts_per_tok": 2, "vocab_size": 490,
 "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
 "tie_word_embeddings": false, "norm_topk_prob": false, "hidden_act": "silu",
 "initializer_range": 0.1}
JSON
"$moetune" init --config config.json --out base --seed 1 > init.log || exit 1
cp "$repo"/tests/fixtures/data/tokenizer{,_config}.json base

# Sums in words, which the toy's tokenizer cuts into some twenty tokens each.
awk 'BEGIN {
  srand(3)
  for (i = 0; i < 400; i++) {
    a = int(rand() * 90); b = int(rand() * 9)
    printf "{\"prompt\": \"What is %d and %d?\", \"completion\": \"%d and %d is %d.\"}\n", a, b, a, b, a + b
  }
}' > data.jsonl

# An array, not a function, and env gives way to the program: a signal must meet the program itself. The shell lets
# its jobs ignore SIGINT; env undoes that.
train=(env "--default-signal=INT,TERM" "$moetune" train --model base --data data.jsonl --validation-fraction 0.1
    --batch-tokens 400 --max-steps 8 --lr 3e-3 --eval-every 3 --save-every 1 --keep-last 2 --threads 1)

exec {never}<> <(:)
RANDOM=7

now() { echo $((${EPOCHREALTIME/./} / 1000)); } # milliseconds

# A random moment within so many milliseconds.
pause() { # MS
    local ms=$(((RANDOM * 32768 + RANDOM) % ($1 + 1)))
    read -r -t "$(printf '%d.%03d' $((ms / 1000)) $((ms % 1000)))" -u "$never"
}

# A signal at a random moment of the run $pid. How long runs take is learnt from those that had ended before: what they
# had left to do differs, and the machine has other work. False: it had ended.
strike() { # SIGNAL
    pause "$whole"
    if kill -"$1" "$pid" 2> none.log; then
        whole=$((whole + whole / 40 + 1))
        return 0
    fi
    whole=$((whole - whole / 10))
    return 1
}

# Where the program was, as its last line and its folder tell.
declare -A met
moment() {
    local lines last='' at
    mapfile -t lines < run.log
    [ ${#lines[@]} -eq 0 ] || last=${lines[-1]}
    case $last in
    saving*/model) at=exporting ;;
    saving*) at=training && compgen -G 'out/*.tmp' > none.log && at=saving ;;
    [0-9]*/8\ * | step\ *) at=training ;;
    out/* | done*) at=end ;;
    *) at=beginning ;;
    esac
    met[$at]=$((${met[$at]:-0} + 1))
}

# A run that was stopped saved at other steps: of its checkpoints the last alone is compared.
same_end() { # WHAT [PATTERN of what is not compared]
    if ! "${train[@]}" --out out --resume &> run.log; then
        complain "$1: $(tail -n 1 run.log)"
        return
    fi
    diff -r -x run.json -x plan.json -x result.json -x report.html -x metrics.jsonl -x "${2:-nothing}" straight out ||
        complain "$1: another end"
    diff -r straight/checkpoint-8 out/checkpoint-8 || complain "$1: another last checkpoint"
    diff <(sed 's/"tokens_per_second":[^,]*,"seconds":[^,]*,//' straight/metrics.jsonl) \
        <(sed 's/"tokens_per_second":[^,]*,"seconds":[^,]*,//' out/metrics.jsonl) || complain "$1: other metrics"
    if compgen -G 'out/*.tmp'; then complain "$1: something temporary is left"; fi
    rm -rf out
}

begin=$(now)
"${train[@]}" --out straight &> run.log || exit 1
whole=$(($(now) - begin))
echo "undisturbed: $(wc -l < straight/metrics.jsonl) steps, $whole ms"

killed=0
while [ "$killed" -lt "$kills" ] && [ "$failures" -eq 0 ]; do
    for _ in 1 2 3 4; do
        "${train[@]}" --out out --resume &> run.log &
        pid=$!
        hit=1
        strike KILL || hit=0
        wait "$pid" 2> none.log
        [ "$hit" -eq 0 ] || moment
        killed=$((killed + hit))
    done
    same_end "after $killed kills"
done
at=
for where in beginning training saving exporting end; do at="$at $where ${met[$where]:-0}"; done
echo "met at:$at"

# Lines of metrics.jsonl and the newest checkpoint are of the same step.
nothing_lost() { # WHAT
    local made=0 saved
    [ ! -e out/metrics.jsonl ] || made=$(wc -l < out/metrics.jsonl)
    saved=$(find out -maxdepth 1 -name 'checkpoint-*' 2> none.log | sed 's/.*-//' | sort -n | tail -n 1)
    [ "$made" -eq "${saved:-0}" ] || complain "$1: $made steps made, ${saved:-0} saved"
}

saved=0 asked=0 twice=0
stop() { # SIGNAL TWICE
    local status=0
    "${train[@]}" --out out --resume &> run.log &
    pid=$!
    strike "$1" && asked=$((asked + 1))
    if [ "$2" = 1 ]; then
        pause 20
        kill -TERM "$pid" 2> none.log && twice=$((twice + 1))
    fi
    wait "$pid" 2> none.log || status=$?
    case $status in
    130) [ ! -e out/metrics.jsonl ] || saved=$((saved + 1)) ;;
    0) [ -d out/model ] || complain "$1: status 0 without a result" ;;
    143) ;; # before there was anything to save, after all was, or the second signal
    *) complain "$1: status $status: $(tail -n 1 run.log)" ;;
    esac
    [ "$2" = 1 ] || nothing_lost "$1"
}
for signal in TERM INT; do
    asked_before=$asked
    for ((i = 1; asked - asked_before < stops && failures == 0; i++)); do
        stop "$signal" $((i % 3 == 0))
        [ $((i % 2)) -eq 0 ] || stop "$signal" 0
        same_end "$signal $i" 'checkpoint-*'
    done
done

echo "torture: $killed SIGKILL (in:$at); $asked SIGTERM and SIGINT, $saved of them stopped after saving, $twice with a second; all gone on with to the same bytes"
[ "$failures" -eq 0 ]
