#!/usr/bin/env bash
# mutation.sh BUILD [SANITIZED] - a mutation run over src/base, src/io and src/routing: the tests of these run over
# mutants of one place each (tests/mutation/mutate.c says of which kinds) in BUILD, and those that live once more in
# SANITIZED, a build with the sanitizers: a tenth of the speed, and more is found. The sample is drawn at random
# over all sites, by file in proportion to their number: SAMPLE= (600), SEED= (1); SITES=FILE takes "FILE SITE" lines
# instead, such as the survivors of an earlier run (BUILD/mutation/survivors). JOBS= mutants at a time (2).
# A run that was cut goes on where it was, unless a source or a test has changed since.
# A mutant is killed by a test that fails, crashes, is found at fault by a sanitizer, or takes ten times its time; the
# tests stop at the first, and those that do not come to the changed line (gcov) are not run. One that does not compile
# does not count. Mutants run as `nobody`, so this takes root: one of what removes folders may remove anything.
set -uo pipefail
cd "$(dirname "$0")/.."
build=$(realpath "$1")
work=$build/mutation
mkdir -p "$work/obj" "$work/bin"
rm -rf "$work"/job-*
stamp=$(find src tests -type f | LC_ALL=C sort | xargs -d "\n" cat | sha256sum)
[ "$(cat "$work/stamp" 2>/dev/null)" = "$stamp" ] || rm -f "$work/results"
echo "$stamp" >"$work/stamp"
JOBS=${JOBS:-2}
export work build ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:allocator_may_return_null=1:hard_rss_limit_mb=1500
[ "$(id -u)" = 0 ] || { echo "mutation: needs root, to run mutants as nobody" >&2; exit 1; }
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive

cc=(gcc)
command -v ccache >/dev/null && cc=(ccache gcc)
sanitize=
grep -q '^MOETUNE_SANITIZE:BOOL=ON' "$build/CMakeCache.txt" &&
    sanitize="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
flags="-std=c17 -O1 -march=x86-64-v3 -D_GNU_SOURCE -DMOETUNE_VERSION=\"mutant\" -Isrc -Iinclude -fPIC -w $sanitize -ffp-contract=off
    $(pkg-config --cflags jansson yaml-0.1 libpcre2-8 libutf8proc zlib cmocka)"
libraries="-ldnnl -fopenmp -lm -lpthread $(pkg-config --libs jansson yaml-0.1 libpcre2-8 libutf8proc zlib cmocka)"
rest="$build/tests/libparity.a $build/tests/libsupport.a $build/libcli.a $build/libeval.a $build/libtrain.a
    $build/libmodel.a $build/libtuning.a $build/libno_backend.a $build/libops.a"
# A build folder's own objects hide their symbols; these are one shared library, so that a mutant is one object and
# one link, whatever number of tests run over it.
export flags libraries sanitize

object() { echo "$work/obj/${1//\//_}.o"; }
export -f object
library() { # FOLDER OBJECT... - the shared library of these objects, in the folder
    local to=$1
    shift
    gcc -shared $sanitize -o "$to/libmutant.so" "$@" $libraries
}
export -f library

