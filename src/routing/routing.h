// routing/routing.h - how tokens reach experts, and what the router learns from. A route is data: S
// expert slots per token, each with the weight its output gets. A slot of weight 0 adds nothing to the
// output and sends no gradient into the expert, so the forward pass skips it; the backward pass owes it
// only dweight, from which the router learns. That one rule makes every policy the same to model/moe.c:
//   topk        S = K      the K best, weights from the scores
//   condenser   S = K + r  (or K in all) the routed ones, then the layer's r always-on experts
//   densemixer  S = E      every expert, weight 0 outside the K best (straight-through router)
// Must not know tuning, the model's other parts, or training.
#pragma once
#include "base/arena.h"
#include "base/error.h"
#include "base/leaf.h"
#include "model/config.h"
#include "ops/ops.h"

// The route of one layer for one micro-batch; on the backend's memory, kept for the backward pass.
struct route {
    struct tensor expert; // (N,S) I32
    struct tensor weight; // (N,S) F32
};

// What a policy sees of one layer for one micro-batch.
struct route_input {
    int64_t layer;      // index among all layers of the model
    struct tensor x;    // (N,C) the block's input, normed
    struct tensor z;    // (N,E) F32 router logits, kept for the backward pass
    struct tensor real; // (N) I32: 1 for a token, 0 for padding; absent: all are tokens
    bool training;      // false in evaluation and generation: no counting, no state changes
};

// What the user chose; every field an option of the command line.
struct routing_options {
    int unused; // topk has none
};

struct routing_state; // owned by the policy

struct routing {
    const char *name, *help;
    // Per-layer buffers (bias, counts, condensers) in the arena and leaves of its own (a condenser's
    // gate). max_tokens: the largest N of a call. Runs with a measuring arena, then a placing one.
    bool (*open)(struct routing_state **st, const struct ops *o, const struct model_config *c,
                 const struct routing_options *r, int64_t max_tokens, struct arena *a,
                 struct leaves *out, struct error *err);
    void (*close)(struct routing_state *st);
    int64_t (*slots)(const struct routing_state *st, int64_t layer, bool training); // S of this layer
    // route <- input. Written in ops, so one policy runs on every backend.
    void (*select)(struct routing_state *st, const struct route *route,
                   const struct route_input *in);
    // dz (N,E) overwritten, dx (N,C) += (F32 or activations' type), from dweight (N,S),
    // dweight[n,s] = dL/dy[n] . expert_output[n,s] (may be overwritten). Nothing may be counted here.
    void (*backward)(struct routing_state *st, struct tensor dz, struct tensor dx,
                     struct tensor dweight, const struct route *route,
                     const struct route_input *in);
    // A loss over all layers of the micro-batch, its gradient to be added by backward(); NULL: none.
    double (*loss)(struct routing_state *st);
    void (*after_micro_batch)(struct routing_state *st); // NULL: nothing
    void (*after_step)(struct routing_state *st);        // NULL: nothing; moves the bias
    bool (*save)(const struct routing_state *st, const char *dir, struct error *err);
    bool (*load)(struct routing_state *st, const char *dir, struct error *err);
};

extern const struct routing *const routings[]; // NULL-terminated registry
const struct routing *routing_find(const char *name, struct error *err);
