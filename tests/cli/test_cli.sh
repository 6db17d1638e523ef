#!/usr/bin/env bash
# test_cli.sh BINARY - the commands as a user calls them: a model is made, learns four lines by heart and
# says them again; and bad input gets one line on stderr, exit status 1 or 2, and leaves nothing behind.
. "$(dirname "$0")/common.sh"

# expect STATUS WORDS COMMAND...: that status, and one line on stderr that holds the words.
expect() {
    local status=$1 words=$2 before
    shift 2
    before=$(ls -A)
    "$moetune" "$@" >out.txt 2>err.txt
    local got=$?
    [ "$got" = "$status" ] || complain "$*: exit $got, expected $status: $(head -3 err.txt)"
    [ "$(wc -l <err.txt)" = 1 ] || complain "$*: $(wc -l <err.txt) lines on stderr: $(cat err.txt)"
    grep -qF -- "$words" err.txt || complain "$*: '$(cat err.txt)' does not say '$words'"
    [ ! -s out.txt ] || complain "$*: wrote on stdout"
    rm -f out.txt err.txt
    [ "$(ls -A)" = "$before" ] || complain "$*: left something behind: $(ls -A)"
}

ok() {
    "$moetune" "$@" >ok.txt 2>ok-err.txt || complain "$*: exit $?: $(tail -3 ok-err.txt)"
}

says() { # FILE WORDS
    grep -qF -- "$2" "$1" || complain "'$2' not in: $(head -c 600 "$1")"
}

# --- what every command answers
expect 2 "unknown command 'trane'; did you mean train?" trane
for command in train eval generate plan inspect init dump tokenize bench experts; do
    ok $command --help
    says ok.txt "usage: moetune $command"
    expect 2 "unknown option --bogus" $command --bogus 1
    [ $command = bench ] || [ $command = init ] || expect 1 "nowhere" $command --model nowhere \
        $(case $command in
            train) echo --data d.jsonl --out o ;;
            plan | eval | experts) echo --data d.jsonl ;;
            generate) echo --prompt x ;;
            dump) echo --batch b.json --out o ;;
        esac)
done
ok --help
ok --help-all
ok --version
says ok.txt "moetune "
"$moetune" >/dev/null 2>&1
[ $? = 2 ] || complain "no command: not exit 2"
"$moetune" train --help | head -1 >/dev/null
[ "${PIPESTATUS[0]}" = 0 ] || complain "a reader that goes away is no failure"
"$moetune" --help >&- || complain "a closed stdout is no failure"
if [ -w /dev/full ]; then
    "$moetune" --help >/dev/full 2>/dev/null
    [ $? = 1 ] || complain "a full stdout must fail"
fi

# --- a model that learns by heart
mkdir tokenizer
cp "$repo"/demo/model/tokenizer*.json tokenizer/
cat >config.json <<'JSON'
{"architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "vocab_size": 768, "hidden_size": 48,
 "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
 "num_experts": 6, "num_experts_per_tok": 2, "norm_topk_prob": true, "hidden_act": "silu",
 "max_position_embeddings": 128, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "attention_bias": false,
 "clip_qkv": null, "initializer_range": 0.05, "tie_word_embeddings": false, "bos_token_id": null,
 "eos_token_id": 0, "pad_token_id": 1}