gcc -O1 -o "$work/mutate" tests/mutation/mutate.c || exit 1
sources=(src/base/*.c src/io/*.c src/routing/*.c)
printf '%s\n' "${sources[@]}" |
    xargs -P "$JOBS" -I{} bash -c '[ "$(object {})" -nt {} ] || '"${cc[*]}"' $flags -c {} -o "$(object {})"' || exit 1
objects=()
for f in "${sources[@]}"; do objects+=("$(object "$f")"); done
mkdir -p "$work/lib"
[ -z "$(find "$work/obj" -newer "$work/lib/libmutant.so" 2>&1)" ] || library "$work/lib" "${objects[@]}" || exit 1

# The programs, each with where its module's mutants are: base, io, routing, or several.
tests_of() { # MODULE
    case $1 in
    base) ls tests/base/test_*.c tests/train/test_{manifest,run_checkpoint,run_folder}.c ;;
    io) ls tests/io/test_*.c | grep -v tokenizer_public ;; # minutes of whole vocabularies
    routing) ls tests/routing/test_*.c tests/model/test_{routing,released_state,export_state}.c \
        tests/train/test_routing_state.c ;;
    fuzz) ls tests/fuzz/fuzz_{checkpoint,dataset,encode,extract,http,jinja,json,safetensors,tokenizer}.c ;;
    esac
}
link_program() { # SOURCE
    local name extra=()
    name=$(basename "$1" .c)
    [[ $name != fuzz_* ]] || extra=(tests/fuzz/replay.c)
    [ "$work/bin/$name" -nt "$1" ] && [ "$work/bin/$name" -nt "$build/libcli.a" ] && return
    gcc $flags -Itests/support -Itests/train -DFIXTURES="\"$PWD/tests/fixtures\"" \
        -DSHARED_DATA="\"$PWD/../shared\"" "$1" "${extra[@]}" -o "$work/bin/$name" $rest \
        -L"$work/lib" -lmutant $rest $libraries || echo "mutation: $name is left out: it does not link" >&2
}
export rest
export -f link_program
for m in base io routing fuzz; do tests_of $m; done | xargs -P "$JOBS" -I{} bash -c 'link_program {}'

arguments() { # PROGRAM
    [[ $1 != fuzz_* ]] || echo "tests/fuzz/corpus/${1#fuzz_}"
}
export -f arguments
run_program() { # LIBRARY PROGRAM CPU-SECONDS
    (
        ulimit -t "$3" -c 0 -f 1000000
        [ -n "$sanitize" ] || ulimit -v 4000000 # under ASan: hard_rss_limit_mb
        mkdir -p "$1/tmp" && chown nobody "$1/tmp"
        TMPDIR=$1/tmp LD_LIBRARY_PATH=$1 timeout -k 5 900 setpriv --reuid=nobody --regid=nogroup --clear-groups \
            "$work/bin/$2" $(arguments "$2")
    ) >"$1/log" 2>&1 </dev/null
}
export -f run_program

# Each as it is: what fails or takes long is left out; the rest run in order of their time.
[ "$work/baseline" -nt "$work/lib/libmutant.so" ] || : >"$work/baseline"
find "$work/bin" -type f -newer "$work/baseline" | while read -r f; do sed -i "/ ${f##*/} /d" "$work/baseline"; done
for m in base io routing fuzz; do
    for f in $(tests_of $m); do
        name=$(basename "$f" .c)
        [ -x "$work/bin/$name" ] && ! grep -q " $name " "$work/baseline" || continue
        { TIMEFORMAT='%U %S'; seconds=$( { time run_program "$work/lib" "$name" 60; echo $? >"$work/status"; } 2>&1); }
        took=$(awk 'NF == 2 { t = $1 + $2 } END { print t }' <<<"$seconds")
        if [ "$(cat "$work/status")" -ne 0 ] || awk -v t="$took" 'BEGIN { exit !(t > 30) }'; then
            echo "mutation: $name is left out: status $(cat "$work/status"), $took s" >&2
        else
            echo "$m $name $took" >>"$work/baseline"
        fi
    done
done
[ -s "$work/baseline" ] || exit 1

