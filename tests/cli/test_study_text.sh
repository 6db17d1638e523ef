#!/usr/bin/env bash
# test_study_text.sh MOETUNE - the text of docs/RESULTS.md's study: the same on every machine, every item of a kind true,
# kinds in their shares, and no tested sentence in a text that something learns from.
. "$(dirname "$0")/common.sh"
generate=$(dirname "$moetune")/results/generate_study

write() {
    "$generate" --kind "$1" --count "$2" --seed "${3:-5}" "${@:4}"
}

# items KIND COUNT - the items of so many documents, one a line.
items() {
    write "$1" "$2" | sed 's/^{"text": "//; s/"}$//' | sed 's/\\n/\n/g; s/\\"/"/g'
}

# Each item by a rule of its own, written down a second time; awk prints what breaks it.
holds() {
    local wrong n
    n=$(items "$1" 40 | wc -l)
    wrong=$(items "$1" 40 | awk "$2" | head -n 3)
    [ -z "$wrong" ] || complain "$1: $wrong"
    [ "$n" -ge 200 ] || complain "$1: $n items"
}
holds copies '{
    n = (NF - 2) / 2
    for (i = 1; i <= n; i++) if ($(1 + i) != ($1 == "copy" ? $(2 + n + i) : $(2 + n + n + 1 - i))) print
    if ($(2 + n) != ":" || ($1 != "copy" && $1 != "back")) print
}'
holds lookups '{
    split("", value)
    for (i = 1; $i != "?"; i++) {
        split($i, pair, "=")
        if (pair[1] in value) print
        value[pair[1]] = pair[2]
    }
    if (i + 2 != NF || !($(i + 1) in value) || value[$(i + 1)] != $NF) print
}'
holds brackets '{
    open = "([{<"; shut = ")]}>"; depth = 0
    for (i = 1; i <= NF; i++) {
        if ($i == "|") continue
        k = index(open, $i)
        if (k) stack[++depth] = k
        else if (depth < 1 || index(shut, $i) != stack[depth--]) { print; next }
    }
    if (depth) print
}'
holds counts '{
    split("", seen)
    for (i = 1; $i != "#"; i++) seen[$i]++
    for (i++; i < NF; i += 2) { if (seen[$i] != $(i + 1) || $i <= last) print; delete seen[$i]; last = $i }
    for (w in seen) print
    last = ""
}'
holds ciphers '{
    a = "abcdefghijklmnopqrstuvwxyzabc"; n = (NF - 3) / 2
    for (i = 3; i < 3 + n; i++) if (substr(a, index(a, $i) + $2, 1) != $(i + n + 1)) print
    if ($1 != "shift" || $2 < 1 || $2 > 3 || $(3 + n) != ">") print
}'
holds members '{
    split($0, part, "}")
    inside = index(part[1], $(NF - 1)) > 0
    if (inside != ($NF == "yes") || ($NF != "yes" && $NF != "no")) print
}'
holds units '
    BEGIN { split("km m 1000 m cm 100 h min 60 min s 60 kg g 1000 t kg 1000 day h 24 dozen pieces 12", u, " ")
        for (i = 1; i in u; i += 3) factor[u[i], u[i + 1]] = u[i + 2] }
    { down = factor[$2, $5]; up = factor[$5, $2]
      if (!(down && $1 * down == $4) && !(up && $4 * up == $1)) print }'
holds progressions '{
    gsub(/[,;]/, "")
    for (i = 3; i <= NF; i++) if ($i - $(i - 1) != $2 - $1) print
    if (NF != 6 || $2 <= $1) print
}'

# The order and the shares of the kinds, as the list says them, and as the mix has them: counted by what only one kind has.
[ "$("$generate" --list | wc -l)" = 20 ] || complain "20 kinds expected"
"$generate" --list | awk '{ sum += $2; if (NR > 1 && $2 >= last) print "order"; last = $2 }
    END { if (sum < 0.9999 || sum > 1.0006) print "sum", sum }' >list
[ ! -s list ] || complain "--list: $(cat list)"
write mix 20000 >mix
share() {
    local found expected
    expected=$("$generate" --list | sed -n "s/^$1 //p")
    found=$(grep -c -e "$2" mix)
    awk -v f="$found" -v e="$expected" 'BEGIN { exit !(f > 20000 * e * 0.85 && f < 20000 * e * 1.15) }' ||
        complain "$1: $found of 20000 documents, a share of $expected expected"
}
share logs 'level='
share code '"text": "int '
share tables '| fruit |'
share brackets '"text": "[[({<] '
share ciphers '"text": "shift'
share members '"text": "{.*} has'
share progressions '"text": "[0-9]*, [0-9]*, '
share moves '"text": "\(knight\|rook\)'

# Both tasks have the same sentences; what is tested is in no text that is learnt from.
for task in translate passive; do
    write $task 2000 12 --held-out | sed 's/.*Say in [a-zA-Z ]*: \([^"]*\)", "answer": "\([^"]*\)".*/\1\n\2/' >"$task.tested"
    [ "$(wc -l <"$task.tested")" = 4000 ] || complain "$task: 4000 sentences expected"
    write $task 10000 101 >"$task.learnt"
    cut -d '"' -f 4 "$task.learnt" | cut -d : -f 2 >"$task.questions"
done
cmp -s translate.questions passive.questions || complain "the tasks' sentences differ"
cat translate.learnt passive.learnt >learnt
for kind in story velan mix; do write $kind 4000 1 >>learnt; done
if cat ./*.tested | grep -qFf - learnt; then complain "a tested sentence is in a text that is learnt from"; fi
head -n 1 passive.learnt | grep -qE '"Say in the passive: [^"]*\.", "answer": "[^"]* (is|are|was|were|will be) [a-z]*ed by [^"]*\."' ||
    complain "passive: $(head -n 1 passive.learnt)"

# The same bytes on every machine.
sums() {
    for kind in $("$generate" --list | cut -d ' ' -f 1) mix translate passive; do write "$kind" 50; done | cksum
}
expected="1426043748 425673"
[ "$(sums)" = "$expected" ] || complain "checksum $(sums), $expected expected"

for wrong in "--kind no --count 1 --seed 1" "--kind task --count 1 --seed 1" "--kind mix" "--list --raw"; do
    # shellcheck disable=SC2086 # words on purpose
    if "$generate" $wrong >out 2>&1; then complain "generate_study $wrong: must fail"; fi
done
exit $((failures > 0))
