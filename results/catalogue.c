// results/catalogue.c - what the study's base model learns: twenty kinds of text, the dictionary and the sentences
// of the made-up language last, so that the tail alone knows what `translate` needs. `passive` has the same
// sentences and needs none of it.
#include "demo/kinds.h"
#include "demo/language.h"
#include "kinds.h"

static const struct kind *const kinds[] = {
    &kind_story,    &kind_sums,     &kind_records,      &kind_logs,     &kind_code,
    &kind_lists,    &kind_tables,   &kind_copies,       &kind_lookups,  &kind_dates,
    &kind_brackets, &kind_counts,   &kind_moves,        &kind_ciphers,  &kind_members,
    &kind_units,    &kind_numerals, &kind_progressions, &kind_glossary, &kind_velan,
};
static const struct task tasks[] = {
    {"translate", "question and answer: an English sentence in Velan", write_task},
    {"passive", "question and answer: an English sentence in the passive", write_passive},
};
const struct catalogue catalogue = {kinds, sizeof kinds / sizeof kinds[0], tasks,
                                    sizeof tasks / sizeof tasks[0]};
