#!/usr/bin/env bash
# check-includes.sh - includes point one way, and families stay in their table:
#   base, model/config.h <- io, ops <- routing, tuning <- model <- train, eval <- cli <- lib
# Only ops/ itself sees a backend, only routing/ and tuning/ see their lists of policies, and only
# model/families.c holds an architecture's name in its code.
set -euo pipefail
cd "$(dirname "$0")/.."

find src -name '*.[ch]' -o -name '*.cu' -o -name '*.cpp' | sort | xargs awk '
BEGIN {
    # What a folder may include, as prefixes of paths below src/.
    may["base"] = "base/"
    may["io"] = "base/ model/config.h io/"
    may["ops"] = "base/ model/config.h ops/"
    may["routing"] = "base/ model/config.h io/ ops/ops.h routing/"
    may["tuning"] = "base/ model/config.h io/ ops/ops.h tuning/"
    may["model"] = "base/ io/ ops/ops.h routing/ tuning/ model/"
    may["train"] = "base/ io/ ops/ops.h routing/ tuning/ model/ train/"
    may["eval"] = "base/ io/ ops/ops.h routing/ tuning/ model/ eval/"
    may["cli"] = "base/ io/ ops/ops.h routing/ tuning/ model/ train/ eval/ cli/"
    may["lib"] = "moetune.h base/ io/ ops/ops.h routing/ tuning/ model/ train/ eval/ cli/ lib/"
}
{
    split(FILENAME, part, "/")
    folder = part[2]
    if (!(folder in may)) {
        if (!(folder in told)) printf "%s: the folder is not in check-includes.sh\n", FILENAME
        told[folder] = bad = 1
        next
    }
}
/^[ \t]*#[ \t]*include[ \t]*"/ {
    split($0, quoted, "\"")
    n = split(may[folder], prefix, " ")
    if (FILENAME == "src/model/config.h") n = 0
    for (i = 1; i <= n; i++) {
        if (index(quoted[2], prefix[i]) != 1) continue
        if (quoted[2] !~ /policies\.h$/ || index(quoted[2], folder "/") == 1) next
    }
    printf "%s:%d: includes %s; may include: %s\n", FILENAME, FNR, quoted[2], may[folder]
    bad = 1
}
FILENAME != "src/model/families.c" {
    code = $0
    sub(/\/\/.*/, "", code)
    if (code ~ /ForCausalLM/) {
        printf "%s:%d: an architecture is named outside model/families.c\n", FILENAME, FNR
        bad = 1
    }
}
END { exit bad }'
echo "check-includes: includes point one way"
