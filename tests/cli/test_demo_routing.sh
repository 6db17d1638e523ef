#!/usr/bin/env bash
# test_demo_routing.sh MOETUNE - `make demo-routing` with a few steps: every routing takes as many, and the
# table has the form and the numbers that its parts have.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
mkdir "$build/demo"
ln -s "$(realpath "$1")" "$build/moetune"
ln -s "$(realpath "$(dirname "$1")")/demo/generate" "$build/demo/generate"
work=$build/demo/routing

stop() {
    echo "test_demo_routing: $*" >&2
    cat "$build/out" >&2
    exit 1
}

for wrong in 0 3; do
    if bash demo/routing.sh "$build" $wrong 1 >"$build/out" 2>&1; then stop "$wrong steps: must fail"; fi
done
bash demo/routing.sh "$build" 4 2 12 >"$build/out" 2>&1 || stop "failed"

has() {
    grep -qE "$1" "$build/out" || stop "no line like '$1'"
}
n='[0-9]+\.[0-9]+' s='[0-9]+\.[0-9]+ \+- [0-9]+\.[0-9]+'
has "^routing +task loss +exact % +other loss +tail before % +tail after % +always on % +seconds$"
has "^base +$n +$n +$n +$n +- +- +-$"
for routing in topk bias densemixer; do
    has "^$routing +$s +$s +$s +$s +$s +- +[0-9]+ \+- [0-9]+$"
done
has "^condenser +$s +$s +$s +$s +$s +50\.0 \+- 0\.0 +[0-9]+ \+- [0-9]+$"
tail -n 1 "$build/out" | grep -qE '^demo-routing: 4 routings, 4 steps, 2 seeds, [0-9]+ s$' ||
    stop "the last line"

for run in "$work"/*-[12]/run; do
    [ "$(wc -l <"$run/metrics.jsonl")" = 4 ] || stop "$run: 4 steps expected"
done
[ "$(cut -d ' ' -f 1,2 <"$work/numbers" | sort -u | wc -l)" = 9 ] ||
    stop "the base and 4 routings with 2 seeds: 9 different losses expected"

# The base's tail once more: the smaller half of each layer's numbers, sorted.
tail=$(sed 's/.*"usage":\[\[//; s/\]\].*//; s/\],\[/\n/g' "$work/base/task" | while read -r layer; do
    tr , '\n' <<<"$layer" | sort -n | awk '{ all += $1; if (NR <= 8) low += $1 } END { print low / all }'
done | awk '{ sum += $1 } END { printf "%.1f", 100 * sum / NR }')
has "^base +$n +$n +$n +$tail "
