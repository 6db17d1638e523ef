#!/usr/bin/env bash
# coverage.sh BUILD [LEAST] - runs the tests that reach io/ and the checkpoint code in a build with
# -DMOETUNE_COVERAGE=ON, and prints which share of the lines they ran, by file and in sum. Fails below LEAST percent
# (95). Which lines they were stands in BUILD/coverage.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1 least=${2:-95}
watched=(src/io/*.c src/train/{checkpoint,folder,keep,manifest,state,storage}.c)

find "$build" -name '*.gcda' -delete
OMP_WAIT_POLICY=passive ctest --test-dir "$build" --output-on-failure \
    -R '^(base|io|train|fuzz|torture)/'

rm -rf "$build/coverage"
mkdir -p "$build/coverage"
for file in "${watched[@]}"; do
    library=$(basename "$(dirname "$file")")
    # From the build folder, where relative names of sources hold; headers have a share of their own.
    (cd "$build" && gcov -p "CMakeFiles/$library.dir/$file.gcno" 2>/dev/null) | awk -v file="$file" '
        /^File / { mine = index($0, file "\047") }
        mine && /^Lines executed:/ {
            split($0, part, "[:% ]+"); print file, part[3], part[5]; mine = 0 }' >>"$build/coverage/files"
done
mv "$build"/*.gcov "$build/coverage"
awk -v least="$least" '
    { run += $2 * $3 / 100; all += $3; printf "%6.2f %% of %4d  %s\n", $2, $3, $1 }
    END { printf "%6.2f %% of %4d lines of io/ and the checkpoint code\n", 100 * run / all, all
          exit 100 * run / all < least }' "$build/coverage/files" || {
    echo "coverage: below $least %; lines that no test ran are marked ##### in $build/coverage" >&2
    exit 1
}
