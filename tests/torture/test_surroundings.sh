#!/usr/bin/env bash
# test_surroundings.sh BINARY - promise 9 and what else lies around a run: locale, time zone, clock, names of files,
# folders that cannot be written, full disks, two runs in one folder, files that shrink under a mapping, odd
# environments, low limits. Where something can be computed the bytes are those of a plain run; where not, one line
# says why. What a machine does not allow (mounts, other users) is passed over with a word.
. "$(dirname "$0")/../cli/common.sh"

full=false
[ "${TORTURE:-}" = full ] && full=true
preload=$(dirname "$moetune")/tests/libsurroundings.so
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0"
unset LC_ALL LANG LC_NUMERIC TZ
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
runs=0
passed=0 # over

fails() { # STATUS WORDS COMMAND...: that status, and one line on stderr that holds the words
    local status=$1 words=$2 got=0
    shift 2
    "$@" >out.txt 2>err.txt || got=$?
    runs=$((runs + 1))
    [ "$got" = "$status" ] || complain "$*: exit $got, expected $status: $(head -3 err.txt)"
    grep -v 'warning' err.txt >line.txt
    [ "$(wc -l <line.txt)" = 1 ] || complain "$*: $(wc -l <line.txt) lines on stderr: $(cat err.txt)"
    grep -qaF -- "$words" line.txt || complain "$*: '$(cat err.txt)' does not say '$words'"
}

works() { # COMMAND...
    "$@" >out.txt 2>err.txt || complain "$*: exit $?: $(tail -3 err.txt)"
    runs=$((runs + 1))
}

# The numbers of metrics.jsonl but times.
metrics() {
    sed 's/"tokens_per_second":[^,]*,"seconds":[^,]*,//' "$1/metrics.jsonl"
}

same_run() { # RUN: ended as the plain one
    diff -r plain/model "$1/model" >diff.txt 2>&1 || complain "$1: another model: $(head -3 diff.txt)"
    diff <(metrics plain) <(metrics "$1") >diff.txt || complain "$1: other metrics: $(head -3 diff.txt)"
    diff -r plain/checkpoint-6 "$1/checkpoint-6" >diff.txt || complain "$1: another checkpoint: $(head -3 diff.txt)"
}

pass_over() {
    echo "passed over: $*"
    passed=$((passed + 1))
}

cat >config.json <<'JSON'
{"architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "hidden_size": 64,
 "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
 "num_key_value_heads": 2, "num_experts": 8, "num_experts_per_tok": 2, "vocab_size": 97,
 "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
 "tie_word_embeddings": false, "norm_topk_prob": false, "hidden_act": "silu",
 "initializer_range": 0.1}
JSON
works "$moetune" init --config config.json --out base --seed 1 --quiet
for i in $(seq 60); do
    echo "{\"input_ids\":[$((i % 97)),2,$((i * 3 % 97)),4,5,$((i * 7 % 97)),7],\"labels\":[-100,2,$((i * 3 % 97)),4,5,$((i * 7 % 97)),7]}"
done >data.jsonl
cat >run.yaml <<'YAML'
model: base
data: [data.jsonl]
lr: 0.0025
warmup_ratio: 0.25
weight_decay: 1.5e-2
validation_fraction: 0.125
routing: bias
bias_rate: 0.005
max_steps: 6
batch_tokens: 70
save_every: 2
keep_last: 9
eval_every: 3
threads: 1
YAML
train=("$moetune" train --config run.yaml --clip 0.5)
works "${train[@]}" --out plain
works "$moetune" report --run plain --out plain.html
works "$moetune" eval --model plain/model --data data.jsonl --json
cp out.txt plain-eval.txt

