#!/usr/bin/env bash
# test_routing_options.sh BINARY - a routing that does not go with the model is refused before anything is
# loaded: the model's folder holds a config.json and nothing else, the data file is no file, and the one line
# on stderr names the routing's option or file all the same; exit status 2.
. "$(dirname "$0")/common.sh"

# refused WORDS COMMAND...: status 2, and one line on stderr that holds the words.
refused() {
    local words=$1 before
    shift
    before=$(ls -A)
    timeout 10 "$moetune" "$@" >"$dir.out" 2>"$dir.err"
    local got=$?
    [ "$got" = 2 ] || complain "$*: exit $got, expected 2: $(head -3 "$dir.err")"
    [ "$(wc -l <"$dir.err")" = 1 ] || complain "$*: $(wc -l <"$dir.err") lines: $(cat "$dir.err")"
    grep -qF -- "$words" "$dir.err" || complain "$*: '$(cat "$dir.err")' does not say '$words'"
    [ ! -s "$dir.out" ] || complain "$*: wrote on stdout"
    [ "$(ls -A)" = "$before" ] || complain "$*: left something behind: $(ls -A)"
    rm -f "$dir.out" "$dir.err"
}

# passes COMMAND...: nothing is wrong but that there is no model.
passes() {
    timeout 10 "$moetune" "$@" >"$dir.out" 2>"$dir.err"
    local got=$?
    [ "$got" = 1 ] || complain "$*: exit $got, expected 1"
    grep -qE "no such file|No such file|neither model.safetensors nor" "$dir.err" ||
        complain "$*: $(cat "$dir.err")"
    rm -f "$dir.out" "$dir.err"
}

# Layers 1 and 3 are MoE layers.
shape='"architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe", "vocab_size": 64,
 "hidden_size": 16, "intermediate_size": 24, "moe_intermediate_size": 8, "num_hidden_layers": 4,
 "shared_expert_intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2,
 "num_experts_per_tok": 3, "decoder_sparse_step": 2, "max_position_embeddings": 64, "eos_token_id": 0'
mkdir moe dense one all
printf '{%s, "num_experts": 6}' "$shape" >moe/config.json
printf '{%s, "num_experts": 0}' "$shape" >dense/config.json
printf '{%s, "num_experts": 1}' "${shape/per_tok\": 3/per_tok\": 1}" >one/config.json
printf '{%s, "num_experts": 3}' "$shape" >all/config.json

bias_file() { # NAME VALUES-OF-1 VALUES-OF-3 [MORE]
    printf '{"moe_bias_states": {"model.layers.1.mlp": {"bias_values": [%s]}, "model.layers.3.mlp":
        {"bias_values": [%s]}%s}}' "$2" "$3" "${4-}" >"$1"
}
bias_file good.json 0.1,0.2,0.3,-0.1,-0.2,0 0,0,0,0,0.5,-0.5
bias_file zero.json 0,0,0,0,0,0 0,0,0,0,0,0
bias_file five.json 1,2,3,4,5 1,2,3,4,5
bias_file more.json 1,2,3,4,5,6 1,2,3,4,5,6 ', "model.layers.5.mlp": {"bias_values": [1,2,3,4,5,6]}'
bias_file word.json '1,2,3,4,5,"x"' 1,2,3,4,5,6
printf '{"moe_bias_states": {"model.layers.1.mlp": {"bias_values": [1,2,3,4,5,6]}}}' >part.json
printf '{"moe_bias_states": ' >torn.json
experts_file() { # NAME EXPERTS-OF-1 EXPERTS-OF-3
    printf '{"model.layers.1.mlp": [%s], "model.layers.3.mlp": [%s]}' "$2" "$3" >"$1"
}
experts_file missing.json 0,6 1
experts_file twice.json 0,1 4,4
experts_file four.json 0,1,2,3 1
printf '{"model.layers.1.mlp": [0]}' >one-layer.json

train=(train --data nowhere.jsonl --out run --model moe)
bias=("${train[@]}" --routing bias)
condenser=("${train[@]}" --routing condenser)

