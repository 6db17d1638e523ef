// results/study.h - the study's figures as its tables and charts ask for them: results/*.jsonl (record.c says what a
// line holds), and samples over seeds. Knows nothing of Markdown.
#pragma once
#include "lines.h"

#include "base/mem.h"

enum { MOST_SEEDS = 64, MOST_KINDS = 64 };

struct study {
    json_t *base, *search, *runs, *sweep,
        *time;          // arrays of objects; empty where there is no file yet
    json_t *kinds;      // (of base) the base's lines of kinds, most frequent first
    const char *charts; // the folder of the charts
};
bool study_open(struct study *s, const char *dir, struct error *err);
void study_close(struct study *s);

// A figure of a run's line; NaN: it has none.
struct figure {
    const char *
        key; // of the line; NULL: the mean increase of the loss on kinds first .. last - 1 of the catalogue
    int64_t first, last;
    double scale; // what it is multiplied with
    int decimals;
};
double figure_of(const struct study *s, const json_t *line, const struct figure *f);

// One figure of the runs of a method on a task, by seed.
struct sample {
    double value[MOST_SEEDS];
    double seed[MOST_SEEDS];
    int64_t n;
};
// Lines of `from` with this task, method and rank (-1: any) whose figure is finite.
void sample_of(struct sample *out, const struct study *s, const json_t *from, const char *task,
               const char *method, double rank, const struct figure *f);
// out <- a - b of the seeds that are in both.
void sample_minus(struct sample *out, const struct sample *a, const struct sample *b);
double sample_mean(const struct sample *x);  // NaN: empty
double sample_error(const struct sample *x); // the mean's standard error; NaN: fewer than two

// The names under `key` in lines of `from`, each once, in the order of their first line. Borrowed from it.
int64_t names_in(const char **out, int64_t most, const json_t *from, const char *key);

// The base on a target task or on the mix. NULL: not measured yet.
const json_t *base_on(const struct study *s, const char *task);
// The share of expert e in a layer, of a line with `use`.
double use_of(const json_t *line, size_t layer, size_t expert);
size_t layers_in(const json_t *line);
size_t experts_in(const json_t *line);
// order (E) <- experts of a layer by use, the most used first (ties: the lower id).
void order_of(size_t *order, const json_t *line, size_t layer);

// What the choice of an expert tells about the kind of text, all kinds alike frequent, in bits: I = sum_k sum_e
// (p(e|k) / K) log2(p(e|k) / p(e)), p(e) the mean over the K kinds; log2 K at most. `model`: "model" or "random".
double kinds_information(const struct study *s, const char *model, size_t layer);
// The line of a kind under a model. NULL: none.
const json_t *kind_line(const struct study *s, const char *model, const char *kind);
// Of all kinds, alike frequent, the one that has most of an expert's use, and its part of it; -1: unused.
int64_t owner_of(const struct study *s, const char *model, size_t layer, size_t expert,
                 double *part);
