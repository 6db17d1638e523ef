// tuning/tuning.h - which weights learn, and in what shape. A weight is one tensor of the checkpoint; a
// bank is a linear: G matrices of one shape (G = 1 in attention, E in the experts). A policy turns
// weights and banks into leaves; the optimizer, clipping and checkpoints know only leaves. Must not
// know routing, model internals or training.
#pragma once
#include "base/arena.h"
#include "base/error.h"
#include "base/leaf.h"
#include "model/config.h"
#include "ops/ops.h"

// One tensor of the checkpoint.
struct weight {
    char name[NAME_MAX_LENGTH];
    struct tensor stored; // mapped, read-only, in its stored type, possibly unaligned
    struct tensor value;  // what the forward pass reads: stored, or a leaf's copy or master
    struct tensor grad;   // F32, absent when frozen
    bool learns;          // whole, as tuning_choose decided
    enum dtype copy_type; // type of the working copy if it learns; F32: the master serves
    int64_t leaf;         // index of its leaf, -1 if frozen
};

struct weights {
    struct weight *weight;
    int64_t count, capacity;
};

struct tuning;

// A linear: G matrices of one shape (G = 1 in attention, E in the experts), applied to rows sorted by
// group. `value` and `grad` are bound by the model after the policy has attached.
struct bank {
    char name
        [NAME_MAX_LENGTH]; // "model.layers.3.mlp.experts.*.gate_proj"; for adapters and messages
    int64_t groups, out,
        in;              // W_g is (out, in), as torch stores it; groups 0: there is no such bank
    int64_t first_group; // of a view of some groups: where they begin in the whole bank
    struct matrix_source {
        int64_t weight;          // index in weights
        int64_t offset;          // first element within it
    } * source;                  // (groups)
    int64_t bias;                // weight index of the (out) bias, -1: none
    struct matrices value, grad; // grad.data NULL: frozen; a NULL pointer in it: that group is
    struct tensor bias_value, bias_grad;
    const struct tuning *tuning; // whose hooks apply; NULL: the weights themselves
    void *adapter;               // the policy's own state for this bank
};

// What the user chose; every field an option of the command line.
struct tuning_options {
    const char *train;  // comma-separated globs over Hugging Face names that learn besides; NULL
    const char *freeze; // globs that stay frozen; beats train; NULL
};

struct tuning {
    const char *name, *help;
    // Does this weight learn whole? Asked once for every weight, before the globs are applied.
    bool (*learns)(const struct weight *w, const struct model_config *c);
    // Adapter leaves of a bank, appended to `out`. NULL: none.
    bool (*attach)(struct bank *w, struct leaves *out, struct arena *a,
                   const struct tuning_options *r, struct error *err);
    // y (R,out) += the adapter's share (lora, dora). NULL: the weights themselves train.
    void (*forward)(const struct ops *o, const struct bank *w, struct tensor y, struct tensor x,
                    struct tensor offsets);
    // The backward pass in two parts, so that dx may lie where x lay: leaf gradients += first,
    void (*dweight)(const struct ops *o, struct bank *w, struct tensor dy, struct tensor x,
                    struct tensor offsets);
    // then dx += the adapter's share.
    void (*dinput)(const struct ops *o, const struct bank *w, struct tensor dx, struct tensor dy,
                   struct tensor offsets);
    // Folds the adapter into the bank's weights, so that any Hugging Face reader can load them.
    void (*merge)(const struct ops *o, struct bank *w);
};

extern const struct tuning *const tunings[]; // NULL-terminated registry
const struct tuning *tuning_find(const char *name, struct error *err);

// Sets `learns` of every weight: what the policy says, then the globs (an entry that matches nothing is
// an error). t == NULL: nothing learns.
bool tuning_choose(const struct tuning *t, struct weights *w, const struct model_config *c,
                   const struct tuning_options *r, struct error *err);
// Appends a leaf for each weight that learns whole and, on a placing run, fills its master from the
// stored values. Call with a measuring arena, then with a placing one.
bool tuning_leaves(struct weights *w, const struct ops *o, struct leaves *out, struct arena *a,
                   struct error *err);
bool glob_match(const char *pattern, const char *name); // '*' any run, '?' one character