# --- an option that no method of the run reads
refused "--lora-rank: an option of --tuning lora, dora, but --tuning is full" "${train[@]}" --lora-rank 3
refused "--condenser-count: an option of --routing condenser, but --routing is topk" "${train[@]}" --condenser-count 2
refused "--bias-rate: an option of --routing bias, condenser, but --routing is aux" "${train[@]}" --routing aux --bias-rate 1
printf 'tuning: full\nsmt_blocks: 3\n' >full.yaml
refused "full.yaml:2: smt-blocks: an option of --tuning smt, but --tuning is full" "${train[@]}" --config full.yaml
# A file may say more than a flag lets through, and the defaults of all: the data is what is missing here.
for more in '--tuning lora' '--tuning smt'; do
    # shellcheck disable=SC2086
    "$moetune" "${train[@]}" --config full.yaml $more 2>more.err && complain "$more: there is no data"
    grep -q 'nowhere.jsonl' more.err || complain "$more: $(cat more.err)"
done
rm -f full.yaml more.err

# --- how many condensers
refused "--condenser-count: 4 in layer 1, but a token runs 3" "${condenser[@]}" --condenser-count 4
refused "--condenser-count: 5 in layer 3" "${condenser[@]}" --condenser-count 3,5
refused "--condenser-count: 7 in layer 1, but it has 6 experts" "${condenser[@]}" \
    --condenser-count 7 --condenser-preset released
refused "--condenser-count: 9000 in layer 1" "${condenser[@]}" --condenser-count 9000
refused "--condenser-count: '1,2,3'; one number, or 2" "${condenser[@]}" --condenser-count 1,2,3
for malformed in 1, ,1 1,,2 x 1,-1 1.5 99999999999999999999; do
    refused "--condenser-count: '$malformed'" "${condenser[@]}" --condenser-count $malformed
done
refused "--condenser-thirds: '1,2'; three numbers expected" "${condenser[@]}" --condenser-thirds 1,2
refused "--condenser-thirds: '1,2,3,1'" "${condenser[@]}" --condenser-thirds 1,2,3,1
refused "--condenser-thirds: 4 in layer 1" "${condenser[@]}" --condenser-thirds 1,4,2
refused "--condenser-total: 7, but 3 in each of 2 layers" "${condenser[@]}" --condenser-total 7
refused "--condenser-total: 5, but 2 in each of 2 layers" "${condenser[@]}" --condenser-total 5 \
    --condenser-max 2
refused "--condenser-thirds and --condenser-total exclude each other" "${condenser[@]}" \
    --condenser-total 2 --condenser-thirds 1,1,1

# --- which ones
list=("${condenser[@]}" --condenser-experts)
refused "--condenser-experts: layer 1 names expert 3 twice" "${list[@]}" 3,1,3
refused "--condenser-experts: layer 3 names expert 2 twice" "${list[@]}" '1;2,2'
refused "--condenser-experts: layer 1: an expert from 0 to 5 expected" "${list[@]}" 6
refused "--condenser-experts: layer 1: an expert" "${list[@]}" 99999999999999999999
refused "--condenser-experts: '1;2;3' has 3 lists; one, or 2" "${list[@]}" '1;2;3'
refused "--condenser-experts: 4 in layer 1, but a token runs 3" "${list[@]}" 0,1,2,3
refused "--condenser-experts: '1;'" "${list[@]}" '1;'
refused "--condenser-experts: '1,,2'" "${list[@]}" '1,,2'
refused "--condenser-experts: '1,2,'" "${list[@]}" '1,2,'
refused "--condenser-experts and --condenser-total exclude" "${list[@]}" 1 --condenser-total 2
refused "3,x: cannot open" "${list[@]}" 3,x
refused "none.json: cannot open" "${list[@]}" none.json
refused "missing.json: layer 1: an expert from 0 to 5 expected" "${list[@]}" missing.json
refused "twice.json: layer 3 names expert 4 twice" "${list[@]}" twice.json
refused "four.json: 4 in layer 1, but a token runs 3" "${list[@]}" four.json
refused "one-layer.json: layer 3 is missing" "${list[@]}" one-layer.json
refused "torn.json: not valid JSON" "${list[@]}" torn.json

# --- the bias
for row in "none.json: cannot open" "part.json: layer 3 is missing" "five.json: layer 1" \
    "more.json: 'model.layers.5.mlp' is not an MoE layer" "word.json: layer 1: bias_values[5]" \
    "torn.json: not valid JSON"; do
    refused "$row" "${bias[@]}" --bias-file "${row%%:*}"
    refused "$row" "${condenser[@]}" --bias-file "${row%%:*}"
