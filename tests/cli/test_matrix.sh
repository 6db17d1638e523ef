#!/usr/bin/env bash
# test_matrix.sh BINARY - the table "What works" of the README: every family with every routing, every tuning and every
# command, run on a toy. A cell is yes where the run succeeds and lowers the loss (or the command does its work), and -
# where it is refused in one line that says why; the README must have just this table. How exact each part is, other
# tests say: docs/COVERAGE.md names them.
. "$(dirname "$0")/common.sh"

routings="topk aux bias condenser densemixer"
tunings="full esft smt lora dora"
# All but bench, which measures a machine.
commands=$("$moetune" --help | sed -n '/^commands:/,/^$/s/^  \([a-z]*\) .*/\1/p' | grep -v bench)
fixtures="$repo/tests/fixtures/parity"

yes() { "$moetune" "$@" --quiet >out.txt 2>err.txt; }

# A refusal is one line and a status of 1 or 2.
refused() {
    "$moetune" "$@" --quiet >out.txt 2>err.txt
    local got=$?
    [ $got = 1 ] || [ $got = 2 ] || complain "$*: exit $got"
    [ "$(wc -l <err.txt)" = 1 ] || complain "$*: $(cat err.txt)"
}

learns() { # RUN: the mean loss of its last three steps is below that of its first
    sed -n 's/^{"step":[0-9]*,"stage":[0-9]*,"loss":\([^,]*\),.*/\1/p' "$1/metrics.jsonl" |
        awk '{ x[NR] = $1 } END { exit !(NR > 3 && (x[NR] + x[NR - 1] + x[NR - 2]) / 3 < x[1]) }'
}

trains() { # NAME OPTION...
    local name=$1
    shift
    rm -rf "$name"
    yes train --model base --data data.jsonl --out "$name" --max-steps 12 --lr 3e-2 --dtype f32 \
        --threads 1 "$@" || return 1
    learns "$name" || complain "$family: $*: the loss does not fall"
}

example() { # COMMAND: does it do its work?
    case $1 in
    train) [ -d full/model ] ;;
    eval) yes eval --model full/model --data data.jsonl --dtype f32 --json && grep -q '"loss"' out.txt ;;
    generate) yes generate --model full/model --prompt hello --max-new-tokens 3 && [ -s out.txt ] ;;
    merge) yes merge --model base --adapter lora/adapter --out merged && [ -e merged/config.json ] ;;
    plan) yes plan --model base --data data.jsonl --json && grep -q '"weights"' out.txt ;;
    inspect) yes inspect --model base --json && grep -q '"parameters"' out.txt ;;
    init) [ -e base/config.json ] ;;
    dump) yes dump --model base --batch batch.json --out dump.safetensors --gradients && [ -s dump.safetensors ] ;;
    tokenize) echo hello | yes tokenize --model base && grep -q '^\[' out.txt ;;
    experts) yes experts --model base --data data.jsonl --json && grep -q '"layer"' out.txt ;;
    report) yes report --run full --out page.html && grep -q '</html>' page.html ;;
    watch) # serves until it is interrupted
        timeout -s INT 0.5 "$moetune" watch --run full --json --quiet >out.txt 2>err.txt
        grep -q '"port"' out.txt
        ;;
    *) complain "no example of $1" ;;
    esac
}

cell() { # RESULT WORD...: one cell; a refusal that is not meant is a failure
    [ "$1" = 0 ] && printf ' yes |' || printf ' - |'
}

# Is it meant that a dense model refuses? Routings but topk, ESFT, and what is about experts.
meant() {
    case $1 in
    aux | bias | condenser | densemixer | esft | experts) [ "$dense" = 1 ] ;;
    *) false ;;
    esac
}

# What makes a tuning go with a model as small as this.
declare -A small=([smt]="--smt-block 8 --smt-blocks 8 --smt-warmup-steps 2" [lora]="--lora-rank 4" [dora]="--lora-rank 4")

row() {
    local name status
    printf '| `%s` |' "$family"
    for name in $routings; do
        trains "$name" --routing "$name" --tuning full
        status=$?
        [ $status = 0 ] || meant "$name" || complain "$family: routing $name: $(cat err.txt)"
        [ $status = 0 ] || refused train --model base --data data.jsonl --out no --routing "$name"
        cell $status
    done
    for name in $tunings; do
        # shellcheck disable=SC2086
        trains "$name" --tuning "$name" ${small[$name]-}
        status=$?
        [ $status = 0 ] || meant "$name" || complain "$family: tuning $name: $(cat err.txt)"
        [ $status = 0 ] || refused train --model base --data data.jsonl --out no --tuning "$name"
        cell $status
    done
    for name in $commands; do
        example "$name"
        status=$?
        [ $status = 0 ] || meant "$name" || complain "$family: $name: $(cat err.txt)"
        cell $status
    done
    echo
}

{
    printf '| family |'
    printf ' %s |' $routings $tunings $commands
    printf '\n|---|'
    printf -- '---|%.0s' $routings $tunings $commands
    echo
} >table.md
cat >data.jsonl <<'JSONL'
{"prompt": "one plus two?", "completion": " three"}
{"prompt": "the sky is?", "completion": " blue"}
{"question": "say hello", "answer": "hello you"}
JSONL
echo '{"input_ids": [[1, 2, 3, 9, 8, 7]], "labels": [[1, 2, 3, 9, 8, 7]]}' >batch.json
while read -r family from dense; do
    rm -rf base full merged lora
    sed 's/"vocab_size": *[0-9]*/"vocab_size": 768/' "$fixtures/$from/config.json" >config.json
    "$moetune" init --config config.json --out base --seed 3 --quiet || complain "$family: init"
    cp "$repo"/demo/model/tokenizer*.json base/
    row >>table.md
done <<'FAMILIES'
OlmoeForCausalLM olmoe-gqa/v4 0
Qwen2MoeForCausalLM qwen-all/v4 0
Qwen3MoeForCausalLM qwen3-moe/v5 0
MixtralForCausalLM mixtral/v4 0
LlamaForCausalLM llama3/v5 1
Qwen2ForCausalLM qwen2/v4 1
Qwen3ForCausalLM qwen3/v5 1
MistralForCausalLM mistral/v4 1
FAMILIES

sed -n '/^| family | topk/,/^$/p' "$repo/README.md" | grep '^|' >readme.md
diff readme.md table.md >&2 || complain "the README's table is not the one above (>)"
# The tests that docs/COVERAGE.md names are there.
for test in $(grep -o '`tests/[^`]*`' "$repo/docs/COVERAGE.md" | tr -d '`'); do
    [ -f "$repo/$test" ] || complain "docs/COVERAGE.md names $test, which is not there"
done
# The options that docs/MIGRATING.md names are there.
"$moetune" --help-all >help.txt
for option in $(sed 's/.*|\([^|]*\)|$/\1/' "$repo/docs/MIGRATING.md" | grep -o -- '--[a-z][a-z0-9-]*' | sort -u); do
    grep -qE -- "--(\[no-\])?${option#--}( |\$)" help.txt || complain "docs/MIGRATING.md names $option, which is not there"
done
[ "$failures" = 0 ]
