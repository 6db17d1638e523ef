// train/optimizer.h - AdamW with clipping by global norm over a list of leaves. Knows no method and no
// model: only leaves and ops. A step's calls, in this order, and only the last waits for the backend:
//   optimizer_measure   the gradients' norm, and by it and the loss what they are multiplied by
//   optimizer_update    the leaves move by them, unless the step is not usable; gradients are 0 again
//   optimizer_outcome   the norm, and whether the leaves moved
#pragma once
#include "base/leaf.h"
#include "ops/ops.h"
#include "train/train.h"

struct optimizer {
    const struct ops *ops;
    const struct leaves *leaves;
    struct leaf_list *list; // one of all leaves; where they share gradients, one of each section
    int64_t lists;
    void *numbers;         // on the backend, what follows:
    struct tensor squares; // (1) F64: of the gradients
    struct tensor scale;   // (1) F32: of clip_scale
    struct tensor last;    // (1) F32: the same by the norm of an update within the backward pass
};

// What an update within a backward pass is made with.
struct update {
    const struct optimizer *optimizer;
    const struct train_options *options;
    double lr;
    int64_t n; // of the update
};

// Over the leaves of an allocated model: opened again when another one is allocated.
bool optimizer_open(struct optimizer *o, const struct ops *ops, const struct leaves *l,
                    struct error *err);
void optimizer_close(struct optimizer *o); // safe after a failed open, and twice
// Of the backend's memory, for the plan.
size_t optimizer_bytes(const struct ops *ops, const struct leaves *l);

// loss (1) F64 on the backend: a step without a finite one is not usable; absent: not asked. clip 0: no limit.
void optimizer_measure(const struct optimizer *o, struct tensor loss, double clip);
// The n-th update (from 1) of every leaf.
void optimizer_update(const struct optimizer *o, const struct train_options *t, double lr,
                      int64_t n);
// Was the step usable? If not, no leaf has moved. May be asked once it is measured.
bool optimizer_outcome(const struct optimizer *o, double *norm);
void optimizer_reset(const struct optimizer *o); // moments to 0
// NULL if every value (and moment, if asked for) is finite, else the name of a leaf where one is not.
const char *optimizer_not_finite(const struct optimizer *o, bool moments);

// The update within a backward pass (leaf_storage.shared_gradients), section by section: leaves of a complete
// section are moved and their gradients set to 0. The same bytes as optimizer_update without clipping. Nothing
// moves where the loss is not finite; gradients that are not usable although it is show only at the end.
enum fused_outcome {
    FUSED_MOVED,
    FUSED_SKIPPED,
    FUSED_SPOILT
}; // SPOILT: leaves moved by such gradients
void fused_update_begin(const struct update *f, struct tensor loss);
void fused_update_section(void *f, int64_t section); // a gradient_watcher's `complete`
enum fused_outcome fused_update_outcome(const struct update *f, double *norm); // waits
