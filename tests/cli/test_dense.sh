#!/usr/bin/env bash
# test_dense.sh BINARY - every command on models without experts: a tied one with a stretched rotation and
# biases, and one with a sliding window. A resume gives the same bytes; what needs experts is refused.
. "$(dirname "$0")/common.sh"

ok() {
    "$moetune" "$@" >ok.txt 2>ok-err.txt || complain "$*: exit $?: $(tail -3 ok-err.txt)"
}

refused() { # WORDS COMMAND...
    local words=$1
    shift
    "$moetune" "$@" >/dev/null 2>err.txt && complain "$*: done, an error was expected"
    grep -qF -- "$words" err.txt || complain "$*: '$(cat err.txt)' does not say '$words'"
}

says() { # FILE WORDS
    grep -qF -- "$2" "$1" || complain "'$2' not in: $(head -c 600 "$1")"
}

cat >llama.json <<'JSON'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 768, "hidden_size": 40,
 "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
 "max_position_embeddings": 128, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "initializer_range": 0.05,
 "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                  "original_max_position_embeddings": 32},
 "attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true, "bos_token_id": null,
 "eos_token_id": 0}
JSON
cat >mistral.json <<'JSON'
{"architectures": ["MistralForCausalLM"], "model_type": "mistral", "vocab_size": 768, "hidden_size": 40,
 "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
 "max_position_embeddings": 128, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "initializer_range": 0.05,
 "sliding_window": 6, "bos_token_id": null, "eos_token_id": 0}
JSON
cat >data.jsonl <<'JSONL'
{"prompt": "one plus two?", "completion": " three"}
{"prompt": "the sky is?", "completion": " blue"}
{"question": "say hello", "answer": "hello you"}
JSONL
printf '{"input_ids": [[1, 2, 3, 9, 8, 7, 6, 5, 4]], "labels": [[1, 2, 3, 9, 8, 7, 6, 5, 4]]}' >batch.json

for family in llama mistral; do
    ok init --config $family.json --out $family --seed 3 --quiet
    cp "$repo"/demo/model/tokenizer*.json $family/
    ok inspect --model $family
    says ok.txt "dense layers: MLPs of width 56"
    [ $family = llama ] || says ok.txt "2 layers see the last 6 tokens"
    ok inspect --model $family --json
    says ok.txt '"experts":0'
    run=(--model $family --data data.jsonl --lr 0.01 --dtype f32 --batch-tokens 128 --max-steps 60
        --save-every 20 --keep-last 3)
    ok plan "${run[@]}" --json
    says ok.txt '"supervised"'
    ok train "${run[@]}" --out run --quiet
    grep -q '"routing"' run/metrics.jsonl && complain "$family: numbers of a routing, without experts"
    [ "$(wc -l <run/metrics.jsonl)" = 60 ] || complain "$family: not a line a step"

    cp -r run again
    rm -r again/model again/checkpoint-60 again/checkpoint-40
    ok train --out again --resume --quiet
    cmp -s run/model/model.safetensors again/model/model.safetensors ||
        complain "$family: a resume gives other bytes"

    ok eval --model run/model --data data.jsonl --task exact --json --dtype f32
    says ok.txt '"exact_match":1.0'
    ok generate --model run/model --prompt "the sky is?" --dtype f32
    [ "$(cat ok.txt)" = " blue" ] || complain "$family: said '$(cat ok.txt)'"
    ok dump --model run/model --batch batch.json --out dump.safetensors --gradients
    grep -qaF 'router_logits' dump.safetensors && complain "$family: dump has router logits"
    grep -qaF 'grad.model.layers.1.mlp.down_proj.weight' dump.safetensors ||
        complain "$family: dump has no gradient of an MLP"

    for routing in aux bias condenser densemixer; do
        refused "--routing: found $routing, but the model" \
            train "${run[@]}" --out new --routing $routing
    done
    refused "--aux-coef: " train "${run[@]}" --out new --aux-coef 0.01
    refused "--z-coef: " train "${run[@]}" --out new --z-coef 0.01
    [ ! -e new/model ] || complain "$family: left a model behind"
    rm -rf run again new
done

[ "$failures" = 0 ] || exit 1
echo "all as expected"
