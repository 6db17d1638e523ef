// model/layer.h - the parts of one block: which weights and banks it is made of. Internal to model/.
#pragma once
#include "model/families.h"
#include "model/model.h"

// A gated MLP: down(silu(gate x) * up x), as one expert, a bank of experts, or a dense layer.
struct mlp {
    struct bank gate, up, down;
};

struct layer {
    int64_t index;
    bool moe;
    int64_t input_norm, post_norm, q_norm, k_norm; // weight indices, -1: none
    struct bank q, k, v, o;
    struct mlp dense;   // where moe is false
    struct bank router; // (E,C)
    struct mlp experts; // G = E
    struct mlp shared;  // groups 0: none
    struct bank
        shared_gate; // (1,C): its output is scaled by sigmoid(shared_gate x); groups 0: it is not
    struct tensor cache_k, cache_v; // (cache_rows, G*D)
};

// weights.c: from names to banks. Every tensor that the family needs must be there in the right shape,
// and every tensor that is there must be needed.
bool weights_collect(struct model *m, const struct family *f, struct error *err);
void weights_free(struct model *m);
// Pointers of every bank, after the leaves have been placed; `a` holds the pointer tables.
void weights_bind(struct model *m, struct arena *a);
// Calls fn for every bank of a layer.
void layer_each_bank(struct layer *l, void (*fn)(struct bank *b, void *user), void *user);

// memory.c: the arenas, measured before; what cannot be had is an error that says who holds what.
bool memory_obtain(struct model *m, struct error *err);
void memory_release(struct model *m);

// linear.c: y = x W^T + bias + adapter, by group; and back, in the two parts of tuning.h. dx may be absent.
void linear_forward(const struct ops *o, const struct bank *b, struct tensor y, struct tensor x,
                    struct tensor offsets);
void linear_dweight(const struct ops *o, struct bank *b, struct tensor dy, struct tensor x,
                    struct tensor offsets);
void linear_dinput(const struct ops *o, const struct bank *b, struct tensor dx, struct tensor dy,
                   struct tensor offsets, bool accumulate);
bool linear_learns(const struct bank *b);
// The bank's own matrices and nothing besides, forward and back: ops may join it with what is around it.
bool linear_is_product(const struct bank *b);

// adapter.c: opens setup.adapter, checks that it fits this base, and lets the whole weights in it take the
// place of the stored ones; later loads the values of the policy's own leaves.
bool adapter_open(struct model *m, struct error *err);
bool adapter_load(struct model *m, struct error *err);
void adapter_close(struct model *m);
struct tuning_input tuning_input(const struct model *m);

// A norm's weight and its gradient.
struct tensor weight_value(const struct model *m, int64_t index);
struct tensor weight_grad(const struct model *m, int64_t index);

// attention.c, mlp.c: a half of a block each. x (N,C) is the residual stream, y = x + f(norm(x)); an
// absent y asks for what the backward pass needs and no more. backward: dy (N,C) becomes dx in place, unless
// nothing before it learns (input false).
struct layer_acts;
void attention_block_forward(struct model *m, struct layer *l, struct layer_acts *a);
void attention_block_backward(struct model *m, struct layer *l, struct layer_acts *a,
                              struct tensor dy);
void mlp_block_forward(struct model *m, struct layer *l, struct layer_acts *a, struct tensor y,
                       bool route_again);
void mlp_block_backward(struct model *m, struct layer *l, struct layer_acts *a, struct tensor dy,
                        bool input);
// The routed half of an MoE block (moe.c): y (N,C) = sum of the experts' outputs; dx (N,C) overwritten, or
// absent.
void moe_forward(struct model *m, struct layer *l, struct layer_acts *a, struct tensor y,
                 bool route_again);
void moe_backward(struct model *m, struct layer *l, struct layer_acts *a, struct tensor dx,
                  struct tensor dy);

// pass.c: what a forward counts of one MoE layer: rows of each expert, in training the router's losses.
void model_count_layer(struct model *m, int64_t layer, struct tensor z, struct tensor offsets);
// pass.c: the supervised targets of a batch and their rows, to the backend; returns how many.
int64_t model_upload_targets(struct model *m, const struct batch *b);
