// routing/losses.c - see losses.h.
#include "routing/losses.h"

static double coefficient(double given, double otherwise)
{
    return given >= 0 ? given : otherwise;
}

void router_losses_open(struct router_losses *s, const struct ops *o, const struct model_config *c,
                        const struct routing *r, const struct routing_options *options,
                        int64_t max_tokens, struct arena *a)
{
    const double usual = r->needs_aux ? (double)c->router_aux_loss_coef : 0;
    *s = (struct router_losses){.ops = o, .n_experts = c->n_experts};
    s->aux_coef = coefficient(options->aux_coef, usual);
    s->z_coef = coefficient(options->z_coef, 0);
    s->moe_layers = routing_layers(c);
    if (!router_losses_on(s)) return;
    a->purpose = PURPOSE_SCRATCH;
    s->count = arena_1d(a, DTYPE_F32, c->n_experts);
    s->sum = arena_1d(a, DTYPE_F32, c->n_experts);
    s->slope = arena_1d(a, DTYPE_F32, c->n_experts);
    s->p = arena_2d(a, DTYPE_F32, max_tokens, c->n_experts);
    s->dp = arena_2d(a, DTYPE_F32, max_tokens, c->n_experts);
    s->lse = arena_1d(a, DTYPE_F32, max_tokens);
    s->value = arena_1d(a, DTYPE_F64, 1);
}

bool router_losses_on(const struct router_losses *s)
{
    return s->moe_layers > 0 && (s->aux_coef > 0 || s->z_coef > 0);
}

void router_losses_begin(struct router_losses *s)
{
    s->ops->zero(s->count);
    s->ops->zero(s->sum);
}

void router_losses_layer(struct router_losses *s, struct tensor z, struct tensor offsets,
                         double weight)
{
    const int64_t N = z.dim[0];
    if (s->aux_coef > 0) {
        const struct tensor p = tensor_rows(s->p, 0, N);
        s->ops->softmax_forward(p, z);
        s->ops->count_rows(s->count, offsets);
        s->ops->bias_backward(s->sum, p); // the sum over tokens
    }
    if (s->z_coef > 0) {
        const struct tensor lse = tensor_rows(s->lse, 0, N);
        s->ops->logsumexp(lse, z);
        s->ops->dot(s->value, lse, lse, weight * s->z_coef / (double)(N * s->moe_layers));
    }
}

// With M = tokens x MoE layers: loss = E / M^2 * <count, sum>, so dloss/dp_e = E / M^2 * count_e.
void router_losses_end(struct router_losses *s, int64_t tokens, double weight)
{
    const double M = (double)(tokens * s->moe_layers);
    const double factor = weight * s->aux_coef * (double)s->n_experts / (M * M);
    s->ops->dot(s->value, s->count, s->sum, factor);
    s->ops->convert(s->slope, s->count);
    s->ops->scale(s->slope, (float)factor);
}

// dz += p (slope - <slope, p>), and for the z-loss dz += 2 z_coef / M * lse * p
void router_losses_backward(struct router_losses *s, struct tensor dz, struct tensor z,
                            double weight)
{
    const struct ops *o = s->ops;
    const int64_t N = z.dim[0];
    const struct tensor p = tensor_rows(s->p, 0, N), dp = tensor_rows(s->dp, 0, N);
    o->softmax_forward(p, z);
    if (s->aux_coef > 0) {
        o->repeat_row(dp, s->slope);
        o->softmax_backward(dp, dp, p);
        o->add(dz, dz, dp);
    }
    if (s->z_coef > 0) {
        const struct tensor lse = tensor_rows(s->lse, 0, N);
        o->logsumexp(lse, z);
        o->add_scaled_rows(dz, p, lse,
                           (float)(2 * weight * s->z_coef / (double)(N * s->moe_layers)));
    }
}

double router_losses_take(struct router_losses *s)
{
    double value = 0;
    s->ops->download(&value, s->value.data, sizeof value);
    s->ops->zero(s->value);
    return value;
}
