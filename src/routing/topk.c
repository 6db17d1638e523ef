// routing/topk.c - what the checkpoint was trained with (METHODS, "topk"): with p = softmax(z),
//   S(t) = the K largest p (ties: the lower index),  g_e = p_e, or p_e / sum over S of p
// The gradient flows through g, not through the choice.
#include "routing/policies.h"

#include "base/mem.h"

struct routing_state {
    const struct ops *ops;
    int64_t experts_per_tok;
    bool renormalize;
    struct tensor p;      // (max N, E) scratch
    struct tensor picked; // (max N, K) scratch: p of the chosen
    struct tensor sum;    // (max N) scratch: their sum
};

static bool topk_open(struct routing_state **out, const struct ops *o, const struct model_config *c,
                      const struct routing_options *r, int64_t max_tokens, struct arena *a,
                      struct leaves *leaves, struct error *err)
{
    (void)r, (void)leaves;
    struct routing_state *st = *out ? *out : mem_zalloc(1, sizeof *st);
    if (!st) return fail(err, "no memory for the routing's state");
    *out = st;
    st->ops = o;
    st->experts_per_tok = c->experts_per_tok;
    st->renormalize = c->renormalize_topk;
    a->purpose = PURPOSE_SCRATCH;
    st->p = arena_2d(a, DTYPE_F32, max_tokens, c->n_experts);
    st->picked = arena_2d(a, DTYPE_F32, max_tokens, c->experts_per_tok);
    st->sum = arena_1d(a, DTYPE_F32, max_tokens);
    return true;
}

static void topk_close(struct routing_state *st)
{
    mem_free(st);
}

static int64_t topk_slots(const struct routing_state *st, int64_t layer, bool training)
{
    (void)layer, (void)training;
    return st->experts_per_tok;
}

static void topk_select(struct routing_state *st, const struct route *route,
                        const struct route_input *in)
{
    const struct ops *o = st->ops;
    const int64_t N = in->z.dim[0];
    const struct tensor p = tensor_rows(st->p, 0, N);
    o->softmax_forward(p, in->z);
    o->topk(route->expert, p);
    o->pick_forward(route->weight, p, route->expert);
    if (st->renormalize) {
        o->normalize_forward(route->weight, tensor_rows(st->sum, 0, N), route->weight);
    }
}

// p is computed again: N x E values are cheaper than keeping them for every layer.
static void topk_backward(struct routing_state *st, struct tensor dz, struct tensor dx,
                          struct tensor dweight, const struct route *route,
                          const struct route_input *in)
{
    (void)dx; // the choice sees x through z alone
    const struct ops *o = st->ops;
    const int64_t N = in->z.dim[0];
    const struct tensor p = tensor_rows(st->p, 0, N);
    o->softmax_forward(p, in->z);
    if (st->renormalize) {
        const struct tensor picked = tensor_rows(st->picked, 0, N);
        const struct tensor sum = tensor_rows(st->sum, 0, N);
        o->pick_forward(picked, p, route->expert);
        o->normalize_forward(picked, sum, picked);
        o->normalize_backward(dweight, dweight, picked, sum);
    }
    o->pick_backward(dz, dweight, route->expert);
    o->softmax_backward(dz, dz, p);
}

const struct routing routing_topk = {
    .name = "topk",
    .help = "the checkpoint's own: the K most probable experts",
    .open = topk_open,
    .close = topk_close,
    .slots = topk_slots,
    .select = topk_select,
    .backward = topk_backward,
};
