// model/mlp.c - the second half of a block: norm, a gated MLP (dense, or experts and a shared one),
// residual. A shared expert is a gated MLP over all tokens whose "slot weight" is sigmoid(gate . x).
#include "model/acts.h"

// The first n*F elements of the scratch for hidden layers, as (n,F).
static struct tensor hidden_rows(const struct model *m, int64_t n, int64_t F)
{
    return tensor_2d(m->acts->hidden.data, m->acts->hidden.dtype, n, F);
}

// y (N,C) = down(weight * silu(gate x) * up x); gate and up are kept.
static void gated_forward(struct model *m, const struct mlp *p, struct tensor y, struct tensor x,
                          struct tensor gate, struct tensor up, struct tensor weight)
{
    const struct ops *o = m->setup.ops;
    const struct tensor all = tensor_absent();
    const struct tensor hidden = hidden_rows(m, x.dim[0], p->gate.out);
    linear_forward(o, &p->gate, gate, x, all);
    linear_forward(o, &p->up, up, x, all);
    if (!y.data) return;
    o->swiglu_forward(hidden, gate, up, weight, NULL);
    linear_forward(o, &p->down, y, hidden, all);
}

// What the backward pass of a gated MLP reads.
struct gated_saved {
    struct tensor dy, x, gate, up, weight, dweight;
};

// dx (N,C) += or =, or absent; gate and up become their own gradients.
static void gated_backward(struct model *m, struct mlp *p, struct tensor dx, bool accumulate,
                           const struct gated_saved *s)
{
    const struct ops *o = m->setup.ops;
    const struct tensor all = tensor_absent();
    const struct tensor hidden = hidden_rows(m, s->x.dim[0], p->gate.out);
    linear_dinput(o, &p->down, hidden, s->dy, all, false);
    const struct swiglu_grads out = {s->gate, s->up, hidden, s->dweight};
    o->swiglu_backward(&out, hidden, s->gate, s->up, s->weight, NULL);
    linear_dweight(o, &p->down, s->dy, hidden, all);
    linear_dweight(o, &p->gate, s->gate, s->x, all);
    linear_dweight(o, &p->up, s->up, s->x, all);
    linear_dinput(o, &p->gate, dx, s->gate, all, accumulate);
    linear_dinput(o, &p->up, dx, s->up, all, true);
}

// y += shared expert
static void shared_forward(struct model *m, struct layer *l, struct layer_acts *a, struct tensor y)
{
    const struct ops *o = m->setup.ops;
    if (l->shared_gate.groups) {
        linear_forward(o, &l->shared_gate, a->shared_scale, a->n2, tensor_absent());
        o->sigmoid_forward(a->shared_scale, a->shared_scale);
    }
    const struct tensor own = y.data ? m->acts->shared_stream : y;
    gated_forward(m, &l->shared, own, a->n2, a->shared_gate, a->shared_up, a->shared_scale);
    if (y.data) o->add(y, y, own);
}

static void shared_backward(struct model *m, struct layer *l, struct layer_acts *a,
                            struct tensor dx, struct tensor dy)
{
    const struct ops *o = m->setup.ops;
    const struct tensor dscale = m->acts->dshared, all = tensor_absent();
    const bool scaled = l->shared_gate.groups > 0;
    const struct gated_saved s = {dy,           a->n2,           a->shared_gate,
                                  a->shared_up, a->shared_scale, scaled ? dscale : all};
    gated_backward(m, &l->shared, dx, true, &s);
    if (!scaled) return;
    o->sigmoid_backward(dscale, dscale, a->shared_scale);
    linear_dweight(o, &l->shared_gate, dscale, a->n2, all);
    linear_dinput(o, &l->shared_gate, dx, dscale, all, true);
}

void mlp_block_forward(struct model *m, struct layer *l, struct layer_acts *a, struct tensor y,
                       bool route_again)
{
    const struct ops *o = m->setup.ops;
    const struct tensor stream = y.data ? m->acts->stream : y;
    o->rmsnorm_forward(a->n2, a->rstd2, a->mid, weight_value(m, l->post_norm), m->config.norm_eps);
    if (l->moe) {
        moe_forward(m, l, a, stream, route_again);
        if (l->shared.gate.groups) shared_forward(m, l, a, stream);
    } else {
        gated_forward(m, &l->dense, stream, a->n2, a->gate, a->up, tensor_absent());
    }
    if (y.data) o->add(y, a->mid, stream);
}

static bool shared_learns(const struct layer *l)
{
    return linear_learns(&l->shared.gate) || linear_learns(&l->shared.up) ||
           linear_learns(&l->shared.down) || linear_learns(&l->shared_gate);
}

void mlp_block_backward(struct model *m, struct layer *l, struct layer_acts *a, struct tensor dy,
                        bool input)
{
    const struct ops *o = m->setup.ops;
    const struct tensor absent = tensor_absent(), dn = input ? m->acts->dnorm : absent;
    if (l->moe) {
        moe_backward(m, l, a, dn, dy);
        if (l->shared.gate.groups && (input || shared_learns(l))) shared_backward(m, l, a, dn, dy);
    } else {
        const struct gated_saved s = {dy, a->n2, a->gate, a->up, absent, absent};
        gated_backward(m, &l->dense, dn, false, &s);
    }
    if (!input) return;
    o->rmsnorm_backward(dn, weight_grad(m, l->post_norm), dn, a->mid, weight_value(m, l->post_norm),
                        a->rstd2);
    o->add(dy, dy, dn);
}
