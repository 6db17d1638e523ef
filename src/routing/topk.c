// routing/topk.c - what the checkpoint was trained with (METHODS, "topk"): with p = softmax(z),
//   S(t) = the K largest p (ties: the lower index),  g_e = p_e, or p_e / sum over S of p
// The gradient flows through g, not through the choice. `aux` is the same with the load-balancing loss of
// the checkpoint's config switched on; the loss itself stands in losses.c and goes with any routing.
#include "routing/gates.h"
#include "routing/policies.h"

#include "base/mem.h"

struct routing_state {
    struct gates gates;
    int64_t experts_per_tok;
};

static bool topk_open(struct routing_state **out, const struct ops *o, const struct model_config *c,
                      const struct routing_options *r, int64_t max_tokens, struct arena *a,
                      struct leaves *leaves, struct error *err)
{
    (void)r, (void)leaves;
    struct routing_state *st = *out ? *out : mem_zalloc(1, sizeof *st);
    if (!st) return fail(err, "no memory for the routing's state");
    *out = st;
    st->experts_per_tok = c->experts_per_tok;
    gates_open(&st->gates, o, c, max_tokens, c->experts_per_tok, a);
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
    const struct tensor p = gates_probabilities(&st->gates, in->z);
    st->gates.ops->topk(route->expert, p);
    gates_forward(&st->gates, route->weight, p, route->expert);
}

static void topk_backward(struct routing_state *st, struct tensor dz, struct tensor dx,
                          struct tensor dweight, const struct route *route,
                          const struct route_input *in)
{
    (void)dx; // the choice sees x through z alone
    gates_backward(&st->gates, dz, dweight, in->z, route->expert);
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

const struct routing routing_aux = {
    .name = "aux",
    .help = "topk with the load-balancing loss",
    .needs_experts = true,
    .needs_aux = true,
    .open = topk_open,
    .close = topk_close,
    .slots = topk_slots,
    .select = topk_select,
    .backward = topk_backward,
};
