#!/usr/bin/env bash
# test_show_routing.sh BINARY - what the experts did, in metrics.jsonl always and in the progress line on
# request; and one warning, not one a step, where a bias in the selection overrules the router.
. "$(dirname "$0")/common.sh"

cat >config.json <<'JSON'
{"architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "vocab_size": 64, "hidden_size": 16,
 "intermediate_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 2,
 "num_experts": 8, "num_experts_per_tok": 2, "max_position_embeddings": 64, "eos_token_id": 0}
JSON
"$moetune" init --config config.json --out base --quiet || exit 1
for i in 1 2 3 4 5 6; do
    echo "{\"input_ids\": [$i, 7, 1$i, 9, 2$i, 11, 3$i, 5], \"labels\": [$i, 7, 1$i, 9, 2$i, 11, 3$i, 5]}"
done >data.jsonl

# run ROUTING OPTIONS...: six steps; what was said is in err.txt, what was printed in out.txt
run() {
    local routing=$1
    shift
    "$moetune" train --model base --data data.jsonl --out run --overwrite --dtype f32 --max-steps 6 \
        --routing "$routing" "$@" >out.txt 2>err.txt || complain "$routing $*: $(tail -2 err.txt)"
}

# lines N PATTERN FILE
lines() {
    local got
    got=$(grep -cE -- "$2" "$3")
    [ "$got" = "$1" ] || complain "$3: $got lines with '$2', expected $1: $(head -c 800 "$3")"
}

key='\[[-0-9.e]+,[-0-9.e]+,[-0-9.e]+\]' # a value for each layer
load="\"top_share\":$key,\"cover80\":$key,\"gini\":$key,\"entropy\":$key,\"dead\":$key"
bias="\"bias_min\":$key,\"bias_max\":$key,\"bias_changed\":$key"

run topk
lines 6 "\"routing\":\{$load\}\}$" run/metrics.jsonl
lines 0 cover80 err.txt
run aux --show-routing
lines 6 "\"routing\":\{$load,\"loss\":[0-9.e-]+\}\}$" run/metrics.jsonl
lines 6 '[1-6]/6 loss [0-9.]+, [0-9]+ tokens/s, cover80 [1-8]\.[0-9]/8, gini 0\.[0-9]+, dead [0-9]+$' err.txt

run bias --bias-rate 0.5 --bias-sign balance --show-routing
lines 6 "\"routing\":\{$load,$bias\}\}$" run/metrics.jsonl
lines 6 ', bias [0-9.]+, changed [0-9]+ %$' err.txt
lines 1 'warning: the bias changes [0-9]+ % of the choices in layer [0-2]:' err.txt
run bias --bias-rate 5 --bias-sign balance --bias-in logits
lines 0 'the bias changes' err.txt
run bias --bias-rate 1e-5
lines 0 'the bias changes' err.txt

run condenser --condenser-experts '1,2;3;0' --show-routing
lines 6 "\"condenser_load\":\[1.0,0.5,0.5\],$bias" run/metrics.jsonl
lines 6 ', changed [0-9]+ %, condensers 67 %$' err.txt
run condenser --phase1-epochs 1 --epochs 1 --max-steps 0
lines 0 '"stage":0.*condenser_load' run/metrics.jsonl
lines "$(grep -c '"stage":1' run/metrics.jsonl)" "\"stage\":1.*\"condenser_load\":$key" run/metrics.jsonl

run topk --json
lines 0 '"routing"' out.txt
run topk --json --show-routing
lines 6 '"routing":\{"top_share"' out.txt

[ "$failures" = 0 ] || exit 1
echo "all as expected"
