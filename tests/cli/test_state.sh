#!/usr/bin/env bash
# test_state.sh BINARY - a model's folder with a routing's state is run by that routing in every command; flags
# beat it, with a warning; a folder of the released code is recognised.
. "$(dirname "$0")/common.sh"

# ok WARNINGS COMMAND...: runs it; that many lines on stderr begin with "moetune: warning".
ok() {
    local warnings=$1
    shift
    "$moetune" "$@" --threads 1 >out.txt 2>err.txt || complain "$*: exit $?: $(tail -3 err.txt)"
    [ "$(grep -c '^moetune: warning' err.txt)" = "$warnings" ] ||
        complain "$*: $warnings warnings expected: $(cat err.txt)"
}

says() { # FILE WORDS
    grep -qF -- "$2" "$1" || complain "'$2' not in: $(head -c 800 "$1")"
}

refuses() { # WORDS COMMAND...
    local words=$1
    shift
    "$moetune" "$@" >out.txt 2>err.txt && complain "$*: not refused"
    says err.txt "$words"
    [ "$(wc -l <err.txt)" = 1 ] || complain "$*: $(cat err.txt)"
}

logits() { # FILE OPTIONS...: what dump computes, as bytes
    local file=$1
    shift
    ok "$@" --batch batch.json --out "$file" --quiet
}

cat > config.json <<'JSON'
{"architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "hidden_size": 32,
 "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
 "num_key_value_heads": 2, "num_experts": 8, "num_experts_per_tok": 3, "vocab_size": 97,
 "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
 "tie_word_embeddings": false, "norm_topk_prob": true, "hidden_act": "silu",
 "initializer_range": 0.2}
JSON
ok 0 init --config config.json --out base --seed 1 --dtype f32
for i in 1 2 3 4 5 6 7 8 9; do
    echo "{\"input_ids\":[$i,2,$((i * 3)),4,5,$((i * 7)),7],\"labels\":[-100,2,$((i * 3)),4,5,$((i * 7)),7]}"
done > data.jsonl
printf '{"input_ids": [[1, 2, 3, 50, 60]], "labels": [[1, 2, 3, 50, 60]]}' > batch.json
train=(train --data data.jsonl --dtype f32 --batch-tokens 21 --lr 1e-2 --bias-rate 0.05)

# --- an export knows its routing
ok 1 "${train[@]}" --model base --out run --routing condenser --condenser-preset released \
    --condenser-gate sigmoid --quiet
says run/model/routing.json '"condenser_preset": "released"'
logits by-default 0 dump --model run/model
logits by-flags 0 dump --model run/model --routing condenser --condenser-preset released \
    --condenser-gate sigmoid --bias-in logits
cmp -s by-default by-flags || complain "dump: the folder's routing is not the default"
logits other 1 dump --model run/model --condenser-gate one
says err.txt "run/model: routing.json says --condenser-gate sigmoid; one is used, as given"
cmp -s by-default other && complain "dump: a flag does not beat the folder"
logits other 1 dump --model run/model --routing topk
says err.txt "trained with another routing, and runs with topk"
cmp -s by-default other && complain "dump: --routing does not beat the folder"
logits other 1 dump --model run/model --routing bias
says err.txt "routing.json says --routing condenser; bias is used"
printf 'bias_in: default\n' > run.yaml
logits other 0 dump --model run/model --config run.yaml
cmp -s by-default other || complain "dump: 'default' in a file is taken for a choice"
ok 0 eval --model run/model --data data.jsonl --dtype f32 --json
cp out.txt eval.txt
ok 0 eval --model run/model --data data.jsonl --dtype f32 --json --routing condenser
cmp -s out.txt eval.txt || complain "eval: the folder's routing is not the default"
ok 1 eval --model run/model --data data.jsonl --dtype f32 --json --routing topk
cmp -s out.txt eval.txt && complain "eval: topk gives what condenser gives"

# --- training goes on from it, in one phase; plan says the same
ok 0 plan --model run/model --data data.jsonl --batch-tokens 21
says out.txt "condenser_gate"
steps=$(grep '^steps' out.txt)
ok 1 "${train[@]}" --model run/model --out on
says out.txt "$steps"
says on/run.json '"routing": "condenser"'
says on/run.json '"condenser_gate": "sigmoid"'
cmp -s run/model/forced_experts_records.json on/model/forced_experts_records.json ||
    complain "train: other condensers than the folder's"
ok 1 train --resume --out on --quiet

# --- an adapter carries it, too, and merging hands it on
ok 0 "${train[@]}" --model base --out adapted --routing condenser --condenser-gate one \
    --tuning esft --quiet
logits by-default 0 dump --tuning esft --model base --adapter adapted/adapter
logits by-flags 0 dump --tuning esft --model base --adapter adapted/adapter --routing condenser \
    --condenser-gate one
cmp -s by-default by-flags || complain "dump: the adapter's routing is not the default"
ok 1 merge --model base --adapter adapted/adapter --out merged
logits other 0 dump --model merged
cmp -s by-default other || complain "merge: the merged model computes something else"
logits other 1 dump --tuning esft --model base --adapter adapted/adapter --routing topk
cmp -s by-default other && complain "dump: --routing does not beat the adapter"

# --- a folder of the released code
cp -r run/model released
rm released/routing.json released/condenser_gates.safetensors
logits other 0 dump --model released --quiet
"$moetune" dump --model released --batch batch.json --out other 2>err.txt
says err.txt "released ExpertCondenser code, taken as --routing condenser, --condenser-preset released"
logits by-flags 0 dump --model released --routing condenser --condenser-preset released
cmp -s by-flags other || complain "dump: the released code's state is not run as that code does"
rm released/forced_experts_records.json
"$moetune" dump --model released --batch batch.json --out other 2>err.txt
says err.txt "taken as --routing bias, --bias-in logits"
logits by-flags 1 dump --model released --routing bias --bias-in selection
cmp -s by-flags other && complain "dump: --bias-in does not beat what was recognised"

# --- what is wrong is named
printf '{"routing": "bias", "bias_in": "gates"}' > released/routing.json
refuses "released/routing.json: bias_in: found 'gates'" eval --model released --data data.jsonl --quiet
printf '{"routing": "bias", "bias_in": "logits"}' > released/routing.json
sed -i 's/"bias_values": \[/"bias_values": [NaN, /' released/moe_bias_states.json
refuses "released/moe_bias_states.json: layer 0: bias_values: 9 values" \
    eval --model released --data data.jsonl --quiet
refuses "bias is zero everywhere" eval --model base --data data.jsonl --routing condenser --quiet

[ "$failures" = 0 ] || exit 1
echo "all as expected"