# The lines that each program comes to, in lines/PROGRAM as FILE:LINE; what continues a line goes with it.
covered=$work/covered
covering="-O0 --coverage"
cover_object() { # FILE
    gcc $flags $covering -c "$1" -o "$covered/obj/$(basename "$(object "$1")")"
}
lines_of() { # PROGRAM - with the program's counters in a folder of its own
    local name=$1 at=$covered/run/$1 file
    rm -rf "$at"
    mkdir -p "$at"
    chown nobody "$at"
    GCOV_PREFIX=$at GCOV_PREFIX_STRIP=99 run_program "$covered" "$name" 200
    ln -sf "$covered"/obj/*.gcno "$at/"
    for file in "$at"/*.gcda; do
        gcov --stdout "$file" 2>/dev/null
    done | awk -F: '
        $3 == "Source" { file = $4; hit = 0; next }
        $2 + 0 > 0 && file ~ /^src\// {
            count = $1
            gsub(/ /, "", count)
            if (count != "-") hit = count !~ /^[#=]/
            if (hit) print file ":" $2 + 0
        }' | sort -u >"$work/lines/$name"
    rm -rf "$at"
}
export covered covering
export -f cover_object lines_of
if [ -n "$(find "$work/lib/libmutant.so" "$work/baseline" -newer "$covered/done" 2>&1)" ]; then
    rm -rf "$covered" "$work/lines"
    mkdir -p "$covered/obj" "$work/lines"
    printf '%s\n' "${sources[@]}" | xargs -P "$JOBS" -I{} bash -c 'cover_object {}' || exit 1
    gcc -shared $sanitize --coverage -o "$covered/libmutant.so" "$covered"/obj/*.o $libraries || exit 1
    cut -d' ' -f2 "$work/baseline" | xargs -P "$JOBS" -I{} bash -c 'lines_of {}'
    touch "$covered/done"
fi

# The order for a mutant of a file: its module's programs and the replays, first those whose name has a word of the
# file's, then by time. A base mutant that lives meets io's, too.
order() { # FILE
    local module words
    module=$(cut -d/ -f2 <<<"$1")
    words=$(basename "$1" .c | tr _ '|')
    awk -v m="$module" -v w="($words)" '{
        own = $1 == m || $1 == "fuzz" && m != "routing"
        if (!own && !(m == "base" && $1 == "io") && !(m == "routing" && $1 == "base" && /run_checkpoint/)) next
        print ($2 ~ w ? 0 : own ? 1 : 2), $3, $2 }' "$work/baseline" | sort -k1n -k2n | cut -d' ' -f2-
}
export -f order

# One line: killed PROGRAM, SURVIVED, or what does not count.
try() { # FILE SITE LINE CHANGE
    local file=$1 site=$2 dir took program status
    dir=$work/job-$$
    mkdir -p "$dir"
    "$work/mutate" make "$file" "$site" >"$dir/mutant.c"
    if ! gcc $flags -iquote "$(dirname "$file")" -c "$dir/mutant.c" -o "$dir/mutant.o" 2>/dev/null; then
        echo "$file $site nocompile - $3 $4"
        return
    fi
    local others=() own
    own=$(object "$file")
    for f in "$work"/obj/*.o; do [ "$f" = "$own" ] || others+=("$f"); done
    library "$dir" "${others[@]}" "$dir/mutant.o"
    while read -r took program; do
        grep -qxF "$file:$3" "$work/lines/$program" || continue
        run_program "$dir" "$program" "$(awk -v t="$took" 'BEGIN { print int(10 * t) + 2 }')" 2>/dev/null # "Aborted"
        status=$?
        [ $status -eq 0 ] && continue
        [ $status -ne 143 ] || return # SIGTERM: the run was stopped, which says nothing of the mutant
        echo "$file $site killed $program $3 $4"
        rm -rf "$dir"
        return
    done < <(order "$file")
    rm -rf "$dir"
    echo "$file $site SURVIVED - $3 $4"
}
export -f try

# among 0 SITES FILE - the lines of FILE whose site is in SITES; among 1: the others.
among() { awk -v other="$1" 'FILENAME == ARGV[1] { has[$1 " " $2]; next } (($1 " " $2) in has) != other' "$2" "$3"; }
if [ -n "${SITES:-}" ]; then
    "$work/mutate" list "${sources[@]}" | among 0 "$SITES" -
else
    "$work/mutate" sample "${SAMPLE:-600}" "${SEED:-1}" "${sources[@]}"
fi >"$work/sample"
# Interleaved, so that a run that is cut short has seen all files.
shuffle() { awk '{ n[$1]++; print n[$1], NR, $0 }' | sort -k1n -k2n | cut -d' ' -f3-; }
touch "$work/results"
among 1 "$work/results" "$work/sample" | shuffle | while read -r file site line rest; do printf '%s\0%s\0%s\0%s\0' "$file" "$site" "$line" "$rest"; done |
    xargs -0 -n 4 -P "$JOBS" bash -c 'try "$@"' - >>"$work/results"

among 0 "$work/sample" "$work/results" >"$work/these"
grep SURVIVED "$work/these" | sort >"$work/survivors"
[ $# -eq 1 ] || BEFORE=$work/these SITES=$work/survivors exec bash scripts/mutation.sh "$2"
[ -z "${BEFORE:-}" ] || grep -v SURVIVED "$BEFORE" >>"$work/these"

awk '{ split($1, part, "/"); m = part[2]; n[m]++; all++ }
    $3 == "killed" { killed[m]++; k++ }
    $3 == "nocompile" { no[m]++; c++ }
    END {
        for (m in n) printf "%-8s %4d mutants, %3d do not compile, %4d killed: %.1f %%\n", m, n[m], no[m], killed[m],
            100 * killed[m] / (n[m] - no[m])
        printf "mutation: %d of %d mutants killed: %.1f %% (%d more do not compile)\n", k, all - c, 100 * k / (all - c), c
    }' "$work/these" | sort
echo "those that live: $work/survivors"
awk '{ file = $1; line = $5; $1 = $2 = $3 = $4 = $5 = ""; print "  " file ":" line " " $0 }' "$work/survivors"
