#!/usr/bin/env bash
# tidy.sh BUILD - clang-tidy 14 over src and demo, with the build folder's compile commands.
set -euo pipefail
cd "$(dirname "$0")/.."

find src demo -name '*.c' -print0 | sort -z |
    xargs -0 -n 4 -P "$(nproc)" clang-tidy-14 --quiet -p "$1" --warnings-as-errors='*'
