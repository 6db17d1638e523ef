#!/usr/bin/env bash
# test_study.sh MOETUNE - the study of docs/RESULTS.md: its figures are computed as it says (on results made by hand), its
# document holds what results/*.jsonl give and nothing else, and the whole chain runs, goes on where it was stopped, and
# comes out the same.
. "$(dirname "$0")/common.sh"
build=$(dirname "$moetune")
tables=$build/results/study_tables

# row DOCUMENT TABLE FIRST - the row of a table that begins with this cell.
row() {
    sed -n "/<!-- table: $2 -->/,/<!-- end -->/p" "$1" | awk -v first="| $3 |" 'index($0, first) == 1'
}
expect() {
    local found
    found=$(row "$1" "$2" "$3")
    [ "$found" = "$4" ] || complain "$2: '$found', '$4' expected"
}

# The document in the repository is what its results give.
cp "$repo/docs/RESULTS.md" document.md
"$tables" "$repo/results" document.md results || complain "study_tables failed"
cmp "$repo/docs/RESULTS.md" document.md || complain "docs/RESULTS.md is not what results/*.jsonl give: run results/run.sh BUILD tables"
for chart in results/*.svg; do
    [ ! -e "$chart" ] || cmp "$repo/docs/$chart" "$chart" || complain "docs/$chart is another"
done

# Two kinds, of which each has two experts for itself in layer 0, and the same use of all four in layer 1.
mkdir made
{
    echo '{"what":"kind","model":"model","kind":"rare","share":0.25,"loss":2,"use":[[0,0,0.5,0.5],[0.4,0.3,0.2,0.1]]}'
    echo '{"what":"kind","model":"model","kind":"often","share":0.75,"loss":1,"prune":[["most",50,9,0],["least",0,1,1],["least",50,1.25,1],["least",75,1.5,1]],"use":[[0.5,0.5,0,0],[0.4,0.3,0.2,0.1]]}'
    echo '{"what":"kind","model":"random","kind":"rare","share":0.25,"loss":5,"use":[[0.25,0.25,0.25,0.25],[0.25,0.25,0.25,0.25]]}'
    echo '{"what":"kind","model":"random","kind":"often","share":0.75,"loss":4,"use":[[0.25,0.25,0.25,0.25],[0.25,0.25,0.25,0.25]]}'
    echo '{"what":"task","task":"mix","loss":1,"use":[[0.4,0.35,0.15,0.1],[0.4,0.3,0.2,0.1]]}'
    echo '{"what":"task","task":"translate","loss":3,"exact":0.125,"use":[[0.4,0.35,0.15,0.1],[0.4,0.3,0.2,0.1]],"prune":[["least",0,3,0.5],["least",50,4,0.25]]}'
} >made/base.jsonl
{
    echo '{"task":"translate","method":"topk","rank":2,"seed":1,"lr":0.001,"exact":0.5,"loss":1,"kinds":{"often":2,"rare":2},"prune":[["least",0,1,0.75],["least",50,2,0.5]]}'
    echo '{"task":"translate","method":"topk","rank":2,"seed":2,"lr":0.001,"exact":0.7,"loss":2,"kinds":{"often":3,"rare":4},"prune":[["least",0,1,0.85],["least",50,2,0.5]]}'
    echo '{"task":"translate","method":"lora","rank":2,"seed":2,"lr":0.004,"exact":0.6,"loss":4,"kinds":{"often":1,"rare":2},"prune":[["least",0,1,0.25],["least",50,2,0.125]]}'
    echo '{"task":"translate","method":"lora","rank":2,"seed":1,"lr":0.004,"exact":0.6,"loss":3,"kinds":{"often":1,"rare":2},"prune":[["least",0,1,0.25],["least",50,2,0.125]]}'
} >made/runs.jsonl
{
    echo '{"task":"translate","method":"topk","rank":2,"lr":0.002,"valid":0.75}'
    echo '{"task":"translate","method":"topk","rank":2,"lr":0.0005,"valid":0.5}'
    echo '{"task":"translate","method":"topk","rank":2,"lr":0.001,"valid":0.25}'
    echo '{"task":"translate","method":"topk","rank":4,"lr":0.008,"valid":0.125}'
} >made/search.jsonl
echo '{"task":"translate","method":"lora","rank":8,"seed":1,"lr":0.002,"learning":4000,"exact":0.25,"loss":0.5}' >made/sweep.jsonl
cp "$repo/docs/RESULTS.md" made.md
"$tables" made made.md charts || complain "study_tables failed on results made by hand"
expect made.md kinds often '| often | 75.0 | 4.00 | 1.000 | 1.250 | 1.500 | 2.8 | 15.0 | 2 |'
expect made.md kinds rare '| rare | 25.0 | 5.00 | 2.000 | - | - | 2.8 | 65.0 | 2 |'
expect made.md layers 0 '| 0 | 0.275 | 2 | 3 | 4 | 0 | 1.00 | 0.00 | 4 | 0 |'
expect made.md layers 1 '| 1 | 0.250 | 2 | 3 | 4 | 0 | 0.00 | 0.00 | 0 | 0 |'
expect made.md search topk '| topk | 0.0005: 0.500, **0.001: 0.250**, 0.002: 0.750 |'
expect made.md learnt-translate 'base, as it is' '| base, as it is | 12.5 | | 3.000 | | | | | |'
expect made.md learnt-translate topk \
    '| topk | 60.0 ± 10.0 | | 1.500 ± 0.500 | | 1.25 ± 0.75 | | 1.25 ± 0.75 | 1.25 ± 0.75 |'
expect made.md learnt-translate lora \
    '| lora | 60.0 ± 0.0 | +0.0 ± 10.0 | 3.500 ± 0.500 | +2.000 ± 0.000 | 0.00 ± 0.00 | -1.25 ± 0.75 | 0.00 ± 0.00 | 0.00 ± 0.00 |'
expect made.md pruned-translate topk '| topk | 80.0 ± 5.0 | 50.0 ± 0.0 |'
expect made.md pruned-translate 'base, as it is' '| base, as it is | 50.0 | 25.0 |'
[ "$(grep -c '^| lora | [28] |' made.md)" = 2 ] || complain "the sweep has two rows"
grep -qF '| lora | 8 | 4 | 0.00200 | 25.0 | 0.500 |' made.md || complain "the sweep's row"
[ -z "$(row made.md learnt-passive topk)" ] || row made.md learnt-passive topk | grep -q '| - |' || complain "passive has no figures"
grep -q '!\[use\](charts/use.svg)' made.md || complain "no chart in the document"
sed 's/<!-- table: kinds -->/<!-- table: kind -->/' made.md >wrong.md
if "$tables" made wrong.md charts >out 2>&1; then complain "a table that does not exist: must fail"; fi
grep -q "no table 'kind" out || complain "$(cat out)"

# The whole chain, with a build folder of its own.
mkdir -p b/results b/demo
ln -s "$moetune" b/moetune
for program in generate_study study_record study_tables; do ln -s "$build/results/$program" b/results/; done
ln -s "$build/demo/train_tokenizer" b/demo/
study() {
    bash "$repo/results/run.sh" --tiny "$dir/b" "$@" >out 2>&1 || complain "run.sh --tiny $*: $(tail -n 5 out)"
}
study
work=b/results/tiny kept=b/results/tiny/kept
[ "$(wc -l <"$kept/runs.jsonl")" = 4 ] || complain "2 methods with 2 seeds expected"
[ "$(wc -l <"$kept/sweep.jsonl")" = 2 ] || complain "a size with 2 seeds expected"
# topk's losses fall with the rate this early, so that the search goes on beyond its three rates.
[ "$(grep -c '"method":"topk"' "$kept/search.jsonl")" = 4 ] || complain "4 rates expected"
for key in exact loss story velan kl tail_before tail_after always condensers_in_tail weights_kept outputs_cosine prune wall memory; do
    [ "$(grep '"method":"lora-condenser"' "$kept/runs.jsonl" | grep -c "\"$key\":")" = 2 ] || complain "no $key in a run's line"
done
row "$work/RESULTS.md" learnt-translate lora-condenser | grep -q ' ± ' || complain "no means in the document"
if grep '"always"' "$kept/runs.jsonl" | grep -q topk; then complain "topk has no condensers"; fi

# What is there is not made again; what is missing is, and is the same.
forget() {
    sed 's/"\(wall\|cpu\|seconds\)":[0-9.]*,*//g; s/"commit":"[^"]*"//' "$kept"/{base,search,runs,sweep}.jsonl
}
forget >before
cp -r "$work/records" records
study
diff -r records "$work/records" || complain "a second run changed records"
rm "$work/records/runs/translate-topk-2-2.json" "$work/records/search/translate-topk-2-2e-3.json" "$work/records/sweep/"*-1.json
study search runs sweep tables
forget >after
cmp before after || complain "what was made again is not the same"

if bash "$repo/results/run.sh" --tiny "$dir/b" nothing >out 2>&1; then complain "an unknown stage: must fail"; fi
grep -q "no stage 'nothing'" out || complain "$(cat out)"
exit $((failures > 0))