done
refused "zero.json: condensers: the bias is zero everywhere" "${condenser[@]}" --bias-file zero.json
refused "good.json: condensers: the experts' use is zero" "${condenser[@]}" --bias-file good.json \
    --condenser-choice least-used
refused "--bias-rate: found '-0.1'" "${bias[@]}" --bias-rate -0.1
refused "--bias-rate: found '-1'" "${condenser[@]}" --bias-rate=-1
refused "--phase2-rate: found '-1'" "${condenser[@]}" --phase2-rate -1
refused "--bias-rate: found 'nan'" "${bias[@]}" --bias-rate nan
refused "--bias-limit: found '-1'" "${bias[@]}" --bias-limit -1

# --- a phase 1 that cannot leave anything to choose by
refused "one expert in a layer" "${condenser[@]}" --model one --condenser-count 1
refused "one expert in a layer" plan --data nowhere.jsonl --model one --routing condenser \
    --condenser-total 1 --condenser-choice least-used
refused "--bias-usage count where a token runs all" "${condenser[@]}" --model all --bias-usage count
refused "--bias-usage count where a token runs all" "${condenser[@]}" --model all --bias-usage count \
    --condenser-choice most-used --condenser-total 2 --condenser-share usage-gini
refused "--bias-rate: 0, but" "${condenser[@]}" --bias-rate 0
refused "--bias-rate: 0, but" "${condenser[@]}" --bias-rate 0 --condenser-choice highest-bias
passes "${condenser[@]}" --model one --condenser-count 1 \
    --condenser-choice least-used
passes "${condenser[@]}" --model all
passes "${condenser[@]}" --bias-rate 0 --condenser-choice least-used
passes "${condenser[@]}" --bias-rate 0 --bias-file good.json
passes "${condenser[@]}" --model one --condenser-experts 0
passes eval --data nowhere.jsonl --model one --routing condenser \
    --condenser-count 1

# --- a dense model
dense=(train --data nowhere.jsonl --out run --model dense)
for routing in aux bias condenser densemixer; do
    refused "--routing: found $routing, but the model" "${dense[@]}" --routing $routing
done
refused "--aux-coef: the model" "${dense[@]}" --aux-coef 0.01
refused "--z-coef: the model" "${dense[@]}" --z-coef 0.01

# --- every command that routes
wrong=(--routing condenser --condenser-count 4)
refused "--condenser-count: 4" plan --model moe --data nowhere.jsonl "${wrong[@]}"
refused "--condenser-count: 4" eval --model moe --data nowhere.jsonl "${wrong[@]}"
refused "--condenser-count: 4" generate --model moe --prompt x "${wrong[@]}"
refused "--condenser-count: 4" dump --model moe --batch nowhere.json --out d "${wrong[@]}"
refused "--condenser-count: 4" bench --config moe/config.json --routing topk,condenser \
    --condenser-count 4
printf 'model: moe\ndata: nowhere.jsonl\nout: run\nrouting: condenser\ncondenser_experts: "1;1,2,1"\n' \
    >run.yaml
refused "--condenser-experts: layer 3 names expert 1 twice" train --config run.yaml

# --- what does go with the model gets as far as the data
for fits in "--condenser-experts 5,0" "--condenser-experts 1,2;0" "--condenser-count 3,1" \
    "--condenser-total 6" "--condenser-thirds 3,2,1" "--bias-file good.json" \
    "--condenser-experts 1 --bias-file zero.json" "--condenser-preset released --condenser-count 6"; do
    # shellcheck disable=SC2086
    "$moetune" "${condenser[@]}" $fits >"$dir.out" 2>"$dir.err"
    grep -qF "nowhere.jsonl" "$dir.err" || complain "$fits: $(cat "$dir.err")"
done
"$moetune" "${dense[@]}" >"$dir.out" 2>"$dir.err"
grep -qF "nowhere.jsonl" "$dir.err" || complain "topk on a dense model: $(cat "$dir.err")"
rm -f "$dir.out" "$dir.err"

[ "$failures" = 0 ] || exit 1
echo "all as expected"