JSON
ok init --config config.json --out base --seed 3 --quiet
cp tokenizer/* base/
ok init --config config.json --out again --seed 3 --quiet
cmp -s base/model.safetensors again/model.safetensors || complain "init: the same seed, other bytes"
expect 1 "again" init --config config.json --out again
cat >data.jsonl <<'JSONL'
{"prompt": "one plus two?", "completion": " three"}
{"prompt": "the sky is?", "completion": " blue"}
{"question": "say hello", "answer": "hello you"}
{"messages": [{"role": "user", "content": "and then?"}, {"role": "assistant", "content": "nothing"}]}
JSONL
cat >run.yaml <<'YAML'
model: base
data: [data.jsonl]
out: run
lr: 0.01
max_steps: 60
warmup_steps: 5
dtype: f32
batch_tokens: 128
save_every: 25
YAML
ok plan --config run.yaml --json
says ok.txt '"supervised"'
ok train --config run.yaml
says ok.txt "learns: "
says ok.txt "carry loss"
says ok.txt "memory: "
says ok-err.txt "60/60 loss"
for file in run.json metrics.jsonl model/model.safetensors model/config.json model/tokenizer.json; do
    [ -s run/$file ] || complain "train: no run/$file"
done
says run/run.json '"max_steps": 60'
[ "$(wc -l <run/metrics.jsonl)" = 60 ] || complain "metrics.jsonl: not a line a step"
expect 1 "run: holds a run" train --config run.yaml
ok train --config run.yaml --overwrite --quiet
ok train --out run --resume --quiet
ok train --config run/run.json --out other --max-steps 60 --quiet
cmp -s run/model/model.safetensors other/model/model.safetensors || complain "run.json: another result"

ok eval --model run/model --data data.jsonl --task exact --json --dtype f32 --predictions p.jsonl
says ok.txt '"exact_match":1.0'
[ "$(wc -l <p.jsonl)" = 4 ] || complain "predictions: not a line an example"
says p.jsonl '"prediction":"blue","reference":"blue","correct":true'
ok eval --model run/model --data data.jsonl --json
says ok.txt '"task":"loss"'
ok generate --model run/model --prompt "the sky is?" --dtype f32
[ "$(cat ok.txt)" = " blue" ] || complain "generate: said '$(cat ok.txt)'"
ok generate --model run/model --prompt "the sky is?" --dtype f32 --json
says ok.txt '"finish":"stop","stop_id":0'
ok generate --model base --prompt x --temperature 1 --seed 7 --max-new-tokens 9 --json
cp ok.txt first.txt
ok generate --model base --prompt x --temperature 1 --seed 7 --max-new-tokens 9 --json
cmp -s ok.txt first.txt || complain "generate: the same seed, other ids"
ok inspect --model base --json
says ok.txt '"experts":6'
ok inspect --model base --data data.jsonl --json
says ok.txt '"examples":4'
printf 'hello you\n' >text.txt
ok tokenize --model base text.txt
cp ok.txt ids.txt
ok tokenize --model base --decode ids.txt
[ "$(cat ok.txt)" = "hello you" ] || complain "tokenize: came back as '$(cat ok.txt)'"
ok experts --model base --data data.jsonl --json
says ok.txt '"layer":1,"slots":'
ok experts --model base --data data.jsonl --select esft --top-p 0.5 --out chosen.json
says chosen.json '"shared_experts": false'
ok train --config run.yaml --tuning esft --esft-config chosen.json --max-steps 2 --out esft
ok eval --model base --adapter esft/adapter --data data.jsonl --json
ok merge --model base --adapter esft/adapter --out esft-merged
expect 1 "esft-merged: holds a model (config.json); --overwrite replaces it" \
    merge --model base --adapter esft/adapter --out esft-merged
ok merge --model base --adapter esft/adapter --out esft-merged --overwrite
expect 1 "esft: the folder of a run; it left an adapter, esft/adapter" train --model esft --data data.jsonl --out new
expect 1 "esft/adapter: an adapter, which needs its base" train --model esft/adapter --data data.jsonl --out new
expect 1 "base: a model, not an adapter" merge --model base --adapter base --out new
ok experts --from-log "$repo/tests/fixtures/esft/log" --select esft --score gate --top-p 0.45 --out gate.json
[ "$(tr -d ' \n' <gate.json)" = "$(tr -d ' \n' <"$repo/tests/fixtures/esft/gate.json")" ] ||
    complain "experts: not the choice of gate.json: $(cat gate.json)"
printf '{"input_ids": [[1, 2, 3]], "labels": [[1, 2, 3]]}' >batch.json
ok dump --model base --batch batch.json --out dump.safetensors
rm -f ok.txt ok-err.txt first.txt

# --- what is wrong is named
base=(--model base --data data.jsonl --out new --max-steps 2)
expect 2 "--lr: found 'fast'" train "${base[@]}" --lr fast
expect 2 "train needs --out" train --model base --data data.jsonl
expect 1 "none.jsonl" train --model base --data none.jsonl --out new
expect 1 "'no.such.*' matches no parameter" train "${base[@]}" --freeze 'no.such.*'
expect 1 "--export best needs" train "${base[@]}" --export best
expect 2 "exclude each other" train "${base[@]}" --resume --overwrite
expect 2 "cannot open" train --config none.yaml
printf 'lr: 1\nbogus: 2\n' >bad.yaml
expect 2 "bad.yaml:2: unknown option 'bogus'" train --config bad.yaml
printf '{"prompt": "a", "completion": "b"}\n{"prompt": 3}\n' >bad.jsonl
expect 1 "bad.jsonl:2" train --model base --data bad.jsonl --out new
expect 1 "bad.jsonl:2" eval --model base --data bad.jsonl
expect 1 "config.json" generate --model tokenizer --prompt x
expect 2 "belongs to --task exact" eval --model base --data data.jsonl --predictions x.jsonl
printf '{"input_ids": [[1, 768]], "labels": [[1, 2]]}' >bad.json
expect 1 "bad.json: row 0, column 1 of input_ids" dump --model base --batch bad.json --out new
printf '[1, 2, "x"]\n' >bad-ids.txt
expect 1 "bad-ids.txt:1: element 2" tokenize --model base --decode bad-ids.txt
printf '[99999]\n' >bad-ids.txt
expect 1 "bad-ids.txt:1" tokenize --model base --decode bad-ids.txt
mkfifo stream # nobody writes to it
expect 1 "stream: not a regular file" tokenize --model base stream
truncate -s 70000000 zeros
expect 1 "zeros:1: more than 67108864 bytes" tokenize --model base zeros
rm zeros
expect 1 "bad.json" init --config bad.json --out new
expect 2 "--routing: found 'best'" bench --config config.json --routing best
expect 1 "none.json" bench --config none.json --quiet
expect 2 "--config or --model, one of them" bench --quiet
expect 2 "--config or --model, one of them" bench --config config.json --model base --quiet
expect 1 "nowhere: no such folder" bench --model nowhere --quiet
esft=(--model base --data data.jsonl --out new --max-steps 2 --tuning esft --esft-config)
printf '{"experts": {"7": [0]}}' >bad.json
expect 1 "bad.json: layer '7'; 0 to 1 expected" train "${esft[@]}" bad.json
printf '{"experts": {"1": [6]}}' >bad.json
expect 1 "bad.json: layer 1: expert 6; 0 to 5 expected" train "${esft[@]}" bad.json
printf '{"experts": {"1": [2, 2]}}' >bad.json
expect 1 "bad.json: layer 1 names expert 2 twice" train "${esft[@]}" bad.json
printf '{"experts": {}}' >bad.json
expect 1 "bad.json: no expert is chosen" train "${esft[@]}" bad.json
expect 1 "what learns is chosen on data" dump --model base --batch batch.json --out new --tuning esft --gradients
mkdir log
printf '0\t1\t\t0.5\t0.5\n0\t1\t\t0.5\tnan\n' >log/expert_weights_3.txt
expect 1 "log/expert_weights_3.txt:2: gate 'nan'" experts --from-log log
expect 2 "--select esft needs --out" experts --from-log log --select esft
expect 2 "--out belongs to --select esft" experts --from-log log --out x.json
expect 2 "--from-log and --data exclude" experts --from-log log --data data.jsonl --model base
expect 2 "needs --model and --data, or --from-log" experts --model base
mkfifo pipe
expect 1 "not a regular file" train --model base --data pipe --out new
mkdir escape
printf '{"architectures": ["\\u001b[31mX"]}' >escape/config.json
expect 1 'architecture ?[31mX' inspect --model escape

[ "$failures" = 0 ] || exit 1
echo "all as expected"
