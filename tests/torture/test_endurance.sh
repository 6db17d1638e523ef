#!/usr/bin/env bash
# Two runs on the demo's scale: into one a fault strikes each minute, and it goes on with --resume; the other is left
# alone, and its memory is watched. Every checkpoint that both have must have the same bytes, and so must the lines of
# metrics.jsonl but for their times. TORTURE=full: 2 hours, beside each other; else some seconds, one after the other.
# Argument: the binary. How many steps such a time holds is not known, so neither run comes to its end: the learning
# rate is constant, both save at the same steps, and both are stopped.
. "$(dirname "$0")/../cli/common.sh"
generate=$(dirname "$moetune")/demo/generate
[ -x "$generate" ] || { echo "no $generate: the demo is not built"; exit 77; }

if [ "${TORTURE:-}" = full ]; then
    length=${ENDURANCE_SECONDS:-7200} pause=${ENDURANCE_PAUSE:-60} every=25 examples=12000 tokens=1024
    patience=300 frozen=10 idle=(chrt -i 0)
else
    length=0 pause=0 every=5 examples=400 tokens=256 patience=60 frozen=1 idle=()
fi
seed=${SEED:-7}
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
"$generate" --kind task --count "$examples" --seed 11 >train.jsonl || exit 1

train=("$moetune" train --model "$repo/demo/model" --data train.jsonl --validation-fraction 0.01 --eval-every
    $((every * 2)) --batch-tokens $tokens --max-steps 1000000 --no-recompute --lr 5e-4 --schedule constant
    --save-every $every --keep-last 5 --threads 1 --seed 1 --resume)

declare -A pid seen struck damaged
status=0 undone=0
: >disturbed.sums >undisturbed.sums

# start RUN [COMMAND...] - goes on with a run (behind a command such as prlimit).
start() {
    local run=$1
    shift
    set -- "$@" "${idle[@]}" "${train[@]}" --out "$run"
    : >"$run.err" # at once: what an earlier process said is not this one's
    # A limit on the size of files shall make writes fail, as a full disk does, and not kill.
    (trap '' XFSZ && exec "$@") >"$run.err" 2>&1 &
    pid[$run]=$!
}

# Checkpoints of the common steps, summed while they are there: "STEP CRC BYTES FILE" in RUN.sums.
sum_new() { # RUN
    local folder step sums
    for folder in "$1"/checkpoint-*; do
        step=${folder##*-}
        [[ $step =~ ^[0-9]+$ ]] || continue
        ((step % every == 0)) && [ -z "${seen[$1-$step]:-}" ] || continue
        # One that is pruned meanwhile is not whole: 3 files of leaves, the state, the manifest.
        sums=$(cd "$folder" 2>/dev/null && cksum -- * 2>/dev/null) && [ "$(wc -l <<<"$sums")" -eq 5 ] || continue
        seen[$1-$step]=1
        sed "s/^/$step /" <<<"$sums" >>"$1.sums"
    done
}

# A line of memory.txt: seconds, RssAnon, VmRSS, VmHWM (KiB), threads, descriptors of the undisturbed run.
sample() {
    local key value rest anon=0 rss=0 peak=0 threads=0 fds
    local p=${pid[undisturbed]:-}
    [ -n "$p" ] && [ -s undisturbed/metrics.jsonl ] || return
    while read -r key value rest; do
        case $key in
        RssAnon:) anon=$value ;;
        VmRSS:) rss=$value ;;
        VmHWM:) peak=$value ;;
        Threads:) threads=$value ;;
        esac
    done 2>/dev/null <"/proc/$p/status"
    fds=("/proc/$p/fd/"*)
    [ "$anon" -gt 0 ] && echo "$SECONDS $anon $rss $peak $threads ${#fds[@]}" >>memory.txt
}

tick() {
    sum_new disturbed
    [ -n "${pid[undisturbed]:-}" ] || return
    sum_new undisturbed
    sample
    kill -0 "${pid[undisturbed]}" 2>/dev/null && return
    complain "the undisturbed run ended by itself: $(tail -n 3 undisturbed.err)"
    exit 1
}

# nap MILLISECONDS - all waiting is done here, so that nothing is missed.
nap() {
    local left=$1 now
    while ((left > 0)); do
        tick
        now=$((left < 500 ? left : 500))
        sleep "$(printf '0.%03d' $now)"
        left=$((left - now))
    done
}

