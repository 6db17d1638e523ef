#!/usr/bin/env bash
# torture.sh BUILD [PART...] - what docs/RELIABILITY.md promises, attacked at its full length: every
# tests/torture/test_PART.c and .sh (or only the parts named), one after another, with TORTURE=full. `make test` runs
# the same programs in their short form. Prints a line for each part; its output lies in BUILD/torture/PART.log.
# TORTURE_ONLY=NAME: of what a part tries one after another only that whose name begins so (kill_calls, power_loss,
# failing_calls, failing_malloc).
set -uo pipefail
cd "$(dirname "$0")/.."
build=$1
shift
mkdir -p "$build/torture"

parts=("$@")
if [ ${#parts[@]} -eq 0 ]; then
    mapfile -t parts < <(for f in tests/torture/test_*; do basename "${f%.*}"; done | sed 's/^test_//' | sort -u)
fi

failed=0
for part in "${parts[@]}"; do
    log=$build/torture/$part.log
    if [ -e "tests/torture/test_$part.c" ]; then
        command=("$build/tests/test_$part")
    elif [ -e "tests/torture/test_$part.sh" ]; then
        command=(bash "tests/torture/test_$part.sh" "$build/moetune")
    else
        echo "torture: no tests/torture/test_$part.c or .sh" >&2
        exit 2
    fi
    begin=$SECONDS
    if TORTURE=full OMP_WAIT_POLICY=passive "${command[@]}" >"$log" 2>&1; then
        said=held
    else
        said="FAILED ($log)"
        failed=$((failed + 1))
    fi
    # A part's last line that begins with "torture:" is its figure.
    printf '%-16s %s, %d s: %s\n' "$part" "$said" $((SECONDS - begin)) \
        "$(grep -a '^torture:' "$log" | tail -n 1 | cut -d' ' -f2-)"
done
[ "$failed" -eq 0 ]
