#!/usr/bin/env bash
# break-ops.sh BUILD [OP...] - breaks every output of every op of the CPU backend (or of the ops named) by 1 %, one at a
# time, and runs the ops' own tests (tests/ops) that name the op until one fails (tests/torture/broken_ops.c is how).
# Prints a line for each output with the test that failed; fails if an op survives, or if one of ops.h is not broken.
set -uo pipefail
cd "$(dirname "$0")/.."
build=$1
shift
only=" $* "
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
unset MOETUNE_BREAK

# What gives no values: nothing of it can be off by 1 %. The CPU has no allocate_host, and none of the experts' joined
# ops, which stand for others.
exempt=" bf16_activations scratch_bytes check free_bytes peak_bytes release allocate_host release_host "
exempt+="expert_up expert_dhidden expert_dweight "
list=$(MOETUNE_BREAK=list "$build/tests/broken_test_elementwise") || exit 1
bad=0
for op in $(sed -n 's/^ *[a-z].* \**(\*\([a-z_]*\))(.*/\1/p' src/ops/ops.h); do
    [[ $exempt == *" $op "* ]] || grep -q "^$op " <<<"$list" || {
        echo "$op of src/ops/ops.h is not among the ops that tests/torture/broken_ops.c breaks"
        bad=$((bad + 1))
    }
done

declare -A whole # programs that pass as they are
tests_of() { grep -lE "\b$1\b" tests/ops/test_*.c | grep -v /test_cuda_ | sed 's/.*\/\(.*\)\.c/\1/'; }

# The name of the test in which the broken program fails, or of the program if it gives none.
failing() { # OP OUTPUT
    local program log status
    for program in $(tests_of "$1"); do
        if [ -z "${whole[$program]:-}" ]; then
            "$build/tests/broken_$program" >/dev/null 2>&1 || { echo "$program fails as it is" >&2; exit 1; }
            whole[$program]=1
        fi
        log=$(MOETUNE_BREAK="$1 $2" timeout 300 "$build/tests/broken_$program" 2>&1)
        status=$?
        [ $status -ne 0 ] || continue
        found="$program: $(sed -n 's/^\[  FAILED  \] \([a-z][A-Za-z_0-9]*\).*/\1/p' <<<"$log" | head -n 1)"
        return 0
    done
    return 1
}

broken=0 survived=0 ops=0 last=
while read -r op output; do
    [ "$only" = "  " ] || [[ $only == *" $op "* ]] || continue
    broken=$((broken + 1))
    [ "$op" = "$last" ] || ops=$((ops + 1))
    last=$op
    if failing "$op" "$output"; then
        printf '%-28s %-22s %s\n' "$op" "$output" "$found"
    else
        printf '%-28s %-22s SURVIVED\n' "$op" "$output"
        survived=$((survived + 1))
    fi
done <<<"$list"
[ $broken -gt 0 ] || { echo "break-ops: no op of these names:$only"; exit 1; }
echo "torture: $broken outputs of $ops ops broken by 1 %, $survived survived"
[ $bad -eq 0 ] && [ $survived -eq 0 ]