last_step() { # RUN - by metrics.jsonl; a line that is being written does not count
    local step
    step=$(tail -c 8192 "$1/metrics.jsonl" 2>/dev/null | grep -a '}$' | tail -n 1 |
        sed -n 's/^{"step":\([0-9]*\),.*/\1/p')
    echo "${step:-0}"
}

identity() { stat -c %i.%y "$1" 2>/dev/null; } # what takes a folder's place has another

checkpoints() { # RUN - the steps of its checkpoints, the newest first; not those that were damaged here
    local folder
    for folder in "$1"/checkpoint-*; do
        [ -d "$folder" ] || continue
        [ -n "${damaged[$(identity "$folder")]:-}" ] || echo "${folder##*-}"
    done | grep -x '[0-9]*' | sort -rn
}

running() { kill -0 "${pid[disturbed]}" 2>/dev/null; }
said() { tail -n 5 disturbed.err; }

# Waits until the disturbed run has ended; $status is its exit status. A hang is one of the things looked for.
ended() {
    local limit=$((SECONDS + patience))
    while running; do
        if ((SECONDS > limit)); then
            complain "$kind: the run did not end within $patience s"
            kill -KILL "${pid[disturbed]}"
        fi
        nap 50
    done
    wait "${pid[disturbed]}" 2>/dev/null
    status=$?
    cat disturbed.err >>disturbed.log
}

expect() { # STATUS...
    local s
    for s in "$@"; do [ "$status" -eq "$s" ] && return; done
    complain "$kind: exit status $status, expected $*: $(said)"
    [ ! -e core ] || mv core "$dir-core-$SECONDS" # where the system writes one, and is asked to (ulimit -c)
}

expect_reason() { # after a failure that was noticed: a line of the program's own, or libgomp's that has no memory
    grep -qE '^(moetune train|libgomp): ' disturbed.err || complain "$kind: no line says why it ended: $(said)"
}

# Waits until the disturbed run, resumed, makes a step.
stepped() {
    local limit=$((SECONDS + patience))
    until grep -q '^[0-9]*/1000000 loss' disturbed.err 2>/dev/null; do
        if ! running; then
            ended
            complain "$kind: resumed, it ended with status $status: $(said)"
            exit 1
        elif ((SECONDS > limit)); then
            complain "$kind: resumed, it made no step within $patience s: $(said)"
            exit 1
        fi
        nap 100
    done
}

# go_on [STEP] - resumes, from the newest checkpoint if not said otherwise.
go_on() {
    local from=${1:-$(checkpoints disturbed | head -n 1)}
    undone=$((undone + $(last_step disturbed) - ${from:-0}))
    start disturbed
    stepped
    [ -z "$from" ] || grep -q "resumed from disturbed/checkpoint-$from\$" disturbed.err ||
        complain "$kind: not resumed from checkpoint-$from: $(head -n 40 disturbed.err | grep -a checkpoint)"
}

strike() { # SIGNAL
    kill -"$1" "${pid[disturbed]}" 2>/dev/null || complain "$kind: the run was gone"
    [ "$1" = STOP ] || [ "$1" = CONT ] || ended
}
killed() {
    strike KILL
    expect 137
}

fault_kill() {
    killed
    go_on
}
fault_term() { stops_at TERM; }
fault_int() { stops_at INT; }
stops_at() {
    strike "$1"
    expect 130
    [ "$(checkpoints disturbed | head -n 1)" = "$(last_step disturbed)" ] ||
        complain "$kind: stopped at step $(last_step disturbed), but the newest checkpoint is another"
    go_on
}
fault_twice() { # the second signal stops at once, wherever the first one's save is
    kill -TERM "${pid[disturbed]}"
    kill -TERM "${pid[disturbed]}" 2>/dev/null
    ended
    expect 130 143
    go_on
}
fault_stop() {
    strike STOP
    nap $((RANDOM % (frozen * 1000)))
    strike CONT
    nap 200
    running || complain "$kind: it ended: $(said)"
}
fault_early() { # killed again while it resumes
    killed
    start disturbed
    sleep "0.$((RANDOM % 4))$((RANDOM % 10))"
    killed
    go_on
}

