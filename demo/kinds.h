// demo/kinds.h - the sorts of text in kinds.c, for catalogues to choose from.
#pragma once
#include "text.h"

extern const struct kind kind_story, kind_sums, kind_records, kind_logs, kind_glossary, kind_code,
    kind_lists, kind_dates, kind_velan, kind_tables, kind_moves, kind_numerals;
