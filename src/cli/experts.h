// cli/experts.h - what `experts` found, and the forms it comes in: a table for people, lines of JSON, CSV, a page of
// charts. Filled by cmd_experts.c, written by experts_*.c.
#pragma once
#include "cli/output.h"
#include "eval/compare.h"
#include "eval/concentration.h"
#include "eval/prune.h"
#include "tuning/esft.h"

struct experts_result {
    const char *model, *base; // folders; NULL: none
    int score;                // enum esft_score: what tables and orders are by
    struct expert_usage usage;
    struct esft_selection selection; // layers 0: none asked for
    struct comparison comparison;    // layer NULL: none made
    struct similarity *weights;      // (L); NULL: not asked for
    struct prune_point *point;       // (n_points), those of an order one after another
    int64_t n_points;
};

// What the load of one layer is like, by tokens or by gates.
struct layer_load {
    struct concentration c;
    double *share;  // (E)
    int32_t *order; // (E) most used first
};
bool layer_load_open(struct layer_load *l, int64_t experts, struct error *err);
void layer_load_close(struct layer_load *l);
void layer_load_of(struct layer_load *l, const struct experts_result *x, int64_t layer, int score);
bool experts_in(const struct experts_result *x,
                int64_t layer); // the layer has experts that were used

// A number of a layer besides its load, by its name in JSON and CSV.
struct layer_value {
    const char *name, *help;
    double (*get)(const struct experts_result *x, int64_t layer); // NaN: not known
    bool of_base;                                                 // the value before, of the base
};
extern const struct layer_value layer_values[]; // ends with a NULL name
extern const char *const prune_order_names[];   // by enum prune_order

bool experts_print(const struct experts_result *x, FILE *f, struct error *err);
bool experts_json(const struct experts_result *x, struct output *io, struct error *err);
bool experts_csv(const struct experts_result *x, const char *path, struct error *err);
bool experts_page(const struct experts_result *x, const char *path, struct error *err);
