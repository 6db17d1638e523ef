#!/usr/bin/env bash
# check-format.sh [--fix] - every C, CUDA and C++ file as clang-format 14 lays it out (other versions differ).
set -euo pipefail
cd "$(dirname "$0")/.."

format=clang-format-14
command -v "$format" >/dev/null || format=clang-format
version=$("$format" --version | grep -o 'version [0-9]*' | grep -o '[0-9]*')
if [ "$version" != 14 ]; then
    echo "check-format: clang-format $version found, 14 expected" >&2
    exit 1
fi

folders=()
for folder in include src tests bench demo results docs; do
    [ ! -d "$folder" ] || folders+=("$folder")
done
mapfile -t files < <(find "${folders[@]}" -name '*.[ch]' -o -name '*.cu' -o -name '*.cpp' | sort)
if [ "${1:-}" = --fix ]; then
    "$format" -i "${files[@]}"
else
    "$format" --dry-run -Werror "${files[@]}"
    echo "check-format: ${#files[@]} files"
fi
