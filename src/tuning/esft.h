// tuning/esft.h - which experts ESFT chooses, as arithmetic (esft_select.c) and as a file (esft_file.c), and the
// policy that observes a model to choose them (esft_scores.c). METHODS, "esft"; arXiv 2407.01906.
#pragma once
#include "tuning/tuning.h"
#include "tuning/usage.h"

// What learns: for each layer that has experts some of them, most used first.
struct esft_selection {
    int64_t layers, experts; // capacity
    int32_t *expert;         // (layers, experts): the first `count` of a layer
    int64_t *count;          // (layers); -1: the layer has no experts
    bool shared_experts;     // all shared experts learn
    bool non_expert_modules; // and so does all that is no expert
};
bool esft_selection_open(struct esft_selection *s, int64_t layers, int64_t experts,
                         struct error *err);
void esft_selection_close(struct esft_selection *s); // safe after a failed open, and twice
int64_t esft_selection_total(const struct esft_selection *s);

// score (E): shares of the sum of x (E), rounded to 4 decimals. False: there are none (sum 0, or not finite).
bool esft_scores(double *score, const double *x, int64_t E);
// Experts in descending score (ties: the lower first) while their sum is below top_p. Returns how many.
int64_t esft_choose(int32_t *expert, const double *score, int64_t E, double top_p);
// More than so many of E experts can never be chosen.
int64_t esft_at_most(double top_p, int64_t E);
// Opens and fills the layers of `s` from usage by a score (enum esft_score).
bool esft_select(struct esft_selection *s, const struct expert_usage *u, int score, double top_p,
                 struct error *err);

// expert_cfg.json. Reading opens `s`, and refuses what does not fit the model.
bool esft_selection_read(struct esft_selection *s, const char *path, const struct model_config *c,
                         struct error *err);
bool esft_selection_write(const struct esft_selection *s, const char *path, struct error *err);

// The stage before: nothing moves, the use of experts is summed, its end writes expert_cfg.json.
extern const struct tuning tuning_esft_scores;
