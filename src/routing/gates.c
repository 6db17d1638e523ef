// routing/gates.c - see gates.h.
#include "routing/gates.h"

void gates_open(struct gates *g, const struct ops *o, const struct model_config *c,
                int64_t max_tokens, int64_t max_slots, struct arena *a)
{
    g->ops = o;
    g->renormalize = c->renormalize_topk;
    a->purpose = PURPOSE_SCRATCH;
    g->p = arena_2d(a, DTYPE_F32, max_tokens, c->n_experts);
    g->picked = arena_1d(a, DTYPE_F32, max_tokens * max_slots);
    g->sum = arena_1d(a, DTYPE_F32, max_tokens);
}

struct tensor gates_probabilities(const struct gates *g, struct tensor z)
{
    const struct tensor p = tensor_rows(g->p, 0, z.dim[0]);
    g->ops->softmax_forward(p, z);
    return p;
}

void gates_renormalize(const struct gates *g, struct tensor weight)
{
    if (!g->renormalize) return;
    g->ops->normalize_forward(weight, tensor_rows(g->sum, 0, weight.dim[0]), weight);
}

void gates_forward(const struct gates *g, struct tensor weight, struct tensor p,
                   struct tensor expert)
{
    g->ops->pick_forward(weight, p, expert);
    gates_renormalize(g, weight);
}

void gates_renormalize_backward(const struct gates *g, struct tensor dweight, struct tensor raw)
{
    if (!g->renormalize) return;
    const struct tensor sum = tensor_rows(g->sum, 0, raw.dim[0]);
    g->ops->normalize_forward(raw, sum, raw);
    g->ops->normalize_backward(dweight, dweight, raw, sum);
}

// p is computed again: N x E values are cheaper than keeping them for every layer.
void gates_backward(const struct gates *g, struct tensor dz, struct tensor dweight, struct tensor z,
                    struct tensor expert)
{
    const struct tensor p = gates_probabilities(g, z);
    if (g->renormalize) {
        const struct tensor raw =
            tensor_2d(g->picked.data, DTYPE_F32, dweight.dim[0], dweight.dim[1]);
        g->ops->pick_forward(raw, p, expert);
        gates_renormalize_backward(g, dweight, raw);
    }
    g->ops->pick_backward(dz, dweight, expert);
    g->ops->softmax_backward(dz, dz, p);
}
