#!/usr/bin/env bash
# test_eval.sh BINARY - `eval --task loss`, `math`, `choice` and `loglik` as a user calls them: a model learns answers by heart and is
# scored on them, greedy and with beams, alone and side by side; stored outputs are scored without a model; and a line
# that lacks what a task needs is named.
. "$(dirname "$0")/common.sh"

# expect STATUS WORDS COMMAND...: that status, and one line on stderr that holds the words.
expect() {
    local status=$1 words=$2
    shift 2
    "$moetune" "$@" >out.txt 2>err.txt
    local got=$?
    [ "$got" = "$status" ] || complain "$*: exit $got, expected $status: $(head -3 err.txt)"
    [ "$(wc -l <err.txt)" = 1 ] || complain "$*: $(wc -l <err.txt) lines on stderr: $(cat err.txt)"
    grep -qF -- "$words" err.txt || complain "$*: '$(cat err.txt)' does not say '$words'"
    [ ! -s out.txt ] || complain "$*: wrote on stdout"
}

ok() {
    "$moetune" "$@" >ok.txt 2>ok-err.txt || complain "$*: exit $?: $(tail -3 ok-err.txt)"
}

says() { # FILE WORDS
    grep -qF -- "$2" "$1" || complain "'$2' not in $1: $(head -c 600 "$1")"
}

cat >config.json <<JSON
{"architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "hidden_size": 64, "intermediate_size": 48,
 "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 6,
 "num_experts_per_tok": 2, "norm_topk_prob": false, "vocab_size": 768, "max_position_embeddings": 512,
 "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false, "attention_bias": false,
 "clip_qkv": null, "eos_token_id": 0, "pad_token_id": 1, "hidden_act": "silu"}
JSON
ok init --config config.json --out base --seed 3
cp "$repo"/tests/fixtures/data/tokenizer*.json base/

cat >math.jsonl <<JSON
{"instruction": "two and two?", "input": "", "output": "it is 4.", "answer": "4.0"}
{"instruction": "three thousand and one in digits, please", "input": "", "output": "that is 3,001", "answer": "3001"}
{"instruction": "pick a letter", "input": "", "output": "the letter is C", "answer": "C"}
JSON
cat >choice.jsonl <<JSON
{"instruction": "is the sky blue?", "input": "", "output": "the correct answer is true", "answer": "true"}
{"instruction": "Option1: up Option2: down", "input": "", "output": "the correct answer is option2", "answer": "option2"}
JSON
ok train --model base --data math.jsonl choice.jsonl --template alpaca --out run --max-steps 80 --lr 3e-3 --dtype f32 --quiet

# --- answers that were learnt, and the same with beams and with other neighbours
task=(eval --model run/model --template alpaca --dtype f32 --json --max-new-tokens 24)
ok "${task[@]}" --task math --data math.jsonl --predictions p.jsonl
says ok.txt '"task":"math","accuracy":1.0,"standard_error":0.0,"correct":3,"examples":3,"unparsed":0,"stopped":3'
says p.jsonl '"output":"that is 3,001","prediction":3001.0,"reference":"3001","correct":true,"stopped":true'
says p.jsonl '"prediction":"C","reference":"C","correct":true'
for more in "--batch-sequences 1" "--beams 4" "--beams 3 --batch-sequences 2"; do
    # shellcheck disable=SC2086 # several options
    ok "${task[@]}" --task math --data math.jsonl --predictions q.jsonl $more
    cmp -s p.jsonl q.jsonl || complain "math $more: other predictions"
done
ok "${task[@]}" --task choice --data choice.jsonl --beams 2
says ok.txt '"accuracy":1.0'
ok generate --model run/model --template alpaca --prompt "two and two?" --dtype f32 --beams 4 --json
says ok.txt '"text":"it is 4.","finish":"stop"'

# --- the released prompt where no template is given; it was not learnt, and a model may fail at it
ok eval --model run/model --task math --data math.jsonl --dtype f32 --predictions p.jsonl --limit 1
says p.jsonl '"prompt":"Below is an instruction that describes a task. Write a response that appropriately completes the request. \n\n                ### Instruction:\n                two and two?\n\n                ### Response:\n                "'

# --- the loss of several files: of all, and of each as it is alone
loss=(eval --model run/model --template alpaca --dtype f32 --json --task loss)
for file in math choice; do
    ok "${loss[@]}" --data $file.jsonl
    grep -q '"files"' ok.txt && complain "one file: files"
    sed "s/^{\"task\":\"loss\"/{\"file\":\"$file.jsonl\"/; s/,\"usage\".*/}/" ok.txt >$file-loss.json
