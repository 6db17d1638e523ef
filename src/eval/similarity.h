// eval/similarity.h - how alike the experts of a layer are: mean cosines of their weights, and of what they put out
// for the same tokens (docs/METHODS.md, "experts"); within a model, and of each expert before and after training.
#pragma once
#include "model/model.h"

struct similarity {
    double own,
        base; // mean cosine of two experts of the model, of the base; NaN: no base, or no two experts
    double kept; // mean cosine of an expert with itself in the base; NaN: no base
};

// Sums of cosines from products: gram (E,E) of E vectors with each other. Returns how many pairs i < j were added; a
// vector of length 0 has cosine 0 with all.
int64_t similarity_add_pairs(double *sum, const float *gram, int64_t E);

// Of a vector of all matrices of an expert: gate, up, down, adapters merged. base (NULL: none): of the same shape.
bool similarity_of_weights(struct similarity *s, const struct model *m, const struct model *base,
                           int64_t layer, struct error *err);

// Outputs of all experts for rows of a layer's input, on the backend.
struct expert_outputs {
    const struct ops *ops;
    int64_t experts, width, block; // tokens at a time
    void *memory;
    size_t bytes;
    struct tensor y;       // (block * E, C) F32: expert e's for token n in row n * E + e
    struct tensor gram;    // (block * E, E) F32
    float *host_gram;      // the same in host memory
    float *host;           // (block * E, C) y there
    struct tensor one, of; // (block, C) of one expert, in activations' type and F32
    struct tensor expert, weight, row, offsets;
    void *table;   // (block) pointers to the tokens' rows of y
    int32_t *fill; // (block * 2) host scratch
};
bool expert_outputs_open(struct expert_outputs *o, const struct model *m, int64_t tokens,
                         struct error *err);
void expert_outputs_close(struct expert_outputs *o); // safe after a failed open, and twice
// FFN_e(x) for n <= block rows x (n,C) and every expert, and the products of those of a token with each other, into
// host and host_gram.
void expert_outputs_of(struct expert_outputs *o, struct model *m, int64_t layer, struct tensor x);
// Adds, over n tokens and all experts, the cosine of an expert's outputs in both.
void expert_outputs_kept(double *sum, const struct expert_outputs *a,
                         const struct expert_outputs *b, int64_t n);
