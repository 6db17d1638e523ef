#!/usr/bin/env bash
# fuzz.sh BUILD SECONDS|inputs=N|merge [NAME...] - libFuzzer targets (all, or the named ones) of a build with
# -DMOETUNE_FUZZ=ON, from their corpora: each for so many seconds, or until it has run N inputs. Inputs count from
# run to run, for as long as the target's binary is the same: BUILD/fuzz/ledger has a line for each run, with target,
# binary, inputs and seconds. What is found stays below BUILD/fuzz; `merge` adds of its inputs to tests/fuzz/corpus
# those that reach lines that nothing there reaches.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1 limit=$2
shift 2
ledger=$build/fuzz/ledger
chunk=500000 # inputs of one run: what a stop loses at most

# Bytes of an input: what the parser's interesting inputs need, since time goes with the length.
longest() {
    case $1 in
    encode) echo 128 ;;
    tokenizer) echo 3000 ;;
    jinja) echo 2048 ;;
    *) echo 1500 ;;
    esac
}

# A small quarantine and no stacks of allocations: two to three times the inputs in the same time.
export ASAN_OPTIONS=quarantine_size_mb=1:malloc_context_size=0:max_malloc_fill_size=0

# run TARGET NAME OPTION... - one run of libFuzzer; adds it to the ledger.
run() {
    local target=$1 name=$2 found=$build/fuzz/$2 words=tests/fuzz/$2.dict begin=$SECONDS inputs
    shift 2
    mkdir -p "$found/corpus"
    if ! "$build/tests/$target" "$@" -max_len="$(longest "$name")" -timeout=10 -rss_limit_mb=2048 \
        -verbosity=0 -print_final_stats=1 -reload=0 -artifact_prefix="$found/" \
        $([ ! -e "$words" ] || echo "-dict=$words") \
        "$found/corpus" "tests/fuzz/corpus/$name" >"$found/log" 2>&1; then
        if grep -aq 'run interrupted' "$found/log"; then
            echo "fuzz: $target was stopped; this run does not count" >&2
        else
            tail -n 60 "$found/log"
            echo "fuzz: $target failed; the input lies in $found" >&2
        fi
        return 1
    fi
    inputs=$(grep -a number_of_executed_units "$found/log" | grep -o '[0-9]*$')
    echo "$target $(binary "$target") $inputs $((SECONDS - begin))" >>"$ledger"
}

binary() {
    sha256sum "$build/tests/$1" | cut -c1-16
}

# Inputs and seconds so far.
so_far() {
    awk -v target="$1" -v binary="$(binary "$1")" \
        '$1 == target && $2 == binary { n += $3; s += $4 } END { printf "%.0f %d\n", n, s }' "$ledger"
}

mkdir -p "$build/fuzz"
touch "$ledger"
names=("$@")
if [ ${#names[@]} -eq 0 ]; then
    mapfile -t names < <(basename -a -s .c tests/fuzz/fuzz_*.c | sed 's/^fuzz_//')
fi
for name in "${names[@]}"; do
    target=fuzz_$name
    case $limit in
    merge)
        "$build/tests/$target" -merge=1 -use_counters=0 -max_len="$(longest "$name")" \
            "tests/fuzz/corpus/$name" "$build/fuzz/$name/corpus" 2>&1 | grep -a 'MERGE-OUTER.*new files'
        continue
        ;;
    inputs=*)
        read -r inputs _ < <(so_far "$target")
        while [ "$inputs" -lt "${limit#inputs=}" ]; do
            left=$((${limit#inputs=} - inputs))
            run "$target" "$name" -runs=$((left < chunk ? left : chunk))
            read -r inputs _ < <(so_far "$target")
        done
        ;;
    *) run "$target" "$name" -max_total_time="$limit" ;;
    esac
    read -r inputs seconds < <(so_far "$target")
    printf '%-18s %12d inputs in %6d s, nothing found\n' "$target" "$inputs" "$seconds"
done
