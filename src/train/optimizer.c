// train/optimizer.c - see optimizer.h.
#include "train/optimizer.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

// Streams of random numbers, one a leaf from here on; an update draws a stream of its own from it.
static const uint64_t stream_rounding = UINT64_C(0x726f756e) << 32;

// As they lie on the backend, to be read in one piece.
struct numbers {
    double squares;
    float scale, last;
};

static int64_t count_lists(const struct leaves *l)
{
    int64_t sections = 1;
    if (!l->storage.shared_gradients) return 1;
    for (int64_t i = 0; i < l->count; i++) {
        if (l->leaf[i].section >= sections) sections = l->leaf[i].section + 1;
    }
    return sections;
}

// Those of one section, or all where sections share nothing.
static bool open_list(struct optimizer *o, struct adamw_leaf *leaf, int64_t section,
                      struct error *err)
{
    const struct leaves *l = o->leaves;
    int64_t n = 0;
    for (int64_t i = 0; i < l->count; i++) {
        const struct leaf *f = &l->leaf[i];
        if (l->storage.shared_gradients && f->section != section) continue;
        leaf[n++] = (struct adamw_leaf){.w = f->value,
                                        .m = f->m,
                                        .v = f->v,
                                        .m_scale = f->m_scale,
                                        .v_scale = f->v_scale,
                                        .copy = f->copy,
                                        .grad = f->grad,
                                        .decays = f->decays,
                                        .stream = stream_rounding + (uint64_t)i};
    }
    return leaf_list_open(&o->list[o->lists++], o->ops, leaf, n, err);
}

static bool open_lists(struct optimizer *o, struct error *err)
{
    const int64_t lists = count_lists(o->leaves);
    struct adamw_leaf *leaf = mem_alloc((size_t)o->leaves->count * sizeof *leaf);
    o->list = mem_zalloc((size_t)lists, sizeof *o->list);
    bool ok = (leaf && o->list) || fail(err, "no memory for a list of what learns");
    for (int64_t s = 0; ok && s < lists; s++) {
        ok = open_list(o, leaf, s, err);
    }
    mem_free(leaf);
    return ok;
}

bool optimizer_open(struct optimizer *o, const struct ops *ops, const struct leaves *l,
                    struct error *err)
{
    *o = (struct optimizer){.ops = ops, .leaves = l};
    o->numbers = ops->allocate(sizeof(struct numbers));
    if (!o->numbers) return ops->check(err) && fail(err, "no memory for the optimizer's sums");
    char *at = o->numbers;
    o->squares = tensor_1d(at + offsetof(struct numbers, squares), DTYPE_F64, 1);
    o->scale = tensor_1d(at + offsetof(struct numbers, scale), DTYPE_F32, 1);
    o->last = tensor_1d(at + offsetof(struct numbers, last), DTYPE_F32, 1);
    return open_lists(o, err);
}

void optimizer_close(struct optimizer *o)
{
    for (int64_t i = 0; i < o->lists; i++) {
        leaf_list_close(&o->list[i], o->ops);
    }
    mem_free(o->list);
    if (o->numbers) o->ops->release(o->numbers, sizeof(struct numbers));
    *o = (struct optimizer){0};
}

size_t optimizer_bytes(const struct ops *ops, const struct leaves *l)
{
    return leaf_list_bytes(ops, l->count);
}

static struct numbers take_numbers(const struct optimizer *o)
{
    struct numbers n;
    o->ops->download(&n, o->numbers, sizeof n);
    return n;
}

void optimizer_measure(const struct optimizer *o, struct tensor loss, double clip)
{
    o->ops->zero(o->squares);
    for (int64_t i = 0; i < o->lists; i++) {
        o->ops->grad_squares(o->squares, &o->list[i]);
    }
    o->ops->clip_scale(o->scale, o->squares, loss, clip);
}

static void update_list(const struct update *u, const struct leaf_list *l)
{
    const struct train_options *t = u->options;
    const struct adamw p = {
        .lr = u->lr,
        .beta1 = t->beta1,
        .beta2 = t->beta2,
        .eps = t->eps,
        .weight_decay = t->weight_decay,
        .correction1 = 1 - pow(t->beta1, (double)u->n),
        .correction2 = 1 - pow(t->beta2, (double)u->n),
    };
    u->optimizer->ops->adamw(l, &p, u->optimizer->scale, t->seed, (uint64_t)u->n);
}

void optimizer_update(const struct optimizer *o, const struct train_options *t, double lr,
                      int64_t n)
{
    const struct update u = {o, t, lr, n};
    for (int64_t i = 0; i < o->lists; i++) {
        update_list(&u, &o->list[i]);
    }
}

bool optimizer_outcome(const struct optimizer *o, double *norm)
{
    const struct numbers n = take_numbers(o);
    *norm = sqrt(n.squares);
    return !isnan(n.scale);
}

void optimizer_reset(const struct optimizer *o)
{
    for (int64_t i = 0; i < o->leaves->count; i++) {
        const struct leaf *f = &o->leaves->leaf[i];
        const struct tensor all[] = {f->m, f->v, f->m_scale, f->v_scale};
        for (int k = 0; k < 4; k++) {
            if (all[k].data) o->ops->zero(all[k]);
        }
    }
}

// A sum of squares of floats cannot overflow a double: it is finite exactly when all of them are. Codes are
// as finite as their scales.
static void add_state(const struct optimizer *o, const struct leaf *f, bool moments)
{
    const bool codes = f->m.dtype == DTYPE_U8;
    o->ops->sum_squares(o->squares, f->value);
    if (!moments) return;
    o->ops->sum_squares(o->squares, codes ? f->m_scale : f->m);
    o->ops->sum_squares(o->squares, codes ? f->v_scale : f->v);
}

const char *optimizer_not_finite(const struct optimizer *o, bool moments)
{
    const struct leaves *l = o->leaves;
    o->ops->zero(o->squares);
    for (int64_t i = 0; i < l->count; i++) {
        add_state(o, &l->leaf[i], moments);
    }
    if (isfinite(take_numbers(o).squares)) return NULL;
    for (int64_t i = 0; i < l->count; i++) {
        o->ops->zero(o->squares);
        add_state(o, &l->leaf[i], moments);
        if (!isfinite(take_numbers(o).squares)) return l->leaf[i].name;
    }
    return "a leaf";
}

void fused_update_begin(const struct update *f, struct tensor loss)
{
    const struct optimizer *o = f->optimizer;
    o->ops->zero(o->squares);
    o->ops->clip_scale(o->scale, o->squares, loss, 0);
}

void fused_update_section(void *fused, int64_t section)
{
    const struct update *f = fused;
    const struct optimizer *o = f->optimizer;
    if (section >= o->lists) return; // nothing in it learns
    o->ops->grad_squares(o->squares, &o->list[section]);
    update_list(f, &o->list[section]);
}

enum fused_outcome fused_update_outcome(const struct update *f, double *norm)
{
    const struct optimizer *o = f->optimizer;
    o->ops->clip_scale(o->last, o->squares, tensor_absent(), 0);
    const struct numbers n = take_numbers(o);
    *norm = sqrt(n.squares);
    if (isnan(n.scale)) return FUSED_SKIPPED;
    return isnan(n.last) ? FUSED_SPOILT : FUSED_MOVED;
}
