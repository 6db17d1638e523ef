#!/usr/bin/env bash
# generate.sh BUILD [generate_bench's arguments after the model] - speed of generation on the OLMoE slice with random
# weights, which are made in a temporary folder (1.7 GB) and read from there.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1
shift
work=$(mktemp -d "${TMPDIR:-/tmp}/moetune-generate-XXXXXX")
trap 'rm -rf "$work"' EXIT
"$build/moetune" init --config bench/olmoe-slice.json --out "$work/model" --seed 1 --quiet
"$build/bench/generate_bench" "$work/model" "$@"
