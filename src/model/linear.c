// model/linear.c - a linear over a bank, forward and backward, and the binding of banks to the memory
// where their matrices lie.
#include "model/layer.h"

// The policy whose hooks compute this bank; one without any where it has no adapter.
static const struct tuning *hooks(const struct bank *b)
{
    static const struct tuning none;
    return b->adapter ? b->tuning : &none;
}

void linear_forward(const struct ops *o, const struct bank *b, struct tensor y, struct tensor x,
                    struct tensor offsets)
{
    if (hooks(b)->forward) {
        hooks(b)->forward(o, b, y, x, offsets);
    } else {
        o->matmul_forward(y, x, &b->value, offsets, false);
    }
    if (b->bias_value.data) o->bias_forward(y, b->bias_value);
}

void linear_dweight(const struct ops *o, struct bank *b, struct tensor dy, struct tensor x,
                    struct tensor offsets)
{
    if (b->grad.data) o->matmul_dweight(&b->grad, dy, x, offsets);
    if (b->bias_grad.data) o->bias_backward(b->bias_grad, dy);
    if (hooks(b)->dweight) hooks(b)->dweight(o, b, dy, x, offsets);
}

void linear_dinput(const struct ops *o, const struct bank *b, struct tensor dx, struct tensor dy,
                   struct tensor offsets, bool accumulate)
{
    if (!dx.data) return;
    if (hooks(b)->dinput) {
        hooks(b)->dinput(o, b, dx, dy, offsets, accumulate);
    } else {
        o->matmul_dinput(dx, dy, &b->value, offsets, accumulate);
    }
}

bool linear_learns(const struct bank *b)
{
    return b->grad.data || b->bias_grad.data || hooks(b)->dweight;
}

bool linear_is_product(const struct bank *b)
{
    return !b->adapter && !b->bias_value.data;
}

struct tensor weight_value(const struct model *m, int64_t index)
{
    return index < 0 ? tensor_absent() : m->weights.weight[index].value;
}

struct tensor weight_grad(const struct model *m, int64_t index)
{
    return index < 0 ? tensor_absent() : m->weights.weight[index].grad;
}

struct binding {
    struct model *m;
    struct arena *a;
};

// The pointer table of one side (values or gradients) of a bank. Frozen matrices have no gradient.
static void bind_side(struct binding *at, struct bank *b, struct matrices *side, bool grads)
{
    const struct weight *w = at->m->weights.weight;
    const size_t bytes = (size_t)b->groups * sizeof(void *);
    *side = (struct matrices){.groups = b->groups, .rows = b->out, .cols = b->in};
    bool any = !grads;
    for (int64_t g = 0; g < b->groups; g++) {
        const struct weight *x = &w[b->weight[g]];
        side->dtype = grads ? DTYPE_F32 : x->value.dtype;
        any |= x->learns;
    }
    if (!any) return;
    void **table = arena_bytes(at->a, bytes);
    if (!table) return;
    for (int64_t g = 0; g < b->groups; g++) {
        const struct weight *x = &w[b->weight[g]];
        const struct tensor t = grads ? x->grad : x->value;
        at->m->setup.ops->upload(&table[g], &t.data, sizeof t.data);
    }
    side->data = table;
}

static void bind_bank(struct bank *b, void *user)
{
    struct binding *at = user;
    bind_side(at, b, &b->value, false);
    bind_side(at, b, &b->grad, true);
    b->bias_value = weight_value(at->m, b->bias);
    b->bias_grad = weight_grad(at->m, b->bias);
}

void weights_bind(struct model *m, struct arena *a)
{
    struct binding at = {m, a};
    a->purpose = PURPOSE_DATA;
    for (int64_t l = 0; l < m->config.n_layers; l++) {
        layer_each_bank(&m->layer[l], bind_bank, &at);
    }
    bind_bank(&m->head_bank, &at);
}
