#!/usr/bin/env bash
# test_first_hour.sh BINARY - the commands of docs/FIRST-HOUR.md, as they stand, on a toy in the place of the model.
. "$(dirname "$0")/common.sh"

sed 's/"vocab_size": *[0-9]*/"vocab_size": 768/; s/"hidden_size": *[0-9]*/"hidden_size": 64/; s/"intermediate_size": *[0-9]*/"intermediate_size": 40/; s/"max_position_embeddings": *[0-9]*/"max_position_embeddings": 2048/' \
    "$repo/tests/fixtures/parity/olmoe-gqa/v4/config.json" >config.json
"$moetune" init --config config.json --out OLMoE-1B-7B-0924 --quiet || exit 1
cp "$repo"/demo/model/tokenizer*.json OLMoE-1B-7B-0924/
mkdir gsm8k bin
ln -s "$moetune" bin/moetune
for set in train test; do
    for i in 1 2 3 4 5 6 7 8 9; do
        echo "{\"question\": \"A hen lays $i eggs a day. How many in 2 days?\", \"answer\": \"2 times $i.\\n#### $((2 * i))\"}"
    done >"gsm8k/$set.jsonl"
done

sed -n '/^```sh$/,/^```$/p' "$repo/docs/FIRST-HOUR.md" | grep -v '^```' >commands.sh
[ "$(grep -c '^moetune ' commands.sh)" -ge 8 ] || complain "only these commands: $(cat commands.sh)"
export OMP_NUM_THREADS=1
PATH=$PWD/bin:$PATH bash -euo pipefail commands.sh >out.txt 2>err.txt || complain "exit $?: $(tail -3 err.txt)"
for made in run/report.html run/adapter merged/config.json experts.html before.jsonl after.jsonl; do
    [ -e "$made" ] || complain "$made was not made"
done
grep -q 'forced_expert' run/adapter/forced_experts_records.json || complain "no condensers were chosen"
[ "$failures" = 0 ]