# --- a locale with a decimal comma, made here, and seen in force
locales() {
    local name
    for name in de_DE.ISO-8859-1 $($full && echo fr_FR.UTF-8); do
        localedef -i "${name%%.*}" -f "${name#*.}" "$dir/$name" >log.txt 2>&1 || {
            pass_over "no localedef for $name (package locales)"
            return
        }
        export LOCPATH=$dir
        { export LC_ALL=$name; } 2>log.txt # the shell caches where it looked
        [ "$(env printf '%.1f' 1,5 2>log.txt)" = 1,5 ] || complain "$name is not in force: $(env printf '%.1f' 1,5 2>&1)"
        works "${train[@]}" --out $name
        same_run $name
        diff <(sed "s/$name/plain/" $name/run.json) plain/run.json >diff.txt || complain "$name: run.json: $(cat diff.txt)"
        rm -rf $name/model $name/checkpoint-[56]
        works "$moetune" train --resume --out $name --config $name/run.json
        same_run $name
        works "$moetune" eval --model plain/model --data data.jsonl --json
        cmp -s out.txt plain-eval.txt || complain "$name: eval: $(cat out.txt)"
        works "$moetune" report --run plain --out $name.html
        cmp -s $name.html plain.html || complain "$name: another report"
        fails 2 "--lr: found '0,1'" "${train[@]}" --out new --lr 0,1
        unset LOCPATH LC_ALL
    done
}

# --- time zones, and a clock that leaps
clocks() {
    local zone
    for zone in Pacific/Kiritimati XYZ-25:59 $($full && echo America/St_Johns nonsense/zone); do
        TZ=$zone works "${train[@]}" --out zone --overwrite
        same_run zone
        TZ=$zone works "$moetune" report --run plain --out zone.html
        cmp -s zone.html plain.html || complain "$zone: another report"
    done
    LD_PRELOAD=$preload JUMPING_CLOCK=1 works "${train[@]}" --out leaping --tensorboard
    same_run leaping
    grep -q '"seconds":1800\|"seconds":3600\|"seconds":[1-9][0-9][0-9][0-9]' leaping/metrics.jsonl ||
        complain "the clock did not leap: $(head -1 leaping/metrics.jsonl)"
    grep -q '"seconds":-\|"tokens_per_second":-\|null' leaping/metrics.jsonl &&
        complain "a leap in metrics.jsonl: $(head -3 leaping/metrics.jsonl)"
    grep -q -- '-[0-9]* *\(s\|h\|min\) left\|-[0-9]* tokens/s' err.txt && complain "a leap in the progress: $(head -3 err.txt)"
    LD_PRELOAD=$preload JUMPING_CLOCK=1 works "$moetune" report --run leaping --out leaping.html
}

