// model/moe.c - the routed experts of a block. A route is data (routing/routing.h): tokens are sorted by
// expert, each expert's matrices meet its contiguous rows, and the rows are summed back, already weighted.
// No branch on the policy that made the route.
//
// Backward, with dA' = dy W_down^T for a row's token (METHODS, "densemixer"; SonicMoE section 3):
//   dweight = <dA', silu(g) u>, so the experts' outputs are neither kept nor formed again.
#include "model/acts.h"

#include <assert.h>

static struct tensor hidden_like(const struct model *m, struct tensor gate)
{
    return tensor_2d(m->acts->hidden.data, gate.dtype, gate.dim[0], gate.dim[1]);
}

static struct tensor row_scratch(const struct model *m, struct tensor gate)
{
    return tensor_rows(m->acts->rows, 0, gate.dim[0]);
}

static struct route_input route_input(const struct model *m, const struct layer *l,
                                      const struct layer_acts *a)
{
    return (struct route_input){.layer = l->index,
                                .x = a->n2,
                                .z = a->z,
                                .real = tensor_absent(),
                                .training = m->acts->training};
}

// What ops may join, where the backend has such ops and the linears are nothing but products.
static bool joins_up(const struct ops *o, const struct mlp *p)
{
    return o->expert_up && linear_is_product(&p->gate) && linear_is_product(&p->up) &&
           p->gate.value.dtype == p->up.value.dtype;
}

static bool joins_dhidden(const struct ops *o, const struct mlp *p)
{
    return o->expert_dhidden && linear_is_product(&p->down);
}

static bool joins_dweight(const struct ops *o, const struct bank *b)
{
    return o->expert_dweight && linear_is_product(b);
}

// Rows of tokens, gathered when an op first needs them side by side.
struct gathered {
    struct tensor rows; // scratch
    const struct dispatch *d;
    const void *of; // whose rows lie there; NULL: nobody's
};

static struct tensor gather(const struct ops *o, struct gathered *r, struct tensor x)
{
    if (r->of != x.data) o->gather_tokens(r->rows, x, r->d);
    r->of = x.data;
    return r->rows;
}

// gate, up (R,F) of the dispatched rows of x, and unless it is absent their hidden layer, weighted.
static void hidden_forward(struct model *m, const struct mlp *p, const struct expert_hidden *out,
                           struct tensor x, struct tensor weight, const struct dispatch *d)
{
    const struct ops *o = m->setup.ops;
    if (joins_up(o, p)) {
        o->expert_up(out, x, &p->gate.value, &p->up.value, weight, d);
        return;
    }
    const struct tensor rows = row_scratch(m, out->g);
    o->gather_tokens(rows, x, d);
    linear_forward(o, &p->gate, out->g, rows, d->offsets);
    linear_forward(o, &p->up, out->u, rows, d->offsets);
    if (out->a.data) o->swiglu_forward(out->a, out->g, out->u, weight, d);
}

// Dispatched rows of x through their experts; y (N,C), or absent.
static void experts_forward(struct model *m, struct layer *l, struct layer_acts *a, struct tensor x,
                            struct tensor y)
{
    const struct ops *o = m->setup.ops;
    const struct dispatch *d = &a->dispatch;
    const struct tensor rows = row_scratch(m, a->gate), hidden = hidden_like(m, a->gate);
    const struct expert_hidden out = {a->gate, a->up, y.data ? hidden : tensor_absent()};
    l->experts.gate.rows = l->experts.up.rows = l->experts.down.rows = d;
    hidden_forward(m, &l->experts, &out, x, a->route.weight, d);
    if (!y.data) return;
    linear_forward(o, &l->experts.down, rows, hidden, d->offsets);
    o->combine_slots(y, rows, d, false);
}

void moe_forward(struct model *m, struct layer *l, struct layer_acts *a, struct tensor y,
                 bool route_again)
{
    const struct ops *o = m->setup.ops;
    if (route_again) {
        linear_forward(o, &l->router, a->z, a->n2, tensor_absent());
        const struct route_input in = route_input(m, l, a);
        m->setup.routing->select(m->routing_state, &a->route, &in);
        const struct tuning *t = m->setup.tuning;
        if (t && t->route) t->route(m->tuning_state, l->index, a->route.expert, a->route.weight);
        const struct route_watcher *w = &m->watcher;
        if (w->route) w->route(w->user, l->index, a->z, &a->route);
    }
    const struct dispatch *d = &a->dispatch;
    o->dispatch(d, a->route.expert, a->route.weight, false, 0);
    if (route_again) model_count_layer(m, l->index, a->z, d->offsets);
    experts_forward(m, l, a, a->n2, y);
}

void model_moe_output(struct model *m, int64_t layer, struct tensor x, const struct route *r,
                      struct tensor y)
{
    struct layer_acts a = m->acts->layer[layer]; // its memory, cut to this route's rows
    const int64_t N = r->expert.dim[0], S = r->expert.dim[1], R = N * S;
    assert(R <= a.gate.dim[0]);
    a.route = *r;
    a.gate = tensor_rows(a.gate, 0, R);
    a.up = tensor_rows(a.up, 0, R);
    a.dispatch.slot.dim[0] = R;
    a.dispatch.row = tensor_2d(a.dispatch.row.data, DTYPE_I32, N, S);
    m->setup.ops->dispatch(&a.dispatch, r->expert, r->weight, false, 0);
    experts_forward(m, &m->layer[layer], &a, x, y);
}

