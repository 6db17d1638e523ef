// eval/loglik.h - multiple choice by likelihood, as lm-evaluation-harness does it: of the choices that could go on
// from a context, the one whose tokens have the highest sum of log-probabilities; and the same with each sum
// divided by the choice's length.
#pragma once
#include "eval/score.h"
#include "io/tokenizer.h"

struct loglik_choice {
    char *text;                // without the delimiter in front
    int64_t first, context, n; // its ids: [first, first + n), of which `context` are context
    int64_t characters, bytes; // of the text
    double sum;                // of the log-probabilities, once scored
};

struct loglik_item {
    char *context;
    struct loglik_choice *choice;
    int64_t n_choices, gold;
    const char *file;
    int64_t line;
    int64_t best, best_by_characters, best_by_bytes; // once scored; of two alike the first
};

struct loglik_data {
    struct loglik_item *item;
    int64_t count, capacity;
    struct tokens ids;
    int64_t
        longest; // ids of a choice with its context, the last not counted: rows that a model computes
    int64_t bad; // left out, with skip_bad
};

struct loglik_options {
    const char *const *files; // the names must live as long as the data
    int64_t n_files, limit;   // 0: all
    bool skip_bad;
    const struct tokenizer *tokenizer;
    int32_t bos;           // in front of every context; -1: none
    int64_t max_positions; // what is longer loses tokens on its left
};

// Lines, or elements of an array, in one of three forms (docs/FORMATS.md): context and choices with `gold`; ARC's
// question, choices and answerKey; HellaSwag's ctx_a, ctx_b, endings and label.
bool loglik_open(struct loglik_data *d, const struct loglik_options *o, struct error *err);
void loglik_close(struct loglik_data *d);

struct loglik_score {
    int64_t count, right, right_by_characters, right_by_bytes;
};
// setup.max_tokens >= d->longest. Fills in the sums and the best of each item.
bool loglik_score(struct loglik_score *out, struct model *m, struct loglik_data *d,
                  const struct score_listener *l, struct error *err);