# damage COMMAND - runs it on a random file of the newest checkpoint of a killed run, with the file's size. The resumed
# run must name what it skips and take the one before.
damage() {
    local newest good file
    killed
    tick
    newest=$(checkpoints disturbed | sed -n 1p)
    good=$(checkpoints disturbed | sed -n 2p)
    if [ -n "$good" ]; then
        file=$(find "disturbed/checkpoint-$newest" -type f | sort | sed -n "$((RANDOM % 5 + 1))p")
        "$1" "$file" "$(stat -c %s "$file")"
        damaged[$(identity "disturbed/checkpoint-$newest")]=1
    fi
    go_on "$good"
    [ -z "$good" ] || grep -q "skipped: disturbed/checkpoint-$newest/" disturbed.err ||
        complain "$kind: $file is damaged, and the run said: $(head -n 3 disturbed.err)"
}
flip() {
    local at=$(((RANDOM * 32768 + RANDOM) % $2)) byte
    byte=$(od -An -tu1 -j $at -N 1 "$1")
    # shellcheck disable=SC2059 # the format is the byte
    printf "\\$(printf '%03o' $((byte ^ (1 << RANDOM % 8))))" | dd of="$1" bs=1 seek=$at conv=notrunc status=none
}
shorten() { truncate -s $(((RANDOM * 32768 + RANDOM) % $2)) "$1"; }
fault_corrupt() { damage flip; }
fault_truncate() { damage shorten; }

# No file may grow beyond a little more than metrics.jsonl has: it or the next checkpoint cannot be written.
fault_full() {
    prlimit --pid "${pid[disturbed]}" --fsize=$(($(stat -c %s disturbed/metrics.jsonl) + RANDOM * 2)):
    ended
    expect 1
    expect_reason
    go_on
}
fault_files() { # no more descriptors
    prlimit --pid "${pid[disturbed]}" --nofile=3:
    ended
    expect 1
    expect_reason
    go_on
}
lives_on() { # for a while; then, if it does, it is killed
    local limit=$((SECONDS + pause / 4 + 1))
    while ((SECONDS < limit)) && running; do nap 200; done
    running && killed
}
# No more address space than it has: it goes on, or says that there is no memory. oneDNN crashes where the limit falls
# while it makes a kernel, between our asking for room and its use of it: then once more, twice at most.
fault_memory() {
    local now try
    for try in 1 2 3; do
        now=$(sed -n 's/^VmSize:\s*\([0-9]*\) kB/\1/p' "/proc/${pid[disturbed]}/status")
        prlimit --pid "${pid[disturbed]}" --as=$((now * 1024)):
        lives_on && break
        ended
        if [ "$status" -ne 139 ] || [ "$try" -eq 3 ]; then
            expect 1
            expect_reason
            break
        fi
        go_on
    done
    go_on
}
fault_small() { # resumed with too little memory (127: even for the loader), or enough
    killed
    local from
    from=$(checkpoints disturbed | head -n 1)
    start disturbed prlimit --as=$(((RANDOM % 300 + 40) << 20))
    if ! lives_on; then
        ended
        expect 1 127
        [ "$status" -ne 1 ] || expect_reason
    fi
    go_on
}

kinds=(kill term int twice stop early corrupt truncate full files)
# A sanitizer's shadow does not fit under such a limit.
prlimit --as=4000000000 "$moetune" --version >/dev/null 2>&1 && kinds+=(memory small)
shuffled() { # SEED
    printf '%s\n' "${kinds[@]}" | awk -v seed="$1" 'BEGIN { srand(seed) } { print rand(), $0 }' | sort -n | cut -d' ' -f2
}

