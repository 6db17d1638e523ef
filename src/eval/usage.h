// eval/usage.h - how much a model uses each of its experts on a data set.
#pragma once
#include "eval/score.h"
#include "tuning/usage.h"

struct usage_options {
    int64_t batch_tokens; // of a micro-batch; the model takes as many, or all of the data at once
    int64_t tokens;       // micro-batches of the shuffled data until so many were seen; 0: all
    uint64_t seed;        // of that order, which is the first pass of a training run with this seed
};

// Opens u; close it. seen: tokens that the sums are over.
bool usage_on_data(struct expert_usage *u, int64_t *seen, struct model *m, const struct dataset *d,
                   const struct usage_options *o, const struct score_listener *l,
                   struct error *err);
