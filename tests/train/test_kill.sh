#!/usr/bin/env bash
# A run of the program killed with SIGKILL at 20 random moments, saving and exporting included, and
# resumed ends with the same bytes as one that ran through. Argument: the binary.
set -euo pipefail
moetune=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

cat > config.json <<'JSON'
{"architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "hidden_size": 64,
 "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
 "num_key_value_heads": 2, "num_experts": 8, "num_experts_per_tok": 2, "vocab_size": 97,
 "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
 "tie_word_embeddings": false, "norm_topk_prob": false, "hidden_act": "silu",
 "initializer_range": 0.1}
JSON
"$moetune" init --config config.json --out base --seed 1 > init.log

# Lines that count upwards in steps of 1 to 3; the first two tokens carry no loss.
awk 'BEGIN {
  srand(3)
  for (i = 0; i < 80; i++) {
    n = 6 + int(rand() * 15); stride = 1 + int(rand() * 3); token = int(rand() * 97)
    ids = ""; labels = ""
    for (j = 0; j < n; j++) {
      t = (token + j * stride) % 97
      ids = ids (j ? "," : "") t; labels = labels (j ? "," : "") (j < 2 ? -100 : t)
    }
    print "{\"input_ids\":[" ids "],\"labels\":[" labels "]}"
  }
}' > data.jsonl

# An array, not a function: a job of the shell must be the program itself, or the signal misses it.
train=("$moetune" train --model base --data data.jsonl --validation-fraction 0.1
  --batch-tokens 100 --accumulate 2 --epochs 4 --lr 3e-3 --eval-every 4 --save-every 3
  --keep-last 2 --threads 1 --quiet)

same_end() { # RESUMED
  diff -r straight/model "$1/model"
  last=$(cd straight && ls -d checkpoint-* | sort -t- -k2n | tail -1)
  diff -r "straight/$last" "$1/$last"
  # shellcheck disable=SC2001
  diff <(sed 's/"tokens_per_second":[^,]*,"seconds":[^,]*,//' straight/metrics.jsonl) \
       <(sed 's/"tokens_per_second":[^,]*,"seconds":[^,]*,//' "$1/metrics.jsonl")
  if ls -d "$1"/*.tmp 2> none.log; then
    echo "something temporary is left in $1"
    exit 1
  fi
}

RANDOM=7
begin=$(date +%s%N)
"${train[@]}" --out straight
whole=$(( ($(date +%s%N) - begin) / 1000000 ))
echo "straight: $(wc -l < straight/metrics.jsonl) steps, $whole ms"

kills=0
for run in $(seq 100); do
  [ "$kills" -ge 20 ] && break
  out=killed-$run
  for _ in 1 2 3 4; do
    "${train[@]}" --out "$out" --resume 2> run.log &
    pid=$!
    sleep "$(awk -v ms=$((RANDOM % whole)) 'BEGIN { printf "%.3f", ms / 1000 }')"
    if kill -KILL "$pid" 2> none.log; then kills=$((kills + 1)); fi
    wait "$pid" 2> none.log || true
  done
  "${train[@]}" --out "$out" --resume 2> run.log
  same_end "$out"
done
[ "$kills" -ge 20 ]
echo "$kills kills"

# SIGTERM: saves, says so with status 130, and goes on.
"${train[@]}" --out stopped --max-steps 2000 &
pid=$!
while [ ! -s stopped/metrics.jsonl ]; do sleep 0.01; done
kill -TERM "$pid"
status=0
wait "$pid" || status=$?
[ "$status" -eq 130 ]
ls -d stopped/checkpoint-*
if "${train[@]}" --out stopped --max-steps 2000 2> run.log; then exit 1; fi
grep -q 'holds a run' run.log
if "${train[@]}" --out stopped --max-steps 2001 --resume 2> run.log; then exit 1; fi
grep -q 'option max_steps was 2000 and is 2001' run.log