// The weights' gradients of a linear whose dy or x (N rows) is that of tokens.
static void tokens_dweight(const struct ops *o, struct bank *b, struct tensor dy, struct tensor x,
                           struct gathered *r, bool dy_is_tokens)
{
    if (!linear_learns(b)) return;
    if (joins_dweight(o, b)) {
        o->expert_dweight(&b->grad, dy, x, r->d, dy_is_tokens);
    } else if (dy_is_tokens) {
        linear_dweight(o, b, gather(o, r, dy), x, r->d->offsets);
    } else {
        linear_dweight(o, b, dy, gather(o, r, x), r->d->offsets);
    }
}

// Gradients of the experts; dweight (N,S) and dx (or absent) are overwritten.
static void experts_backward(struct model *m, struct mlp *p, struct layer_acts *a,
                             struct tensor dweight, struct tensor dx, struct tensor dy)
{
    const struct ops *o = m->setup.ops;
    const struct dispatch *d = &a->dispatch;
    const struct tensor rows = row_scratch(m, a->gate), hidden = hidden_like(m, a->gate);
    const struct swiglu_grads out = {a->gate, a->up, hidden, dweight};
    struct gathered r = {.rows = rows, .d = d};
    if (joins_dhidden(o, p)) {
        o->zero(dweight);
        o->expert_dhidden(&out, dy, &p->down.value, a->gate, a->up, a->route.weight, d);
    } else {
        linear_dinput(o, &p->down, hidden, gather(o, &r, dy), d->offsets, false);
        o->swiglu_backward(&out, hidden, a->gate, a->up, a->route.weight, d);
    }
    tokens_dweight(o, &p->down, dy, hidden, &r, true);
    tokens_dweight(o, &p->gate, a->gate, a->n2, &r, false);
    tokens_dweight(o, &p->up, a->up, a->n2, &r, false);
    if (!dx.data) return;
    linear_dinput(o, &p->gate, rows, a->gate, d->offsets, false);
    linear_dinput(o, &p->up, rows, a->up, d->offsets, true);
    o->combine_slots(dx, rows, d, false);
}

// Matrices [first, first + n) of a bank.
static struct bank some_groups(const struct bank *b, int64_t first, int64_t n,
                               const struct dispatch *rows)
{
    struct bank part = *b;
    part.rows = rows;
    part.first_group = first;
    part.groups = part.value.groups = n;
    part.value.data = b->value.data + first;
    return part;
}

// Slots of weight 0 owe the router their dweight = <dA', silu(g) u> and nothing else: two products in and
// one back, for as many experts at a time as fit where the layer's own rows lay.
static void zero_slots_backward(struct model *m, const struct mlp *p, struct layer_acts *a,
                                struct tensor dweight, struct tensor dy)
{
    const struct ops *o = m->setup.ops;
    const struct tensor rows = row_scratch(m, a->gate), hidden = hidden_like(m, a->gate);
    const int64_t E = m->config.n_experts, step = a->active;
    for (int64_t first = 0; first < E; first += step) {
        const int64_t n = E - first < step ? E - first : step;
        struct dispatch d = a->dispatch;
        d.offsets.dim[0] = n + 1;
        const struct mlp part = {some_groups(&p->gate, first, n, &d),
                                 some_groups(&p->up, first, n, &d),
                                 some_groups(&p->down, first, n, &d)};
        const struct expert_hidden out = {a->gate, a->up, tensor_absent()};
        o->dispatch(&d, a->route.expert, a->route.weight, true, first);
        hidden_forward(m, &part, &out, a->n2, tensor_absent(), &d);
        if (joins_dhidden(o, &part)) {
            const struct tensor none = tensor_absent();
            const struct swiglu_grads dot = {none, none, none, dweight};
            o->expert_dhidden(&dot, dy, &part.down.value, a->gate, a->up, none, &d);
            continue;
        }
        o->gather_tokens(rows, dy, &d);
        linear_dinput(o, &part.down, hidden, rows, d.offsets, false);
        o->swiglu_dot(dweight, hidden, a->gate, a->up, &d);
    }
}

void moe_backward(struct model *m, struct layer *l, struct layer_acts *a, struct tensor dx,
                  struct tensor dy)
{
    const struct ops *o = m->setup.ops;
    const struct tensor dweight =
        tensor_2d(m->acts->dweight.data, DTYPE_F32, dy.dim[0], a->route.expert.dim[1]);
    experts_backward(m, &l->experts, a, dweight, dx, dy);
    const bool router = dx.data || linear_learns(&l->router); // who asks for dz
    if (m->setup.routing->zero_slots && router) zero_slots_backward(m, &l->experts, a, dweight, dy);
    const struct route_input in = route_input(m, l, a);
    const struct tensor dz = m->acts->dz, all = tensor_absent();
    m->setup.routing->backward(m->routing_state, dz, dx, dweight, &a->route, &in);
    if (router_losses_on(&m->router_losses)) {
        router_losses_backward(&m->router_losses, dz, a->z, m->router_loss_weight);
    }
    linear_dweight(o, &l->router, dz, a->n2, all);
    linear_dinput(o, &l->router, dx, dz, all, true);
}