done
ok "${loss[@]}" --data math.jsonl choice.jsonl
says ok.txt '"examples":5,"usage":[['
says ok.txt "]],\"files\":[$(cat math-loss.json),$(cat choice-loss.json)]}"
says ok-err.txt "tokens of 5 examples"
says ok-err.txt "tokens of 2 examples: choice.jsonl"
ok "${loss[@]}" --data math.jsonl choice.jsonl --limit 3
says ok.txt "\"files\":[$(cat math-loss.json),{\"file\":\"choice.jsonl\",\"loss\":null,\"perplexity\":null,\"tokens\":0,\"examples\":0}]}"
says ok-err.txt "  0 tokens of 0 examples: choice.jsonl"

# --- stored outputs, several files, and what cannot be parsed
cat >out.jsonl <<JSON
{"output": "4"}
{"output": "none"}
{"output": "letter c"}
JSON
ok eval --task math --data math.jsonl --answers out.jsonl --predictions p.jsonl --json
says ok.txt '"accuracy":0.333333333,"standard_error":0.333333333,"correct":1,"examples":3,"unparsed":2}'
says ok-err.txt "no answer found in 2 outputs, counted as wrong: math.jsonl:2, math.jsonl:3"
says p.jsonl '"output":"none","prediction":null,"reference":"3001","correct":false'
ok eval --task math --data math.jsonl --answers p.jsonl --json
says ok.txt '"correct":1'
tail -n 1 math.jsonl >letters.jsonl
printf '{"output": "so 4"}\n{"output": "B"}\n' >out.jsonl
head -n 1 math.jsonl >numbers.jsonl
ok eval --task math --data numbers.jsonl letters.jsonl --answers out.jsonl --json
says ok.txt '"files":[{"file":"numbers.jsonl","accuracy":1.0,"standard_error":0.0,"correct":1,"examples":1,"unparsed":0},{"file":"letters.jsonl","accuracy":0.0'
ok eval --task math --data numbers.jsonl letters.jsonl --answers out.jsonl
says ok.txt "accuracy 50.00 % (standard error 50.00), 1 of 2 examples; no answer found in 0"
says ok.txt "100.00 % (standard error 0.00), 1 of 1: numbers.jsonl"

# --- multiple choice
cat >loglik.jsonl <<JSON
{"context": "it is", "choices": ["4.", "blue", "true"], "gold": 0}
{"context": "the correct answer is", "choices": ["zebra", "true"], "gold": 1}
JSON
ok eval --model run/model --task loglik --data loglik.jsonl --dtype f32 --json --predictions p.jsonl
says ok.txt '"task":"loglik","acc":'
says ok.txt '"acc_norm":'
says ok.txt '"acc_bytes_stderr":'
says p.jsonl '"choices":["zebra","true"],"loglik":[-'
[ "$(wc -l <p.jsonl)" = 2 ] || complain "loglik: not a line an example"

# --- what is wrong is said in one line
printf '{"instruction": "a", "answer": "1"}\n{"instruction": " ", "answer": "1"}\n' >bad.jsonl
expect 1 "bad.jsonl:2: instruction: found nothing" eval --model base --task math --data bad.jsonl
expect 1 "bad.jsonl:1: answer: found '1', expected true or false" eval --model base --task choice --data bad.jsonl
printf '{"context": "", "choices": ["a", "b"], "gold": 0}\n' >bad.jsonl
expect 1 "bad.jsonl:1: context: found nothing" eval --model base --task loglik --data bad.jsonl
printf '{"output": "4"}\n' >out.jsonl
expect 1 "out.jsonl: 1 outputs, expected one for each of the 3" eval --task math --data math.jsonl --answers out.jsonl --quiet
expect 2 "--answers belongs to --task math or choice" eval --task exact --data math.jsonl --answers out.jsonl
expect 2 "eval needs --model DIR" eval --task math --data math.jsonl
expect 2 "--beams belongs to" eval --model base --data math.jsonl --beams 2
expect 2 "--beams 2 searches" generate --model base --prompt x --beams 2 --temperature 1
expect 1 "a prompt of" eval --model base --task math --data math.jsonl --max-length 8 --quiet
expect 2 "--predictions belongs to" eval --model base --data math.jsonl --predictions p.jsonl

[ $failures = 0 ] || exit 1
echo "test_eval: all as expected"
