// train/optimizer.c - see optimizer.h.
#include "train/optimizer.h"

#include "base/rng.h"

#include <math.h>

bool optimizer_open(struct optimizer *o, const struct ops *ops, struct error *err)
{
    *o = (struct optimizer){.ops = ops};
    void *p = ops->allocate(sizeof(double));
    if (!p) return ops->check(err) && fail(err, "no memory for the optimizer's sums");
    o->sum = tensor_1d(p, DTYPE_F64, 1);
    return true;
}

void optimizer_close(struct optimizer *o)
{
    if (o->sum.data) o->ops->release(o->sum.data, sizeof(double));
    *o = (struct optimizer){0};
}

bool optimizer_check(const struct ops *ops, const struct leaf_storage *s, struct error *err)
{
    if (ops->adamw_reduced || (s->states == STATES_F32 && !s->no_masters)) return true;
    return fail(err,
                "the backend %s has only --optimizer-states f32 and --master-weights f32 as yet",
                ops->name);
}

static double take_sum(const struct optimizer *o)
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

// Streams of random numbers, one a leaf from here on; an update draws a stream of its own from it.
static const uint64_t stream_rounding = UINT64_C(0x726f756e) << 32;

// Leaf i, gradients times `scale`.
static void update_leaf(const struct update *u, int64_t i, float scale)
{
    const struct ops *o = u->optimizer->ops;
    const struct train_options *t = u->options;
    const struct leaf *f = &u->leaves->leaf[i];
    const struct adamw p = {
        .lr = u->lr,
        .beta1 = t->beta1,
        .beta2 = t->beta2,
        .eps = t->eps,
        .weight_decay = f->decays ? t->weight_decay : 0,
        .correction1 = 1 - pow(t->beta1, (double)u->n),
        .correction2 = 1 - pow(t->beta2, (double)u->n),
    };
    if (f->value.dtype == DTYPE_F32 && f->m.dtype == DTYPE_F32) {
        o->adamw(f->value, f->m, f->v, f->copy, f->grad, &p, scale);
        return;
    }
    const struct adamw_leaf x = {f->value, f->m, f->v, f->m_scale, f->v_scale, f->copy, f->grad};
    const uint64_t stream = rng_at(t->seed, stream_rounding + (uint64_t)i, (uint64_t)u->n);
    o->adamw_reduced(&x, &p, scale, t->seed, stream);
}

void optimizer_update(const struct optimizer *o, const struct leaves *l,
                      const struct train_options *t, double lr, double scale, int64_t n)
{
    const struct update u = {o, l, t, lr, n};
    for (int64_t i = 0; i < l->count; i++) {
        update_leaf(&u, i, (float)scale);
    }
}

void optimizer_reset(const struct optimizer *o, const struct leaves *l)
{
    for (int64_t i = 0; i < l->count; i++) {
        const struct leaf *f = &l->leaf[i];
        const struct tensor all[] = {f->m, f->v, f->m_scale, f->v_scale};
        for (int k = 0; k < 4; k++) {
            if (all[k].data) o->ops->zero(all[k]);
        }
    }
}

void optimizer_zero_grad(const struct optimizer *o, const struct leaves *l)
{
    for (int64_t i = 0; i < l->count; i++) {
        o->ops->zero(l->leaf[i].grad);
    }
}

// A sum of squares of floats cannot overflow a double: it is finite exactly when all of them are. Codes are
// as finite as their scales.
static void add_state(struct optimizer *o, const struct leaf *f, bool moments)
{
    const bool codes = f->m.dtype == DTYPE_U8;
    o->ops->sum_squares(o->sum, f->value);
    if (!moments) return;
    o->ops->sum_squares(o->sum, codes ? f->m_scale : f->m);
    o->ops->sum_squares(o->sum, codes ? f->v_scale : f->v);
}

const char *optimizer_not_finite(struct optimizer *o, const struct leaves *l, bool moments)
{
    o->ops->zero(o->sum);
    for (int64_t i = 0; i < l->count; i++) {
        add_state(o, &l->leaf[i], moments);
    }
    if (isfinite(take_sum(o))) return NULL;
    for (int64_t i = 0; i < l->count; i++) {
        o->ops->zero(o->sum);
        add_state(o, &l->leaf[i], moments);
        if (!isfinite(take_sum(o))) return l->leaf[i].name;
    }
    return "a leaf";
}

void fused_update_begin(struct update *f)
{
    f->optimizer->ops->zero(f->optimizer->sum);
}

void fused_update_section(void *fused, int64_t section)
{
    const struct update *f = fused;
    const struct optimizer *o = f->optimizer;
    for (int64_t i = 0; i < f->leaves->count; i++) {
        const struct leaf *leaf = &f->leaves->leaf[i];
        if (leaf->section != section) continue;
        o->ops->sum_squares(o->sum, leaf->grad);
        update_leaf(f, i, 1);
        o->ops->zero(leaf->grad);
    }
}

double fused_update_norm(struct update *f)
{
    return sqrt(take_sum(f->optimizer));
}
