// eval/prune.h - what a model loses without some of its experts: the router is restricted to the rest, in every layer
// as many (routing/subset.h), and loss and accuracy are measured again (docs/METHODS.md, "experts").
#pragma once
#include "eval/usage.h"
#include "routing/subset.h"

enum prune_order {
    PRUNE_LEAST,
    PRUNE_MOST
}; // which experts go first: the least used, or the most used

struct prune_point {
    enum prune_order order;
    double percent;  // of a layer's experts, as asked for
    int64_t dropped; // experts of each layer
    double loss;     // mean over the supervised tokens
    double
        accuracy; // share of those whose target is the most likely token after the true text before it
    int64_t tokens; // supervised
};

struct pruning {
    struct model *m;
    const struct dataset *data;
    struct usage_options how;
    const double *use; // (L,E) what the order is by
    struct packing packing;
    struct batch batch;
    struct routing_subset subset;
    const struct routing *own;
    struct routing_state *own_state;
    int32_t *order, *list; // (E) scratch
};

// Experts of E that `percent` of them are: rounded down.
int64_t prune_count(double percent, int64_t E);
// Are so many left that a token can still take K? `option` begins the message.
bool prune_leaves_enough(double percent, const struct model_config *c, const char *option,
                         struct error *err);
// On the same micro-batches as usage_on_data with these options. The model computes as before after prune_close.
bool prune_open(struct pruning *p, struct model *m, const struct dataset *d,
                const struct usage_options *how, const double *use, struct error *err);
void prune_close(struct pruning *p); // safe after a failed open, and twice
// out->order and percent say what is dropped.
bool prune_measure(struct prune_point *out, struct pruning *p, const struct score_listener *l,
                   struct error *err);
