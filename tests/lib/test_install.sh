#!/usr/bin/env bash
# test_install.sh BINARY - what `make install` puts below a prefix, used as a stranger would: the program, libmoetune
# through pkg-config (docs/example.c and a C++ program, shared and static), the manual; nothing but the public names
# can be seen in the library; and nothing stays after `make uninstall`.
. "$(dirname "$0")/../cli/common.sh"

build=$(dirname "$moetune")
cached() {
    sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"
}
[ -f "$build/CMakeCache.txt" ] || { echo "no build folder around $moetune" && exit 77; }
command -v pkg-config >/dev/null || { echo "no pkg-config" && exit 77; }
cc=$(cached CMAKE_C_COMPILER) flags=()
[ "$(cached MOETUNE_SANITIZE)" != ON ] || flags=(-fsanitize=address,undefined)
version=$("$moetune" --version | cut -d ' ' -f 2)

# --- installed twice: below a prefix of its own, and below DESTDIR
cp "$build/install_manifest.txt" manifest.before 2>/dev/null
stage() {
    make -s -C "$repo" "$1" BUILD="$build" MAKE=true "${@:2}" # what is to be installed is there already
}
stage install PREFIX=/opt/moetune DESTDIR="$dir/stage" >log.txt 2>&1 || complain "make install: $(tail -5 log.txt)"
[ -x stage/opt/moetune/bin/moetune ] || complain "DESTDIR: no program"
stage uninstall PREFIX=/opt/moetune DESTDIR="$dir/stage" >log.txt 2>&1 || complain "make uninstall: $(tail -5 log.txt)"
left=$(find stage ! -type d)
[ -z "$left" ] || complain "left after make uninstall: $left"
stage install PREFIX="$dir/usr" >log.txt 2>&1 || complain "make install: $(tail -5 log.txt)"
rm -f "$build/install_manifest.txt"
[ ! -f manifest.before ] || cp manifest.before "$build/install_manifest.txt"
for file in bin/moetune include/moetune.h share/man/man1/moetune.1 share/doc/moetune/README.md \
    share/doc/moetune/FORMATS.md share/doc/moetune/examples/lora.yaml share/doc/moetune/examples/example.c \
    share/bash-completion/completions/moetune share/zsh/site-functions/_moetune \
    share/fish/vendor_completions.d/moetune.fish; do
    [ -s "usr/$file" ] || complain "not installed: $file"
done
[ "$(usr/bin/moetune --version)" = "moetune $version" ] || complain "the installed program: $(usr/bin/moetune --version)"
PKG_CONFIG_PATH=$(dirname "$(find usr -name moetune.pc)")
export PKG_CONFIG_PATH
[ "$(pkg-config --modversion moetune)" = "$version" ] || complain "pkg-config: version $(pkg-config --modversion moetune)"