# --- names
names() {
    local name
    local all=('Prüfung β 模型 🙂' "o'q\"\$(touch hacked)\`touch hacked\`" '<b>&amp;%s%n%d\')
    $full && all+=('with spaces' "o'quote\"s" 'back\slash' ' ' '...' '~' '*' '#x' 'a=b')
    for name in "${all[@]}"; do
        mkdir "$name"
        cp -r base "$name/base"
        cp data.jsonl "$name/data.jsonl"
        sed '/^model:/d;/^data:/d' run.yaml >"$name/run.yaml"
        works "$moetune" train --config "$name/run.yaml" --clip 0.5 --model "$name/base" --data "$name/data.jsonl" --out "$name/out"
        same_run "$name/out"
        rm -r "$name/out/model"
        works "$moetune" train --resume --config "$name/out/run.json"
        same_run "$name/out"
        works "$moetune" report --run "$name/out"
        grep -q '<b>&amp;%' "$name/out/report.html" && complain "$name: markup in the report"
        works "$moetune" eval --model "$name/out/model" --data "$name/data.jsonl" --json
        cmp -s out.txt plain-eval.txt || complain "$name: eval"
    done
    [ ! -e hacked ] || complain "a name was run"
    name=$'two\nlines'
    mkdir "$name"
    cp -r base "$name/base"
    works "${train[@]}" --model "$name/base" --out "$name/out"
    same_run "$name/out"
    fails 1 'two?lines/none' "${train[@]}" --model $'two\nlines/none' --out new
    # A name that is no UTF-8 cannot stand in run.json.
    cp -r base $'latin-\xfc'
    fails 2 'UTF-8' "${train[@]}" --model $'latin-\xfc' --out new
    fails 2 'UTF-8' "${train[@]}" --out $'new-\xfc'
    [ ! -e $'new-\xfc' ] && [ ! -e new ] || complain "something was written for a name that is no UTF-8"
    works "$moetune" eval --model base --data data.jsonl --quiet
}

# --- folders that cannot be written
readonly_folders() {
    local as=()
    mkdir open sealed
    chmod 777 . open
    cp -r base data.jsonl run.yaml sealed/
    chmod -R a+rX,a-w sealed
    if [ "$(id -u)" = 0 ]; then
        as=(setpriv --reuid 65534 --regid 65534 --clear-groups)
        "${as[@]}" test -x "$moetune" -a -r run.yaml -a -w open 2>log.txt || {
            pass_over "another user cannot run the program"
            as=(false)
        }
    fi
    if [ "${as[0]:-}" != false ]; then
        fails 1 "sealed/out: not a folder that can be written" "${as[@]}" "${train[@]}" --out sealed/out
        fails 1 "sealed: not a folder that can be written" "${as[@]}" "${train[@]}" --out sealed
        works "${as[@]}" "${train[@]}" --model sealed/base --data sealed/data.jsonl --out open/out
        same_run open/out
        chmod a-w open/out open/out/*
        fails 1 "open/out" "${as[@]}" "${train[@]}" --out open/out --resume
        chmod -R u+w open/out
    fi
    fails 1 "data.jsonl/out: not a folder that can be written" "${train[@]}" --out data.jsonl/out
    fails 1 "/proc/here: " "${train[@]}" --out /proc/here
    chmod -R u+w sealed
}

# --- a full disk: said before step 1, or clean when it fills up later
full_disk() {
    local i
    mkdir disk
    mount -t tmpfs -o size=600k tmpfs disk 2>log.txt || {
        pass_over "no mount of a small disk: $(cat log.txt)"
        return
    }
    trap 'umount "$dir/disk"; rm -rf "$dir"' EXIT
    fails 1 "MiB free" "${train[@]}" --out disk/run
    [ -z "$(ls -A disk)" ] || complain "a run that does not fit left $(ls -A disk)"
    mount -o remount,size=40m disk
    for i in 1 $($full && echo 2 3 4 5); do
        rm -rf disk/*
        # With room at the start, until somebody else takes it.
        "${train[@]}" --out disk/run --max-steps 4000 --save-every 20 --keep-last 2 --no-report >out.txt 2>err.txt &
        local pid=$! got=0
        # A step behind a checkpoint: it is whole.
        while [ "$(cat disk/run/metrics.jsonl 2>log.txt | wc -l)" -le $((i * 20)) ] && kill -0 $pid 2>log.txt; do sleep 0.01; done
        dd if=/dev/zero of=disk/filler bs=16k >log.txt 2>&1
        wait $pid || got=$?
        runs=$((runs + 1))
        [ $got = 1 ] || complain "a disk that fills up: exit $got: $(tail -2 err.txt)"
        tail -1 err.txt | grep -q "No space left" || complain "a disk that fills up: $(tail -2 err.txt)"
        find disk/run -name '*.tmp' | grep -q . && complain "left behind: $(find disk/run -name '*.tmp')"
        rm disk/filler
        # What stands goes on, a little further.
        "${train[@]}" --out disk/run --max-steps 4000 --save-every 20 --keep-last 2 --no-report --resume >out.txt 2>err.txt &
        pid=$!
        while ! grep -q "resumed from" err.txt && kill -0 $pid 2>log.txt; do sleep 0.01; done
        kill -TERM $pid
        got=0
        wait $pid || got=$?
        [ $got = 130 ] || complain "going on after a full disk: exit $got: $(tail -2 err.txt)"
        grep -q "resumed from" err.txt || complain "nothing to go on from: $(head -3 err.txt)"
    done
    umount disk
    trap 'rm -rf "$dir"' EXIT
    (
        ulimit -f 100 # KiB
        "${train[@]}" --out limited >out.txt 2>err.txt
        [ $? = 1 ] || complain "ulimit -f: exit $?"
        tail -1 err.txt | grep -q "File too large" || complain "ulimit -f: $(tail -1 err.txt)"
        exit $failures
    ) || failures=$((failures + 1))
    [ ! -e limited/model ] && [ ! -e limited/checkpoint-2 ] || complain "ulimit -f: a part of a run"
}

# As far as a run came that was stopped, it is the run of the command without what happened to it.
same_so_far() { # RUN COMMAND...
    local run=$1 lines pid
    shift
    lines=$(wc -l <"$run/metrics.jsonl")
    rm -rf alone
    "$@" --out alone >alone.txt 2>&1 &
    pid=$!
    while [ "$(cat alone/metrics.jsonl 2>log.txt | wc -l)" -lt "$lines" ] && kill -0 $pid 2>log.txt; do sleep 0.01; done
    kill -TERM $pid
    wait $pid
    diff <(metrics "$run" | head -n "$lines") <(metrics alone | head -n "$lines") >diff.txt ||
        complain "$run was disturbed: $(head -2 diff.txt)"
}

# --- two runs in one folder
two_runs() {
    local pid got=0
    "${train[@]}" --out shared --max-steps 3000 --save-every 500 --no-report >first.txt 2>&1 &
    pid=$!
    while [ ! -s shared/metrics.jsonl ]; do sleep 0.01; done
    fails 1 "another run is using this folder" "${train[@]}" --out shared --resume
    fails 1 "another run is using this folder" "${train[@]}" --out shared --overwrite
    fails 1 "holds a run already" "${train[@]}" --out shared
    ln -s shared alias
    fails 1 "another run is using this folder" "${train[@]}" --out alias --overwrite
    kill -TERM $pid
    wait $pid || got=$?
    [ $got = 130 ] || complain "the first of two runs: exit $got: $(tail -1 first.txt)"
    same_so_far shared "${train[@]}" --max-steps 3000 --save-every 500 --no-report
}

# --- files that shrink, or are written to, while they are mapped
shrinking() {
    local size name
    size=$(stat -c %s base/model.safetensors)
    lora=("$moetune" train --config run.yaml --clip 0.5 --tuning lora --model soft --no-report)
    rm -rf soft && cp -r base soft
    # While it is opened, and while a run uses it.
    for to in 0 100 $((size / 2)) $($full && echo 4 4096 8192); do
        cp base/model.safetensors soft/
        fails 1 "soft/model.safetensors" env LD_PRELOAD="$preload" SHRINK="soft/model.safetensors:1:$to" \
            "${lora[@]}" --out shrunk --overwrite --quiet
        [ ! -e shrunk/adapter ] || complain "an adapter over a file that shrank"
    done
    cp base/model.safetensors soft/
    rm -rf shrunk
    "${lora[@]}" --out shrunk --max-steps 20000 --save-every 50 --keep-last 1 --quiet >out.txt 2>err.txt &
    local pid=$! got=0
    while ! ls shrunk/checkpoint-* >log.txt 2>&1; do sleep 0.01; done
    truncate -s $((size / 3)) soft/model.safetensors
    wait $pid || got=$?
    runs=$((runs + 1))
    [ $got = 1 ] || complain "a model that shrank under a run: exit $got"
    grep -q "soft/model.safetensors: became shorter" err.txt || complain "a model that shrank: $(tail -1 err.txt)"
    cp base/model.safetensors soft/
    # Less than a page: no fault, but no state of it is kept. Files are looked at when a save begins: what happens to one
    # while it is written is seen by the next, and a run that stops then has none. So these runs save seldom.
    local seldom=(--max-steps 20000 --quiet --eval-every 0 --save-every)
    for name in save end; do
        rm -rf shrunk
        cp base/model.safetensors soft/
        "${lora[@]}" --out shrunk "${seldom[@]}" $([ $name = save ] && echo 60 || echo 0) >out.txt 2>err.txt &
        pid=$!
        got=0
        while [ ! -s shrunk/metrics.jsonl ]; do sleep 0.01; done
        truncate -s $((size - 1)) soft/model.safetensors
        [ $name = end ] && kill -TERM $pid
        wait $pid || got=$?
        runs=$((runs + 1))
        [ $got = 1 ] || complain "a model shorter by a byte: exit $got"
        grep -q "soft/model.safetensors: $size bytes when it was opened, and $((size - 1)) now" err.txt ||
            complain "a model shorter by a byte: $(tail -1 err.txt)"
        [ $name = end ] && ls shrunk/checkpoint-* >log.txt 2>&1 && complain "a checkpoint over a model that is shorter"
    done
    # Another file in its place is no harm; the same file written to is warned of.
    for name in replaced touched; do
        rm -rf $name
        cp base/model.safetensors soft/
        "${lora[@]}" --out $name "${seldom[@]}" 0 >out.txt 2>err.txt &
        pid=$!
        got=0
        while [ ! -s $name/metrics.jsonl ]; do sleep 0.01; done
        if [ $name = replaced ]; then
            cp data.jsonl soft/other && mv soft/other soft/model.safetensors
        else
            touch soft/model.safetensors
        fi
        kill -TERM $pid
        wait $pid || got=$?
        runs=$((runs + 1))
        [ $got = 130 ] || complain "a model that was $name: exit $got: $(tail -1 err.txt)"
        grep -c "soft/model.safetensors: was written to while it is in use" err.txt >log.txt
        [ "$(cat log.txt)" = $([ $name = touched ] && echo 1 || echo 0) ] || complain "a model that was $name: $(cat err.txt)"
        cp base/model.safetensors soft/
        same_so_far $name "${lora[@]}" "${seldom[@]}" 0
    done
    # Data, and what a resume reads.
    for to in 0 1000; do
        cp data.jsonl short.jsonl
        env LD_PRELOAD="$preload" SHRINK="short.jsonl:1:$to" "${train[@]}" --data short.jsonl --out new >out.txt 2>err.txt
        got=$?
        runs=$((runs + 1))
        [ $got = 1 ] || complain "data that shrank to $to: exit $got"
        grep -q "short.jsonl" err.txt || complain "data that shrank: $(cat err.txt)"
        [ ! -e new ] || complain "data that shrank left a run"
    done
    # Within a page the checksum tells, and the checkpoint before serves; else the line names the file, and the next
    # try goes on from the one before.
    for name in values $($full && echo m v); do
        for to in 1:5000 2:5000 1:0 2:40000; do
            rm -rf torn && cp -r plain torn && rm -r torn/model torn/checkpoint-6
            got=0
            env LD_PRELOAD="$preload" SHRINK="checkpoint-4/$name.safetensors:$to" "${train[@]}" --out torn --resume >out.txt 2>err.txt || got=$?
            runs=$((runs + 1))
            if [ $got = 1 ]; then
                grep -q "torn/checkpoint-4/$name.safetensors: became shorter" err.txt || complain "$name $to: $(cat err.txt)"
                works "${train[@]}" --out torn --resume
            fi
            [ $got -le 1 ] || complain "$name $to: exit $got: $(cat err.txt)"
            grep -q "checkpoint skipped: .*checkpoint-4/$name.safetensors" err.txt || complain "not said: $(cat err.txt)"
            same_run torn
        done
    done
    rm -rf soft
}

# --- odd environments
environments() {
    local limit got
    works env -i "$moetune" train --config run.yaml --clip 0.5 --out bare
    same_run bare
    "${train[@]}" --out closed <&- >&- 2>&- || complain "closed streams: exit $?"
    same_run closed
    (umask 077 && "${train[@]}" --out private >out.txt 2>err.txt) || complain "umask 077: exit $?"
    same_run private
    [ "$(stat -c %a private/model/model.safetensors)" = 600 ] || complain "umask 077: $(stat -c %a private/model/*)"
    "${train[@]}" --out piped --json 2>err.txt | head -1 >out.txt
    [ "${PIPESTATUS[0]}" = 0 ] || complain "a reader that goes away: exit ${PIPESTATUS[0]}"
    same_run piped
    "${train[@]}" --out silent 2>&1 >out.txt | head -1 >err.txt
    [ "${PIPESTATUS[0]}" = 0 ] || complain "a reader of stderr that goes away: exit ${PIPESTATUS[0]}"
    same_run silent
    for threads in garbage -3 99999999999 ''; do
        OMP_NUM_THREADS=$threads works "${train[@]}" --out odd --overwrite
        same_run odd
    done
    "${train[@]}" --out full --json >/dev/full 2>err.txt && complain "a full stdout is a failure"
    same_run full
    runs=$((runs + 6))
    for limit in 4 6 8 12 16 24; do
        rm -rf few
        (
            ulimit -n $limit
            exec "${train[@]}" --out few
        ) >out.txt 2>err.txt
        got=$?
        runs=$((runs + 1))
        [ $got = 0 ] && same_run few
        [ $got = 0 ] || [ $got = 1 ] || [ $got = 127 ] || complain "ulimit -n $limit: exit $got: $(cat err.txt)"
    done
    [ $got = 0 ] || complain "ulimit -n 24 is not enough: $(cat err.txt)"
    ldd "$moetune" | grep -q asan && { # it reserves terabytes
        pass_over "ulimit -v under the address sanitizer"
        return
    }
    local step=$($full && echo 600 || echo 24000) ended=0
    for limit in $($full && seq 44000 300 53000) $(seq 40000 "$step" 2000000); do
        rm -rf few
        (
            ulimit -c 0 -v $limit
            exec "${train[@]}" --out few --threads 2
        ) >out.txt 2>err.txt
        got=$?
        runs=$((runs + 1))
        [ $got = 0 ] && [ "$limit" -gt 60000 ] && break
        [ $got = 1 ] && ended=$((ended + 1))
        # Before main() it is the loader that speaks (127); after it, a line of ours, or of OpenMP's library.
        [ $got = 127 ] || { [ $got = 1 ] && [ "$(grep -c '^moetune\|^libgomp: ' err.txt)" = 1 ]; } ||
            complain "ulimit -v $limit: exit $got: $(head -3 err.txt)"
    done
    [ $got = 0 ] && same_run few
    [ $ended -gt 0 ] || complain "no limit of memory ended a run"
}

# --- threads: every routing with every tuning, wide enough for what runs in parallel
threads() {
    local routing tuning pair=0 n
    local -A small=([esft]="--esft-tokens 300" [lora]="--lora-rank 4" [dora]="--lora-rank 4"
        [smt]="--smt-warmup-steps 1 --smt-block 16 --smt-attention-blocks 6 --smt-mlp-blocks 20"
        [bias]="--bias-rate 0.01" [condenser]="--bias-rate 0.01 --phase1-epochs 0.5")
    sed 's/"hidden_size": 64/"hidden_size": 128/; s/"vocab_size": 97/"vocab_size": 997/' config.json >wide.json
    works "$moetune" init --config wide.json --out wide --seed 1 --quiet
    for routing in topk aux bias condenser densemixer; do
        for tuning in full esft smt lora dora; do
            pair=$((pair + 1))
            $full || [ $((pair % 12)) = 9 ] || continue
            for n in 1 2 7; do
                # shellcheck disable=SC2086
                works "$moetune" train --model wide --data data.jsonl --data data.jsonl --out threads-$n --overwrite \
                    --routing $routing ${small[$routing]-} --tuning $tuning ${small[$tuning]-} \
                    --batch-tokens 420 --max-steps 2 --lr 1e-2 --threads $n --quiet --no-report
                [ $n = 1 ] && continue
                rm -f threads-*/run.json threads-*/plan.json threads-*/result.json
                diff -r <(cd threads-1 && metrics .) <(cd threads-$n && metrics .) >diff.txt &&
                    diff -r -x metrics.jsonl -x .lock threads-1 threads-$n >diff.txt ||
                    complain "$routing x $tuning with $n threads: $(head -3 diff.txt)"
            done
        done
    done
}

[ -e "$preload" ] || complain "$preload is not built"
for part in locales clocks names readonly_folders full_disk two_runs shrinking environments threads; do
    begin=$SECONDS
    $part
    echo "$part: $((SECONDS - begin)) s"
done

[ "$failures" = 0 ] || exit 1
echo "torture: $runs runs in odd surroundings, $passed parts passed over; the bytes of a plain run, or one line that says why"
