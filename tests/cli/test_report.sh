#!/usr/bin/env bash
# test_report.sh BINARY - what train leaves for its page, and the page of runs of every kind: with and without
# experts, adapters, several stages, stopped, killed.
. "$(dirname "$0")/common.sh"

cat >config.json <<'JSON'
{"architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "vocab_size": 64, "hidden_size": 16,
 "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
 "num_experts": 8, "num_experts_per_tok": 2, "max_position_embeddings": 64, "eos_token_id": 0}
JSON
cat >dense.json <<'JSON'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 64, "hidden_size": 16,
 "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
 "max_position_embeddings": 64, "eos_token_id": 0}
JSON
"$moetune" init --config config.json --out base --quiet || exit 1
"$moetune" init --config dense.json --out dense --quiet || exit 1
for i in 1 2 3 4 5 6; do
    echo "{\"input_ids\": [$i, 7, 1$i, 9, 2$i, 11, 3$i, 5], \"labels\": [$i, 7, 1$i, 9, 2$i, 11, 3$i, 5]}"
done >data.jsonl

# run NAME OPTIONS...: six steps into a folder of that name
run() {
    local name=$1
    shift
    "$moetune" train --data data.jsonl --out "$name" --dtype f32 --max-steps 6 --threads 1 "$@" \
        >out.txt 2>err.txt || complain "$name: $(tail -2 err.txt)"
}

says() { # FILE WORDS
    grep -qF -- "$2" "$1" || complain "$1: '$2' is not in it"
}

says_not() {
    grep -qF -- "$2" "$1" && complain "$1: '$2' is in it"
}

run topk --model base --validation data.jsonl --eval-every 3
for file in report.html plan.json result.json changes.json; do
    [ -s "topk/$file" ] || complain "topk: no $file"
done
says err.txt "topk/report.html"
[ "$(tail -n 1 out.txt)" = topk/model ] || complain "the last line is not the result: $(tail -n 1 out.txt)"
says topk/metrics.jsonl '"eval_loss_before":'
says topk/report.html '>finished</span>'
says topk/report.html 'The loss on held-out examples'
says topk/report.html 'data:image/png;base64,'
says topk/report.html '2 layers with experts, 8 in each, 2 of them for each token'
says topk/report.html 'mlp.experts.down_proj'
says_not topk/report.html '://'
says_not topk/report.html '<script'
[ "$(grep -c '"experts":{"load":' topk/metrics.jsonl)" = 6 ] || complain "not every step has its experts' load"

run none --model base --no-report --no-eval-first --validation data.jsonl
[ -e none/changes.json ] && complain "changes.json in spite of --no-report"
[ -e none/report.html ] && complain "a report in spite of --no-report"
says_not none/metrics.jsonl eval_loss_before

# --- kinds of runs
run llama --model dense
says_not llama/report.html 'id="experts"'
says llama/report.html 'The training loss'
run condenser --model base --routing condenser --bias-rate 0.01
says condenser/report.html 'From step 7 on, condensers are active for every token'
says condenser/report.html '&#9656;'
says condenser/metrics.jsonl '"condensers":[['
run lora --model base --tuning lora --lora-rank 2
says lora/report.html 'tuning <b>lora</b>'
says lora/report.html 'id="changes"'
run esft --model base --tuning esft --esft-tokens 40
says esft/report.html 'esft</text>'
run smt --model base --tuning smt --smt-block 4 --smt-warmup-steps 2 --smt-warmup train --smt-attention-fraction 0.1
says smt/report.html '>finished</span>'

# --- stopped, resumed, killed
"$moetune" train --model base --data data.jsonl --out long --dtype f32 --max-steps 200000 --threads 1 \
    --save-every 1 --tensorboard >/dev/null 2>&1 &
pid=$!
for _ in $(seq 200); do
    [ "$(wc -l 2>/dev/null <long/metrics.jsonl)" -gt 3 ] 2>/dev/null && break
    sleep 0.05
done
"$moetune" report --run long --out now.html >/dev/null || complain "no report while a run goes on"
says now.html '>running</span>'
kill -INT $pid
wait $pid
[ $? = 130 ] || complain "a stopped run: not 130"
says long/report.html 'stopped, can go on'
"$moetune" train --resume --out long >/dev/null 2>&1 &
pid=$!
for _ in $(seq 200); do
    [ -e long/result.json ] || break
    sleep 0.05
done
sleep 0.3
kill -9 $pid
wait $pid 2>/dev/null
"$moetune" report --run long >/dev/null || complain "no report of a killed run"
says long/report.html 'ended without a word'
[ "$(ls long/tensorboard | wc -l)" -ge 2 ] || complain "a session of TensorBoard each: $(ls long/tensorboard)"
grep -qa 'brain.Event:2' long/tensorboard/events.out.tfevents.0000000000.moetune || complain "no event file"

# --- the command
"$moetune" report --run topk --out page.html --csv steps.csv --json >out.txt || complain "report --csv"
says out.txt '"report":"page.html"'
[ "$(wc -l <steps.csv)" = 7 ] || complain "steps.csv: $(wc -l <steps.csv) lines"
head -n 1 steps.csv | grep -q '^step,stage,loss,lr,' || complain "steps.csv: $(head -n 1 steps.csv)"
cmp -s page.html topk/report.html || complain "another page than train's own"
echo '{"task": "exact", "exact_match": 0.75}' >topk/eval-held-out.json
"$moetune" report --run topk >/dev/null
says topk/report.html 'exact_match <b>0.75</b>'
"$moetune" report --run base >out.txt 2>err.txt && complain "a report of a model's folder"
says err.txt 'base: holds no run: run.json or metrics.jsonl expected'
"$moetune" report >out.txt 2>err.txt
[ $? = 2 ] || complain "report without --run: not 2"

[ "$failures" = 0 ] || exit 1
echo "report: all as expected"
