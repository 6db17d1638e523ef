// eval/usage.h - how much a model uses each of its experts on a data set.
#pragma once
#include "eval/score.h"
#include "tuning/usage.h"

// Who goes along: told of each micro-batch before the model's forward pass over it, and of each layer in that.
struct usage_observer {
    void *user;
    void (*batch)(void *user, const struct batch *b);
    void (*route)(void *user, int64_t layer, struct tensor z, const struct route *r);
};

struct usage_options {
    int64_t batch_tokens; // of a micro-batch; the model takes as many, or all of the data at once
    int64_t tokens;       // micro-batches of the shuffled data until so many were seen; 0: all
    uint64_t seed;        // of that order, which is the first pass of a training run with this seed
    const struct usage_observer *observer; // NULL: none
};

// Opens u; close it. seen: tokens that the sums are over.
bool usage_on_data(struct expert_usage *u, int64_t *seen, struct model *m, const struct dataset *d,
                   const struct usage_options *o, const struct score_listener *l,
                   struct error *err);
