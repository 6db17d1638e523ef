// routing/gates.h - the step from a choice to slot weights and back, the same for all policies whose
// weights are router probabilities:  w_s = p[e_s], divided by their sum where the config says so.
#pragma once
#include "routing/routing.h"

struct gates {
    const struct ops *ops;
    bool renormalize;
    struct tensor p;      // (max N, E) scratch: probabilities of the layer at hand
    struct tensor picked; // (max N, S) scratch
    struct tensor sum;    // (max N) scratch
};

void gates_open(struct gates *g, const struct ops *o, const struct model_config *c,
                int64_t max_tokens, int64_t max_slots, struct arena *a);
// p (N,E) = softmax(z), in g's scratch.
struct tensor gates_probabilities(const struct gates *g, struct tensor z);
// weight (N,S) <- p at expert, renormalised.
void gates_forward(const struct gates *g, struct tensor weight, struct tensor p,
                   struct tensor expert);
void gates_renormalize(const struct gates *g, struct tensor weight);
// dz (N,E) <- dweight (N,S), which is overwritten.
void gates_backward(const struct gates *g, struct tensor dz, struct tensor dweight, struct tensor z,
                    struct tensor expert);
// dweight <- its gradient before renormalisation; raw (N,S): the weights before it.
void gates_renormalize_backward(const struct gates *g, struct tensor dweight, struct tensor raw);
