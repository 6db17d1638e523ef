// results/kinds.h - the sorts of text that the study's base model learns besides the demo's (demo/kinds.h).
#pragma once
#include "text.h"

extern const struct kind kind_copies, kind_lookups, kind_brackets, kind_counts, kind_ciphers,
    kind_members, kind_units, kind_progressions;
