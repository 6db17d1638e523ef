// train/optimizer.h - AdamW with clipping by global norm over a list of leaves. Knows no method and no
// model: only leaves and ops.
#pragma once
#include "base/leaf.h"
#include "ops/ops.h"
#include "train/train.h"

struct optimizer {
    const struct ops *ops;
    struct tensor sum; // (1) F64 on the backend
};

// What an update is made with.
struct update {
    const struct optimizer *optimizer;
    const struct leaves *leaves;
    const struct train_options *options;
    double lr;
    int64_t n; // of the update
};

bool optimizer_open(struct optimizer *o, const struct ops *ops, struct error *err);
void optimizer_close(struct optimizer *o); // safe after a failed open, and twice
// Can the backend keep leaves so?
bool optimizer_check(const struct ops *ops, const struct leaf_storage *s, struct error *err);

// The global norm of all gradients; one download. Not finite if any gradient is not.
double optimizer_grad_norm(struct optimizer *o, const struct leaves *l);
// What gradients are multiplied by so that their norm is at most clip (0: no limit), as
// torch.nn.utils.clip_grad_norm_ does.
double optimizer_clip_scale(double norm, double clip);
// Can a float hold the squares of gradients of this norm, once scaled? If not, a step would leave
// infinite moments.
bool optimizer_norm_usable(double norm, double clip);
// The n-th update (from 1) of every leaf.
void optimizer_update(const struct optimizer *o, const struct leaves *l,
                      const struct train_options *t, double lr, double scale, int64_t n);
void optimizer_reset(const struct optimizer *o, const struct leaves *l); // moments to 0
void optimizer_zero_grad(const struct optimizer *o, const struct leaves *l);
// NULL if every value (and moment, if asked for) is finite, else the name of a leaf where one is not.
const char *optimizer_not_finite(struct optimizer *o, const struct leaves *l, bool moments);

// The update within a backward pass (leaf_storage.shared_gradients), section by section: leaves of a complete
// section are moved and their gradients set to 0. The same bytes as optimizer_update without clipping. The
// norm of all gradients is known only afterwards, from fused_update_norm, which waits for the backend: if it
// is not usable then leaves have moved that should not have.
void fused_update_begin(struct update *f);
void fused_update_section(void *f, int64_t section); // a gradient_watcher's `complete`
double fused_update_norm(struct update *f);
