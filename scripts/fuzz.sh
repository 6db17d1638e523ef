#!/usr/bin/env bash
# fuzz.sh BUILD SECONDS - each libFuzzer target of a build with -DMOETUNE_FUZZ=ON, for that long,
# from its corpus. What it finds stays below BUILD/fuzz.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1 seconds=$2

count=0
for source in tests/fuzz/fuzz_*.c; do
    [ -e "$source" ] || continue
    target=$(basename "$source" .c) name=${target##*/fuzz_}
    name=${name#fuzz_}
    found=$build/fuzz/$name
    mkdir -p "$found/corpus"
    words=tests/fuzz/$name.dict
    echo "== $target, $seconds s"
    if ! "$build/tests/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -verbosity=0 -print_final_stats=1 -artifact_prefix="$found/" \
        $([ ! -e "$words" ] || echo "-dict=$words") \
        "$found/corpus" "tests/fuzz/corpus/$name" 2>"$found/log"; then
        tail -n 60 "$found/log"
        echo "fuzz: $target failed; the input lies in $found" >&2
        exit 1
    fi
    grep -a number_of_executed_units "$found/log" || true
    count=$((count + 1))
done
echo "fuzz: $count targets, $seconds s each, nothing found"
