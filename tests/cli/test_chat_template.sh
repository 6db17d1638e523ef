#!/usr/bin/env bash
# test_chat_template.sh BINARY - the model's own chat template as a user meets it: it is the default, inspect
# shows what is learnt and what packing will do, and a template that fails says so in one line.
. "$(dirname "$0")/common.sh"

ok() {
    "$moetune" "$@" >ok.txt 2>err.txt || complain "$*: exit $?: $(tail -3 err.txt)"
}
says() { # FILE WORDS
    grep -qF -- "$2" "$1" || complain "'$2' not in: $(head -c 900 "$1")"
}
fails() { # WORDS COMMAND...
    local words=$1
    shift
    "$moetune" "$@" >ok.txt 2>err.txt
    [ $? = 1 ] || complain "$*: expected exit 1"
    [ "$(wc -l <err.txt)" = 1 ] || complain "$*: not one line: $(cat err.txt)"
    says err.txt "$words"
}
template() { # TEXT
    printf '%s' "$1" >base/chat_template.jinja
}

cat >config.json <<'END'
{"architectures":["OlmoeForCausalLM"],"model_type":"olmoe","hidden_size":16,"intermediate_size":8,
 "num_hidden_layers":1,"num_attention_heads":2,"num_key_value_heads":2,"num_experts":4,
 "num_experts_per_tok":2,"vocab_size":768,"max_position_embeddings":64,"rms_norm_eps":1e-5,
 "rope_theta":10000.0,"tie_word_embeddings":false,"norm_topk_prob":false,"eos_token_id":0}
END
ok init --config config.json --out base --quiet
cp "$repo/tests/fixtures/chat/tokenizer.json" base/
echo '{"bos_token": "<bos>", "eos_token": "<|endoftext|>"}' >base/tokenizer_config.json
cat >data.jsonl <<'END'
{"messages":[{"role":"user","content":"the list"},{"role":"assistant","content":"a tree"}]}
{"messages":[{"role":"user","content":"is what"},{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"a":1}}}]},{"role":"tool","content":"7"},{"role":"assistant","content":"the sum"}],"tools":[{"type":"function","function":{"name":"f"}}]}
END

# --- without a template of its own: plain, which has no place for tools
ok inspect --model base --data data.jsonl --limit 1
says ok.txt "|the"
echo '{"messages":[{"role":"user","content":"a"},{"role":"assistant"}]}' >bad.jsonl
fails "messages[1]: content" inspect --model base --data bad.jsonl
fails "template model: base/tokenizer_config.json has no chat_template" inspect --model base --data data.jsonl --template model

# --- with one it is the default
cp "$repo/tests/fixtures/chat/qwen3.jinja" base/chat_template.jinja
ok inspect --model base --data data.jsonl --batch-tokens 64 --max-length 64 --too-long drop
says ok.txt "|<|im_start|>"
says ok.txt "[<|im_end|>]"
says ok.txt "micro-batches of"
says ok.txt "% of their 64 tokens filled"
grep -q $'\033' ok.txt && complain "colours where there is no terminal"
ok inspect --model base --data data.jsonl --template plain --limit 1
grep -q "im_start" ok.txt && complain "--template plain did not beat the model's own"
ok inspect --model base --data data.jsonl --json --examples 0
says ok.txt '"micro_batches":1,'
says ok.txt '"fill":0.'
if command -v script >/dev/null; then # a terminal
    colour=$(script -qec "$moetune inspect --model base --data data.jsonl" /dev/null)
    [[ $colour == *$'\033[32m'* && $colour == *$'\033[2m'* ]] || complain "no colours on a terminal"
    colour=$(NO_COLOR=1 script -qec "$moetune inspect --model base --data data.jsonl" /dev/null)
    [[ $colour == *$'\033['* ]] && complain "colours under NO_COLOR"
fi
ok generate --model base --prompt "the list" --max-new-tokens 1 --json
wrapped=$(grep -o '"prompt_ids":[^]]*' ok.txt)
ok generate --model base --prompt "the list" --max-new-tokens 1 --json --template raw
[ "$wrapped" != "$(grep -o '"prompt_ids":[^]]*' ok.txt)" ] || complain "generate did not use the model's template"
ok train --model base --data data.jsonl --out run --max-steps 1 --quiet
cmp -s base/chat_template.jinja run/model/chat_template.jinja || complain "the result lost its template"

# --- what templates may do to us
template '{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}'
fails "data.jsonl:1: base/chat_template.jinja:1: more than 10000000 steps, the limit" inspect --model base --data data.jsonl
template '{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}'
fails "nested more than 400 deep, the limit" inspect --model base --data data.jsonl
template $'x\n{{ raise_exception("roles must\nalternate") }}'
fails "chat_template.jinja:2: roles must alternate" inspect --model base --data data.jsonl
template $'x\n{{ messages | nosuch }}'
fails "chat_template.jinja:2: no filter named 'nosuch'" inspect --model base --data data.jsonl
template '{% for m in messages %}{% if m.role == "user" %}{{ m.content }}{% endif %}{% endfor %}'
fails "no token carries loss" inspect --model base --data data.jsonl

[ $failures = 0 ] && echo "all as expected"
[ $failures = 0 ]