kind=start faults=0 bag=()
RANDOM=$seed
more() { ((length == 0 ? faults < ${#kinds[@]} : SECONDS < length)); }
start disturbed
((length == 0)) || start undisturbed
stepped
while more; do
    [ ${#bag[@]} -gt 0 ] || mapfile -t bag < <(shuffled $((seed + faults)))
    next=$((SECONDS + pause))
    nap $((pause ? RANDOM % (pause * 900) : RANDOM % 300)) # at a random moment of the minute
    more || break
    kind=${bag[0]}
    bag=("${bag[@]:1}")
    echo "$SECONDS s: $kind at step $(last_step disturbed)"
    "fault_$kind"
    faults=$((faults + 1))
    struck[$kind]=$((${struck[$kind]:-0} + 1))
    while more && ((SECONDS < next)); do nap 1000; done
done

kind=end
common_step() { checkpoints disturbed | awk -v k=$every '$1 % k == 0' | head -n 1; }
limit=$((SECONDS + patience)) # a short run that was set back by every fault may have none yet
while [ -z "$(common_step)" ] && running && ((SECONDS < limit)); do nap 100; done
strike TERM
expect 130
tick
last=$(common_step)
[ -n "$last" ] || { complain "no checkpoint of a common step: $(said)"; exit 1; }
if ((length == 0)); then
    start undisturbed
    while [ -z "${seen[undisturbed-$last]:-}" ]; do nap 100; done
fi
p=${pid[undisturbed]}
unset 'pid[undisturbed]'
kill -TERM "$p"
wait "$p"
status=$?
[ "$status" -eq 130 ] || complain "the undisturbed run: exit status $status: $(tail -n 3 undisturbed.err)"
sum_new undisturbed

read -r common top bad < <(awk '
    NR == FNR { sum[$1 " " $4] = $2 " " $3; next }
    ($1 " " $4) in sum {
        if (sum[$1 " " $4] != $2 " " $3) { print "differs: checkpoint-" $1 "/" $4 > "/dev/stderr"; bad++ }
        step[$1]
        if ($1 > top) top = $1
    }
    END { for (s in step) n++; print n + 0, top + 0, bad + 0 }' disturbed.sums undisturbed.sums)
[ "$bad" -eq 0 ] || complain "$bad files of checkpoints differ"
[ "$common" -gt 0 ] || complain "no checkpoint of the same step in both runs"

timeless() { head -n "$2" "$1/metrics.jsonl" | sed 's/"tokens_per_second":[^,]*,"seconds":[^,]*,//'; }
made=$(last_step disturbed) alone=$(last_step undisturbed)
lines=$((made < alone ? made : alone))
cmp <(timeless disturbed $lines) <(timeless undisturbed $lines) || complain "lines of metrics.jsonl differ"

# Flat: after a warm-up, the medians of windows lie within 1 % of each other, and the peak (the system keeps it, so
# saves and evaluations are in it) grows by no more; threads and descriptors stay the same. A run of some seconds is
# still warming up, and shows the figures only.
flat=$(awk -v full="$length" '
    function median(c, a, b,    i, j, t, n, x) {
        for (i = a; i < b; i++) {
            t = v[c, i]
            for (j = n++; j > 0 && x[j - 1] > t; j--) x[j] = x[j - 1]
            x[j] = t
        }
        return x[int(n / 2)]
    }
    { for (c = 2; c <= 6; c++) v[c, NR - 1] = $c }
    END {
        first = int(NR * (full ? 0.05 : 0.4))
        windows = full ? 20 : 2
        if (NR - first < 2 * windows) { print "too few samples: " NR; exit }
        for (c = 2; c <= 6; c++) {
            low = 1e18; high = 0
            for (w = 0; w < windows; w++) {
                a = first + int((NR - first) * w / windows); b = first + int((NR - first) * (w + 1) / windows)
                m = c == 4 ? v[c, b - 1] : median(c, a, b)
                if (m < low) low = m
                if (m > high) high = m
            }
            off[c] = low ? 100 * (high - low) / low : 0; at[c] = high
            if (full && off[c] > (c < 5 ? 1 : 0)) bad = ": NOT FLAT"
        }
        printf "RssAnon %.1f MiB within %.2f %%, resident %.1f MiB within %.2f %%, peak %.1f MiB within %.2f %%, " \
               "%d thread(s), %d descriptors in %d samples%s\n",
               at[2] / 1024, off[2], at[3] / 1024, off[3], at[4] / 1024, off[4], at[5], at[6], NR, bad
    }' memory.txt)
[[ $flat == RssAnon*samples ]] || complain "memory: $flat"

list=
for k in "${kinds[@]}"; do list+="${list:+, }$k ${struck[$k]:-0}"; done
if [ "$failures" -gt 0 ]; then
    echo "torture: $failures failures in $faults faults ($list); $flat"
    exit 1
fi
echo "torture: $faults faults in $SECONDS s ($list); $made steps and $undone that were undone, beside $alone" \
    "undisturbed; $common checkpoints have the same bytes, the last of step $top; $flat"
