// demo/catalogue.c - what the demo's base model learns, and its task.
#include "kinds.h"
#include "language.h"

static const struct kind *const kinds[] = {
    &kind_story, &kind_sums,  &kind_records, &kind_logs,   &kind_glossary, &kind_code,
    &kind_lists, &kind_dates, &kind_velan,   &kind_tables, &kind_moves,    &kind_numerals,
};
static const struct task tasks[] = {
    {"task", "question and answer: an English sentence in Velan", write_task},
};
const struct catalogue catalogue = {kinds, sizeof kinds / sizeof kinds[0], tasks,
                                    sizeof tasks / sizeof tasks[0]};
