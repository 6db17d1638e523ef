// tuning/low_rank.h - what lora and dora share: a pair of small matrices beside each bank, where it lies, and the
// products that both make with it. One pair of leaves a bank: A (G*r, in) and B (G*out, r), a pair of matrices
// for each group. Nothing of the size of W is ever formed but by a merge.
#pragma once
#include "tuning/tuning.h"

// An alpha beyond them gives a factor that float32 does not hold.
static const double low_rank_least_alpha = 1e-30, low_rank_most_alpha = 1e30;

struct half {                     // A or B
    struct tensor value, grad;    // of the leaf, F32; grad absent where nothing learns
    struct tensor used;           // the working copy, or the master
    struct matrices read, master; // what is used and the master, as products see them
    struct matrices dweight;      // the gradient
};

struct pair {
    struct bank *bank;
    struct tuning_state *all;
    int64_t index; // of the bank among all: what is drawn at random depends on it
    int64_t rank;  // r
    double alpha;  // as it was given
    float scale;   // alpha / r, or alpha / sqrt r
    int64_t place; // among the pairs of its layer
    struct half a, b;
    struct tensor
        h; // (rows, r) scale * x' A^T, kept from the forward pass; absent where nothing learns
    struct tensor dh;     // (rows, r) scale * dy B; shared by the pairs of one place
    struct tensor output; // dora: (rows, out) V x', kept from the forward pass
    bool has_output;      // of the pass under way: no pair with the same room has written since
    bool has_dh;          // of the pass under way
    const struct st_entry *from[2]; // of A and B, where the adapter's file has them fused; NULL

    // dora, (G,out) F32
    struct tensor magnitude, dmagnitude; // of the leaf
    struct tensor squares;               // of the rows of W
    struct tensor scaling, inverse;      // c = magnitude / |v|; 1 / |v|
    struct tensor rest, through;         // (c - 1) / (1 - p), that plus 1
    struct matrices gram;                // A A^T, in scratch
};

struct tuning_state {
    const struct ops *ops;
    bool dora, learns;
    bool share;    // pairs of one place share their output's room
    bool fresh;    // values were drawn, not read
    bool measured; // rows of W are squared
    uint64_t seed, pass;
    float dropout;
    bool dropping; // the pass under way drops out
    bool rslora;
    struct pair *pair; // in the order of banks
    int64_t n_pairs;
    enum dtype compute;
    struct tensor hidden;        // scratch for h or dh of a view
    struct tensor input;         // scratch (rows, in); absent without dropout
    struct tensor output;        // scratch (rows, out), dora's
    struct tensor wa, baa, gram; // scratch of dora's refresh, F32
};

// A pair as one call of a hook sees it: of a whole bank, or of a view.
struct part {
    struct pair *pair;
    bool whole;
    struct matrices a, b;
    struct dropout drop;
};
struct part low_rank_part(const struct bank *w);
// x' (R,in): x, or x with dropout in scratch.
struct tensor low_rank_input(const struct part *p, struct tensor x);
// h = scale * x' A^T, kept where the bank is whole.
struct tensor low_rank_hidden(const struct part *p, struct tensor x, struct tensor offsets);
// Is dh there already? Then sets it.
bool low_rank_has_dhidden(const struct part *p, int64_t rows, struct tensor *dh);
// What the forward pass kept.
struct tensor low_rank_kept(const struct part *p, struct tensor x);
// dh = scale * dy B. Between two forward passes dy is one and the same: it is computed once.
struct tensor low_rank_dhidden(const struct part *p, struct tensor dy, struct tensor offsets);
// A view of a scratch as rows.
struct tensor low_rank_rows(struct tensor scratch, int64_t rows, int64_t cols);

// Hooks that both have; the rest is in lora.c and dora.c.
bool low_rank_check(const struct tuning_options *r, const struct model_config *c,
                    struct error *err);
bool low_rank_learns(const struct tuning_state *st, const struct weight *w);
bool low_rank_open(struct tuning_state **st, const struct tuning_input *in, bool dora,
                   struct arena *a, struct leaves *out, struct error *err);
void low_rank_close(struct tuning_state *st);
void low_rank_begin(struct tuning_state *st, uint64_t pass, bool training);
bool low_rank_tensors(const struct tuning_state *st, adapter_visitor fn, void *user,
                      struct error *err);
// w (out,in) F32 += scale * B A of a group.
bool low_rank_merge(const struct pair *p, int64_t group, float *w, struct error *err);

// low_rank_file.c: adapter_config.json.
bool low_rank_write(const struct tuning_state *st, const struct tuning_input *in, const char *dir,
                    struct error *err);
bool low_rank_describe(const struct tuning_state *st, const struct tuning_input *in, json_t *about,
                       struct error *err);
bool low_rank_read(bool *mine, struct tuning_options *r, bool dora, const char *dir,
                   struct error *err);
// low_rank_load.c: which banks have a pair in the adapter's file, of which rank, in which layout.
bool low_rank_find_pairs(struct tuning_state *st, const struct tuning_input *in, struct error *err);
// On a placing run: the values of pairs that the file has fused.
bool low_rank_load_fused(struct pair *p, struct error *err);
// Appends a pair for a bank (room for all banks is there).
struct pair *low_rank_add(struct tuning_state *st, const struct tuning_input *in, int64_t bank,
                          int64_t rank, double alpha);

// What the formats of both have in common: the file, and who writes it.
#define LOW_RANK_FORMAT                                                                            \
    .file = "adapter_model.safetensors", .prefix = "base_model.model.", .write = low_rank_write,   \
    .describe = low_rank_describe, .tensors = low_rank_tensors
