// train/optimizer.c - see optimizer.h.
#include "train/optimizer.h"

#include <math.h>

bool optimizer_open(struct optimizer *o, const struct ops *ops, struct error *err)
{
    *o = (struct optimizer){.ops = ops};
    void *p = ops->allocate(sizeof(double));
    if (!p) return fail(err, "no memory for the optimizer's sums");
    o->sum = tensor_1d(p, DTYPE_F64, 1);
    return true;
}

void optimizer_close(struct optimizer *o)
{
    if (o->sum.data) o->ops->release(o->sum.data, sizeof(double));
    *o = (struct optimizer){0};
}

static double take_sum(struct optimizer *o)
{
    double sum;
    o->ops->download(&sum, o->sum.data, sizeof sum);
    return sum;
}

double optimizer_grad_norm(struct optimizer *o, const struct leaves *l)
{
    o->ops->zero(o->sum);
    for (int64_t i = 0; i < l->count; i++) {
        o->ops->sum_squares(o->sum, l->leaf[i].grad);
    }
    return sqrt(take_sum(o));
}

double optimizer_clip_scale(double norm, double clip)
{
    if (clip <= 0) return 1;
    return fmin(1, clip / (norm + 1e-6));
}

bool optimizer_norm_usable(double norm, double clip)
{
    return isfinite(norm) && norm * optimizer_clip_scale(norm, clip) < 1e19; // 1e38 < FLT_MAX
}

void optimizer_update(const struct optimizer *o, const struct leaves *l,
                      const struct train_options *t, double lr, double scale, int64_t n)
{
    struct adamw p = {
        .lr = lr,
        .beta1 = t->beta1,
        .beta2 = t->beta2,
        .eps = t->eps,
        .correction1 = 1 - pow(t->beta1, (double)n),
        .correction2 = 1 - pow(t->beta2, (double)n),
    };
    for (int64_t i = 0; i < l->count; i++) {
        const struct leaf *f = &l->leaf[i];
        p.weight_decay = f->decays ? t->weight_decay : 0;
        o->ops->adamw(f->value, f->m, f->v, f->copy, f->grad, &p, (float)scale);
    }
}

void optimizer_reset(const struct optimizer *o, const struct leaves *l)
{
    for (int64_t i = 0; i < l->count; i++) {
        o->ops->zero(l->leaf[i].m);
        o->ops->zero(l->leaf[i].v);
    }
}

void optimizer_zero_grad(const struct optimizer *o, const struct leaves *l)
{
    for (int64_t i = 0; i < l->count; i++) {
        o->ops->zero(l->leaf[i].grad);
    }
}

// A sum of squares of floats cannot overflow a double: it is finite exactly when all of them are.
static void add_state(struct optimizer *o, const struct leaf *f)
{
    o->ops->sum_squares(o->sum, f->value);
    o->ops->sum_squares(o->sum, f->m);
    o->ops->sum_squares(o->sum, f->v);
}

const char *optimizer_not_finite(struct optimizer *o, const struct leaves *l)
{
    o->ops->zero(o->sum);
    for (int64_t i = 0; i < l->count; i++) {
        add_state(o, &l->leaf[i]);
    }
    if (isfinite(take_sum(o))) return NULL;
    for (int64_t i = 0; i < l->count; i++) {
        o->ops->zero(o->sum);
        add_state(o, &l->leaf[i]);
        if (!isfinite(take_sum(o))) return l->leaf[i].name;
    }
    return "a leaf";
}
