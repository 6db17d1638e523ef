#!/usr/bin/env bash
# check-lengths.sh - functions of at most 60 lines (signature to closing brace), files of at most 500.
set -euo pipefail
cd "$(dirname "$0")/.."

# Longer on purpose: the two functions that read as the list of what a model does.
exceptions="model_forward model_backward"

folders=()
for folder in include src tests bench demo results docs; do
    [ ! -d "$folder" ] || folders+=("$folder")
done
find "${folders[@]}" -name '*.[ch]' -o -name '*.cu' -o -name '*.cpp' | sort | xargs awk -v exceptions="$exceptions" '
BEGIN {
    n = split(exceptions, list, " ")
    for (i = 1; i <= n; i++) excepted[list[i]] = 1
}
function file_ends() {
    if (lines <= 500) return
    printf "%s: %d lines, at most 500 expected\n", file, lines
    bad = 1
}
FNR == 1 { if (NR > 1) file_ends(); file = FILENAME; start = 0; inside = 0 }
{ lines = FNR }
# A signature begins in the first column and its brace stands alone on the line after it.
!inside && /^[A-Za-z_]/ { start = FNR; name = $0; sub(/\(.*/, "", name); sub(/.*[ *]/, "", name) }
/^\{/ { inside = 1 }
/^\}/ {
    if (inside && FNR - start + 1 > 60 && !(name in excepted)) {
        printf "%s:%d: %s has %d lines, at most 60 expected\n", FILENAME, start, name, FNR - start + 1
        bad = 1
    }
    inside = 0
}
END { file_ends(); exit bad }'
echo "check-lengths: functions within 60 lines, files within 500"
