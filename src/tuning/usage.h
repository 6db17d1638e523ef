// tuning/usage.h - how much the experts of each layer are used: the slots of routes that named them, and the
// weights of those slots. Counted on the backend, or filled from elsewhere. Must not know what for.
#pragma once
#include "base/error.h"
#include "ops/ops.h"

// In host memory; sums over all tokens so far, (layers, experts) each. A layer without slots has no experts.
struct expert_usage {
    int64_t layers, experts;
    double *slots, *mass;
};
bool expert_usage_open(struct expert_usage *u, int64_t layers, int64_t experts, struct error *err);
void expert_usage_close(struct expert_usage *u); // safe after a failed open, and twice
double expert_usage_slots(const struct expert_usage *u, int64_t layer); // of all experts

// On the backend: (layers, experts) F64 each, zero at first; memory is the owner's.
struct usage_counter {
    const struct ops *ops;
    struct tensor slots, mass;
};
// The route of a layer: expert (N,S) I32, weight (N,S) F32.
void usage_counter_add(const struct usage_counter *c, int64_t layer, struct tensor expert,
                       struct tensor weight);
void usage_counter_take(struct expert_usage *u, const struct usage_counter *c); // of its shape
