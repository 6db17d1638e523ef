// eval/compare.h - two models side by side on the same data, or one alone: how far the routers have drifted, how
// alike experts' outputs are (docs/METHODS.md, "experts"). A usage_observer of the model: for each micro-batch the
// base runs first, and of it is kept what the model's pass over the same micro-batch is compared with: nothing is
// kept beyond a micro-batch.
#pragma once
#include "eval/similarity.h"
#include "eval/usage.h"

struct layer_comparison {
    int64_t tokens; // compared
    double kl;      // mean over tokens of KL(p_base || p), in nats
    double
        changed; // share of the model's slots whose expert the base does not choose for that token
    struct similarity outputs;
};

struct comparison {
    struct model *model, *base;           // base NULL: outputs alone
    int64_t left;                         // tokens whose outputs are still to be looked at
    int64_t now;                          // of the micro-batch under way
    int64_t layers, experts, slots, most; // most: tokens of a micro-batch
    float *p;                             // (L, most, E) of the base, host
    int32_t *choice;                      // (L, most * slots) of the base
    int64_t *chosen;                      // (L) slots of a token
    float *z;                             // (most, E) host scratch
    int32_t *own;                         // (most * slots of the model) host scratch
    void *kept; // (L, output tokens, C) inputs of the base's layers, on the backend
    size_t kept_bytes;
    struct expert_outputs outputs, base_outputs;
    int64_t *pairs, *output_tokens; // (L)
    struct layer_comparison *layer; // (L) sums, until comparison_end
};

// Do the shapes of both go together? The error names both folders.
bool models_comparable(const struct model_config *m, const char *dir,
                       const struct model_config *base, const char *base_dir, struct error *err);
// output_tokens: 0: no outputs. Both models are allocated and take batches of max_tokens of `model`.
bool comparison_open(struct comparison *c, struct model *model, struct model *base,
                     int64_t output_tokens, struct error *err);
void comparison_close(struct comparison *c); // safe after a failed open, and twice
struct usage_observer comparison_observer(struct comparison *c);
void comparison_end(struct comparison *c); // sums become means; NaN where there is nothing
