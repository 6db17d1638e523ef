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
    struct tensor stored; // mapped, read-only, in its stored type
    struct tensor value;  // what the forward pass reads: stored, or a leaf's copy or master
    struct tensor grad;   // F32, absent when frozen
    int64_t leaf;         // index of its leaf, -1 if frozen
};

struct weights {
    struct weight *weight;
    int64_t count, capacity;
};

struct tuning;

// A linear. `value` and `grad` are rebuilt from the weights by the model after the policy has attached.
struct bank {
    char name[NAME_MAX_LENGTH]; // "model.layers.3.mlp.experts.*.gate_proj"
    int64_t groups, out, in;    // W_g is (out, in), as torch stores it
    struct matrix_source {
        int64_t weight; // index in weights
        int64_t offset; // first element within it
    } *source;          // (groups)
    int64_t bias;       // weight index of the (out) bias, -1: none
    struct matrices value, grad; // grad.data NULL: frozen
    const struct tuning *tuning; // whose hooks apply; NULL or hooks NULL: the weights themselves
    void *adapter;               // the policy's own state for this bank
};

// What the user chose; every field an option of the command line.
struct tuning_options {
    const char *train;  // comma-separated globs over Hugging Face names that learn besides; NULL
    const char *freeze; // globs that stay frozen; beats train; NULL
};

struct tuning {
    const char *name, *help;
    // Does this weight learn whole? Called once for every weight before the globs are applied.
    bool (*learns)(const struct weight *w, const struct model_config *c);
    // Adapter leaves of a bank, appended to `out`. NULL: none.
    bool (*attach)(struct bank *w, struct leaves *out, struct arena *a,
                   const struct tuning_options *r, struct error *err);
    // y (R,out) += the adapter's share (lora, dora). NULL: the weights themselves train.
    void (*forward)(const struct ops *o, const struct bank *w, struct tensor y, struct tensor x,
                    struct tensor offsets);
    // Leaf gradients +=, and dx += the adapter's share.
    void (*backward)(const struct ops *o, struct bank *w, struct tensor dx, struct tensor dy,
                     struct tensor x, struct tensor offsets);
    // Folds the adapter into the bank's weights, so that any Hugging Face reader can load them.
    void (*merge)(const struct ops *o, struct bank *w);
};

extern const struct tuning *const tunings[]; // NULL-terminated registry
const struct tuning *tuning_find(const char *name, struct error *err);

// The shared part of every policy: asks learns(), applies the globs (an entry that matches nothing is
// an error), appends a leaf for each weight that learns whole. Call with a measuring arena, then with a
// placing one and the same options. copy_type: the compute type of the run (F32: the master serves).
bool tuning_attach(const struct tuning *t, struct weights *w, const struct model_config *c,
                   const struct tuning_options *r, enum dtype copy_type, struct leaves *out,
                   struct arena *a, struct error *err);
bool glob_match(const char *pattern, const char *name); // '*' any run, '?' one character