# --- the names that a program can see are those of the header
lib=$(pkg-config --variable=libdir moetune)
sed -n '/^MOETUNE_API/,/;/p' usr/include/moetune.h | grep -o 'moetune_[a-z_]*(' | tr -d '(' | sort -u >declared.txt
[ "$(wc -l <declared.txt)" -ge 10 ] || complain "found $(wc -l <declared.txt) functions in the header"
nm -D --defined-only "$lib/libmoetune.so" | awk '$2 ~ /[A-Z]/ && $2 != "A" { print $3 }' | sort >shared.txt
nm -g --defined-only "$lib/libmoetune.a" | awk 'NF == 3 { print $3 }' | sort >static.txt
if [ ${#flags[@]} = 0 ]; then
    diff declared.txt shared.txt >diff.txt || complain "names in the shared library: $(cat diff.txt)"
    diff declared.txt static.txt >diff.txt || complain "names in the static library: $(cat diff.txt)"
fi
soname=$(objdump -p "$lib/libmoetune.so" | awk '$1 == "SONAME" { print $2 }')
[ "$soname" = "libmoetune.so.${version%%.*}" ] || complain "soname '$soname'"

# --- a toy
cat >config.json <<'JSON'
{"architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "vocab_size": 64, "hidden_size": 32,
 "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
 "num_experts": 8, "num_experts_per_tok": 2, "max_position_embeddings": 4096, "eos_token_id": 0}
JSON
usr/bin/moetune init --config config.json --out base --quiet || complain "init"
for i in $(seq 10 29); do
    echo "{\"input_ids\": [$i, 7, 1, 9, 2, 11, 3, 5], \"labels\": [$i, 7, 1, 9, 2, 11, 3, 5]}"
done >data.jsonl

# --- the example of the documentation, with both libraries: the same words, and a model that scores as it said
run_example() { # NAME COMPILER-FLAGS...
    local name=$1
    shift
    "$cc" -Wall -Wextra -Werror "${flags[@]}" usr/share/doc/moetune/examples/example.c -o "$name" "$@" 2>log.txt ||
        complain "$name does not compile: $(head -5 log.txt)"
    OMP_NUM_THREADS=1 LD_LIBRARY_PATH=$lib "./$name" base data.jsonl data.jsonl "$name.out" 6 >"$name.txt" 2>log.txt ||
        complain "$name: exit $?: $(tail -3 log.txt)"
}
mkdir shared.out static.out
mapfile -t shared_flags < <(pkg-config --cflags --libs moetune | xargs -n 1)
run_example shared "${shared_flags[@]}"
mapfile -t static_flags < <(pkg-config --static --cflags --libs moetune | xargs -n 1)
run_example static "${static_flags[@]/#-lmoetune/$lib/libmoetune.a}"
ldd static | grep -q libmoetune && complain "the static example needs libmoetune.so"
cmp -s shared.txt static.txt || complain "shared and static differ: $(diff shared.txt static.txt)"
[ "$(grep -c '^step [1-6] of 6: loss' shared.txt)" = 6 ] || complain "the example's steps: $(cat shared.txt)"
before=$(sed -n 's/^before: loss \([0-9.]*\) over 140 tokens$/\1/p' shared.txt)
after=$(sed -n 's/^after: loss \([0-9.]*\) over 140 tokens$/\1/p' shared.txt)
awk -v a="$after" -v b="$before" 'BEGIN { exit !(a > 0 && a < b - 0.05) }' || complain "loss $before -> $after"
says=$(usr/bin/moetune eval --model shared.out/merged --data data.jsonl --quiet | sed -n 's/^loss \([0-9.]*\),.*/\1/p')
awk -v a="$after" -v b="$says" 'BEGIN { d = a - b; exit !(b > 0 && d < 0.02 && d > -0.02) }' ||
    complain "the merged model scores $says, the adapter $after"
LD_LIBRARY_PATH=$lib ./shared nowhere data.jsonl data.jsonl shared.out 1 >log.txt 2>&1 && complain "a missing model is no failure"
grep -q '^example: nowhere: no such folder' log.txt || complain "a missing model: $(cat log.txt)"

# --- from C++, with a locale that writes numbers with a comma
cxx=$(command -v g++ || command -v clang++ || command -v clang++-14)
if [ -n "$cxx" ] && [ ${#flags[@]} = 0 ]; then
    "$cxx" -std=c++17 -Wall -Wextra -Werror "$repo/tests/lib/user.cpp" -o user "${shared_flags[@]}" 2>log.txt ||
        complain "user.cpp does not compile: $(head -5 log.txt)"
    LD_LIBRARY_PATH=$lib LC_ALL=C ./user base data.jsonl c.out >c.txt || complain "user: $(cat c.txt)"
    if localedef -i de_DE -f UTF-8 "$dir/de_DE.UTF-8" >log.txt 2>&1; then
        LOCPATH=$dir LD_LIBRARY_PATH=$lib LC_ALL=de_DE.UTF-8 ./user base data.jsonl de.out >de.txt ||
            complain "with commas: $(cat de.txt)"
        grep -q '^point ,$' de.txt || complain "no commas: $(cat de.txt)"
        [ "$(grep learnt c.txt)" = "$(grep learnt de.txt)" ] || complain "the locale matters: $(cat c.txt de.txt)"
        cmp -s c.out/adapter/adapter_model.safetensors de.out/adapter/adapter_model.safetensors || complain "other bytes"
        diff <(sed 's/c\.out//' c.out/run.json) <(sed 's/de\.out//' de.out/run.json) >log.txt ||
            complain "the locale is in run.json: $(cat log.txt)"
    fi
fi
[ "$failures" = 0 ]
