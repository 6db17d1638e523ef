// routing/densemixer.c - DenseMixer (METHODS, "densemixer"; Yao et al. 2025): the value of topk, and a
// straight-through gradient over all experts. In training a token has S = E slots: the K chosen ones first,
// in topk's order, then the rest with weight 0, of which the backward pass computes
//   d_e = <dL/dy, FFN_e(x)> = dweight, for every e
// Without renormalisation dL/dp_e = d_e. With it, n = sum of p over S (a constant outside S):
//   dL/dp_e = (d_e - sum_{j in S} d_j p_j / n) / n in S,   d_e / n outside
// Evaluation and generation are plain topk.
#include "routing/gates.h"
#include "routing/policies.h"

#include "base/mem.h"

struct routing_state {
    struct gates gates;
    int64_t experts, experts_per_tok;
    struct tensor chosen; // (max N, K) I32 scratch
    struct tensor weight; // (max N, K) F32 scratch
};

static bool open_state(struct routing_state **out, const struct ops *o,
                       const struct model_config *c, const struct routing_options *r,
                       int64_t max_tokens, struct arena *a, struct leaves *leaves,
                       struct error *err)
{
    (void)r, (void)leaves;
    struct routing_state *st = *out ? *out : mem_zalloc(1, sizeof *st);
    if (!st) return fail(err, "no memory for the routing's state");
    *out = st;
    st->experts = c->n_experts;
    st->experts_per_tok = c->experts_per_tok;
    gates_open(&st->gates, o, c, max_tokens, c->experts_per_tok, a);
    st->chosen = arena_2d(a, DTYPE_I32, max_tokens, c->experts_per_tok);
    st->weight = arena_2d(a, DTYPE_F32, max_tokens, c->experts_per_tok);
    return true;
}

static void close_state(struct routing_state *st)
{
    mem_free(st);
}

static int64_t slots(const struct routing_state *st, int64_t layer, bool training)
{
    (void)layer;
    return training ? st->experts : st->experts_per_tok;
}

static int64_t active(const struct routing_state *st, int64_t layer)
{
    (void)layer;
    return st->experts_per_tok;
}

static void select_slots(struct routing_state *st, const struct route *route,
                         const struct route_input *in)
{
    const struct ops *o = st->gates.ops;
    const int64_t N = in->z.dim[0];
    const struct tensor p = gates_probabilities(&st->gates, in->z);
    const struct tensor chosen = tensor_rows(st->chosen, 0, N);
    const struct tensor weight = tensor_rows(st->weight, 0, N);
    o->topk(route->expert, p); // all of them in order, in training
    o->take_columns(chosen, route->expert, 0);
    gates_forward(&st->gates, weight, p, chosen);
    o->zero(route->weight);
    o->place_columns(route->weight, weight, 0);
}

static void backward(struct routing_state *st, struct tensor dz, struct tensor dx,
                     struct tensor dweight, const struct route *route, const struct route_input *in)
{
    (void)dx;
    const struct ops *o = st->gates.ops;
    const int64_t N = in->z.dim[0];
    const struct tensor p = gates_probabilities(&st->gates, in->z);
    if (st->gates.renormalize) {
        const struct tensor chosen = tensor_rows(st->chosen, 0, N);
        o->take_columns(chosen, route->expert, 0);
        gates_forward(&st->gates, tensor_rows(st->weight, 0, N), p, chosen); // for the sum
        o->normalize_backward_through(dweight, dweight, route->weight,
                                      tensor_rows(st->gates.sum, 0, N));
    }
    o->pick_backward(dz, dweight, route->expert);
    o->softmax_backward(dz, dz, p);
}

const struct routing routing_densemixer = {
    .name = "densemixer",
    .help = "topk; the router learns from every expert",
    .needs_experts = true,
    .zero_slots = true,
    .open = open_state,
    .close = close_state,
    .slots = slots,
    .active = active,
    .select = select_slots,
    .backward = backward,
};
