#!/usr/bin/env bash
# test_manual.sh BINARY - the manual and the completions, which are made from the option table: every command and option
# is there, troff and the shells take them without a word, and bash completes what it should.
. "$(dirname "$0")/common.sh"

mapfile -t commands < <("$moetune" --help | sed -n '/^commands:/,/^$/s/^  \([a-z]*\) .*/\1/p')
[ ${#commands[@]} -ge 11 ] || complain "found ${#commands[@]} commands in --help"
for command in "${commands[@]}"; do # an option a line; of [no-]name both
    "$moetune" "$command" --help | grep -oE '^  --[^ ]+' | sed 's/ *--//' >"$command.options"
    [ "$(wc -l <"$command.options")" -ge 4 ] || complain "$command: $(wc -l <"$command.options") options in --help"
done

# --- the manual
"$moetune" --man >moetune.1 || complain "--man: exit $?"
if command -v groff >/dev/null; then
    groff -man -Tutf8 -ww -P-cbou moetune.1 >page.txt 2>warnings.txt || complain "groff: exit $?"
    [ ! -s warnings.txt ] || complain "groff: $(head -5 warnings.txt)"
    for command in "${commands[@]}"; do
        grep -qE "^ +$command " page.txt || complain "no command $command in the page"
        while read -r name; do
            grep -qF -- "--$name" page.txt || complain "no option --$name in the page"
        done <"$command.options"
    done
    tr -s ' \n' ' ' <page.txt >flat.txt
    for words in 'MOETUNE(1)' '--lora-rank N lora, dora: rank of the matrices beside a projection [32] (train, plan' \
        '--dtype f32|bf16 type of activations' "--freeze '*.mlp.gate.weight'" 'condenser: ' 'EXIT STATUS' \
        '--[no-]shuffle a new order of examples in every epoch, from --seed [yes] (train, plan)'; do
        grep -qF -- "$words" flat.txt || complain "not in the page: $words"
    done
fi
if command -v man >/dev/null; then
    man --warnings -E UTF-8 -l -Tutf8 -Z moetune.1 2>warnings.txt >/dev/null || complain "man: exit $?"
    [ ! -s warnings.txt ] || complain "man: $(head -5 warnings.txt)"
fi

# --- bash, as readline calls it: words are split at '=', too
"$moetune" --completion bash >completion.bash || complain "--completion bash: exit $?"
. ./completion.bash || complain "bash does not take the completion"
complete -p moetune | grep -q -- '-F _moetune' || complain "nothing completes moetune"
completes() { # "EXPECTED WORDS" WORD... : what the last word may become
    local expected=$1 got
    shift
    COMP_WORDS=(moetune "$@")
    COMP_CWORD=$#
    _moetune moetune "${*: -1}" "" 2>err.txt
    [ ! -s err.txt ] || complain "completing '$*': $(cat err.txt)"
    got=$(printf '%s\n' "${COMPREPLY[@]}" | sort | paste -sd ' ')
    [ "$got" = "$expected" ] || complain "completing '$*': '$got', expected '$expected'"
}
mkdir -p files/folder
touch files/train.jsonl 'files/two words.jsonl'
completes 'eval experts' e
completes 'train' tr
completes '--version' --v
completes '--lora-alpha --lora-dropout --lora-rank --lora-rslora --lora-targets' train --lora-
completes '--no-shuffle' train --no-shu
completes '' eval --lora-
completes 'bf16 f32' train --dtype ''
completes 'bf16 config f16 f32' init --dtype ''
completes 'bf16' train --dtype = b
completes 'bf16 f32' train --dtype =
completes 'lora' train --model files --tuning lo
completes 'full,lora' bench --tuning full,lo
completes 'files/folder files/train.jsonl files/two words.jsonl' train --data files/
completes 'files/train.jsonl' train --data 'files/two words.jsonl' files/tr
completes 'files/folder' train --model files/
completes 'files/folder' train --model files/train.jsonl --out files/
completes '' train --lr ''
completes '--lr' train --data files/train.jsonl --lr
completes '--tuning' train --data files/train.jsonl --tuni
completes 'files/train.jsonl' tokenize --model files files/tr
completes 'files/folder' tokenize --model files/
for command in "${commands[@]}"; do
    while read -r name; do
        case $name in
        '[no-]'*) completes "--no-${name#*]}" "$command" "--no-${name#*]}" && name=${name#*]} ;;
        esac
        COMP_WORDS=(moetune "$command" "--$name") COMP_CWORD=2
        _moetune
        [[ " ${COMPREPLY[*]} " == *" --$name "* ]] || complain "bash: $command --$name is not completed"
    done <"$command.options"
done

# --- zsh and fish read theirs, and fish says what it makes of it
for shell in zsh fish; do
    "$moetune" --completion $shell >completion.$shell || complain "--completion $shell: exit $?"
    for command in "${commands[@]}"; do
        while read -r name; do
            grep -qE -- "(--|-l )${name#*]}([^a-z-]|$)" completion.$shell || complain "$shell: no option $name"
        done <"$command.options"
    done
    command -v $shell >/dev/null || continue
    $shell -n completion.$shell 2>err.txt || complain "$shell: $(head -3 err.txt)"
done
if command -v fish >/dev/null; then
    mkdir -p home
    fish_says() { # EXPECTED LINE
        local got
        got=$(HOME=$dir/home fish --no-config -c "source completion.fish; complete -C '$2'" 2>err.txt | cut -f 1 | sort | paste -sd ' ')
        [ "$got" = "$1" ] || complain "fish: '$2' gives '$got', expected '$1': $(cat err.txt)"
    }
    fish_says 'eval experts' 'moetune e'
    fish_says '--lora-alpha --lora-dropout --lora-rank --lora-rslora --lora-targets' 'moetune train --lora-'
    fish_says 'bf16 f32' 'moetune train --dtype '
fi
"$moetune" --completion tcsh >out.txt 2>err.txt
[ $? = 2 ] || complain "--completion tcsh: exit $?, expected 2"
grep -q 'found tcsh, expected bash|zsh|fish' err.txt || complain "--completion tcsh: $(cat err.txt)"
[ "$failures" = 0 ]
