#!/usr/bin/env bash
# test_examples.sh BINARY - every example of a run's YAML trains a toy as it stands, but for model, data and length;
# what it says is what run.json then holds.
. "$(dirname "$0")/common.sh"

cat >config.json <<'JSON'
{"architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "vocab_size": 64, "hidden_size": 32,
 "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 2,
 "num_experts": 8, "num_experts_per_tok": 2, "max_position_embeddings": 4096, "eos_token_id": 0,
 "router_aux_loss_coef": 0.01}
JSON
"$moetune" init --config config.json --out base --quiet || exit 1
for i in $(seq 10 29); do
    echo "{\"input_ids\": [$i, 7, 1, 9, 2, 11, 3, 5], \"labels\": [$i, 7, 1, 9, 2, 11, 3, 5]}"
done >data.jsonl

count=0
for example in "$repo"/examples/*.yaml; do
    name=$(basename "$example" .yaml)
    count=$((count + 1))
    toy=(--max-steps 3)
    [ "$name" = smt ] && toy+=(--smt-block 8) # 0.84 % of a toy's blocks of 256 is none
    "$moetune" train --config "$example" --model base --data data.jsonl --out "$name" "${toy[@]}" \
        --threads 1 --quiet >out.txt 2>err.txt || complain "$name: exit $?: $(tail -3 err.txt)"
    [ -d "$name/model" ] || [ -d "$name/adapter" ] || complain "$name: no result"
    grep -q "routing: $name\|tuning: $name" "$example" || complain "$name: names neither routing nor tuning"
    # Every line stands in run.json, numbers as numbers.
    while IFS=': ' read -r key value _; do
        value=$(printf '%s' "$value" | tr -d '"')
        [[ " ${toy[*]} " == *" --${key//_/-} "* ]] && continue
        got=$(grep -m1 "\"$key\":" "$name/run.json" | sed 's/.*: *//; s/,$//; s/"//g')
        if [[ $value =~ ^[0-9] ]]; then
            awk -v a="$got" -v b="$value" 'BEGIN { exit !(a + 0 == b + 0 && a != "") }'
        else
            [ "$got" = "$value" ]
        fi || complain "$name: $key is $value, run.json says '$got'"
    done < <(grep -E '^[a-z]' "$example" | sed 's/ *#.*//')
done
[ "$count" -ge 8 ] || complain "only $count examples"
[ "$failures" = 0 ]
