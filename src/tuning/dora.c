// tuning/dora.c - DoRA (arXiv 2402.09353) as peft computes it: V = W + (alpha/r) B A, and with c = m / |V| by rows,
// the norm held constant in the backward pass, x' = dropout(x), s = V x',
//   y = (W x - W x') + c s,   which is c s without dropout.
// Backward: A and B get c dy in the place of LoRA's dy, dm = sum of dy s / |V|, and where x' is x / (1 - p)
//   dx = W^T ((1 + (c - 1) / (1 - p)) dy) + A^T dh / (1 - p),   else W^T dy.
// Dropout leaves out few elements: the ops `dropped_*` compute what differs there, so that W is multiplied twice.
// |V| comes from W A^T and A A^T once a step: V is never formed.
#include "tuning/low_rank.h"
#include "tuning/policies.h"

#include "base/mem.h"

#include <inttypes.h>
#include <math.h>

static bool open(struct tuning_state **st, const struct tuning_input *in, struct arena *a,
                 struct leaves *out, struct error *err)
{
    return low_rank_open(st, in, true, a, out, err);
}

// The rows that belong to the groups of a view.
static struct tensor of_groups(struct tensor all, const struct bank *w)
{
    return tensor_rows(all, w->first_group, w->groups);
}

// Room for s = V x' (rows, out): kept where the bank is whole and learns, else scratch, or y itself.
static struct tensor output(const struct part *p, struct tensor y)
{
    struct pair *q = p->pair;
    const struct tuning_state *st = q->all;
    const int64_t rows = y.dim[0];
    if (!p->whole || !st->learns) {
        return st->dropping ? low_rank_rows(st->output, rows, q->bank->out) : y;
    }
    for (int64_t i = 0; st->share && i < st->n_pairs; i++) {
        if (st->pair[i].place == q->place) st->pair[i].has_output = false;
    }
    q->has_output = true;
    return low_rank_rows(q->output, rows, q->bank->out);
}

// s = W x', and with dropout y = W x - W x' (else y stays).
static void multiply(const struct ops *o, const struct bank *w, const struct part *p,
                     struct tensor s, struct tensor y, struct tensor x, struct tensor offsets)
{
    if (p->pair->all->dropping) {
        o->matmul_forward(y, x, &w->value, offsets, false);
        o->dropped_forward(s, y, x, &w->value, &p->drop);
    } else {
        o->matmul_forward(s, x, &w->value, offsets, false);
    }
}

static void forward(const struct ops *o, const struct bank *w, struct tensor y, struct tensor x,
                    struct tensor offsets)
{
    const struct part p = low_rank_part(w);
    const struct tensor s = output(&p, y);
    multiply(o, w, &p, s, y, x, offsets);
    const struct tensor h = low_rank_hidden(&p, low_rank_input(&p, x), offsets);
    o->matmul_forward(s, h, &p.b, offsets, true);
    o->scale_columns(y, s, of_groups(p.pair->scaling, w), offsets, p.pair->all->dropping);
}

// s as forward kept it, or, where another layer has its room by now and this one has not run again, once more.
static struct tensor kept_output(const struct ops *o, const struct bank *w, const struct part *p,
                                 struct tensor x, struct tensor dy, struct tensor offsets)
{
    const bool kept = p->pair->has_output;
    const struct tensor s = output(p, dy);
    if (kept) return s;
    const struct tensor y = low_rank_rows(p->pair->all->output, dy.dim[0], dy.dim[1]);
    multiply(o, w, p, s, y, x, offsets);
    o->matmul_forward(s, low_rank_kept(p, x), &p->b, offsets, true);
    return s;
}

// dy times c, by columns, in scratch.
static struct tensor scaled(const struct bank *w, struct tensor c, struct tensor dy,
                            struct tensor offsets)
{
    const struct tuning_state *st = ((const struct pair *)w->adapter)->all;
    const struct tensor to = low_rank_rows(st->output, dy.dim[0], dy.dim[1]);
    st->ops->scale_columns(to, dy, of_groups(c, w), offsets, false);
    return to;
}

static void dweight(const struct ops *o, const struct bank *w, struct tensor dy, struct tensor x,
                    struct tensor offsets)
{
    const struct part p = low_rank_part(w);
    struct pair *q = p.pair;
    const struct tensor s = kept_output(o, w, &p, x, dy, offsets);
    o->dot_columns(q->dmagnitude, q->inverse, dy, s, offsets);
    const struct tensor dv = scaled(w, q->scaling, dy, offsets);
    o->matmul_dweight(&q->b.dweight, dv, low_rank_kept(&p, x), offsets);
    const struct tensor dh = low_rank_dhidden(&p, dv, offsets);
    o->matmul_dweight(&q->a.dweight, dh, low_rank_input(&p, x), offsets);
}

static void dinput(const struct ops *o, const struct bank *w, struct tensor dx, struct tensor dy,
                   struct tensor offsets, bool accumulate)
{
    const struct part p = low_rank_part(w);
    const struct pair *q = p.pair;
    struct tensor dh;
    if (!q->all->dropping) {
        const struct tensor dv = scaled(w, q->scaling, dy, offsets);
        dh = low_rank_dhidden(&p, dv, offsets);
        o->matmul_dinput(dx, dv, &w->value, offsets, accumulate);
        o->matmul_dinput(dx, dh, &p.a, offsets, true);
        return;
    }
    if (!low_rank_has_dhidden(&p, dy.dim[0], &dh)) {
        dh = low_rank_dhidden(&p, scaled(w, q->scaling, dy, offsets), offsets);
    }
    const struct tensor through = scaled(w, q->through, dy, offsets);
    o->matmul_dinput(dx, through, &w->value, offsets, accumulate);
    o->dropped_dinput(dx, scaled(w, q->rest, dy, offsets), &w->value, &p.drop);
    const struct tensor dropped = low_rank_rows(q->all->input, dx.dim[0], dx.dim[1]);
    o->matmul_dinput(dropped, dh, &p.a, offsets, false);
    o->dropout(dx, dropped, &p.drop, true);
}

static void refresh(struct tuning_state *st)
{
    const struct ops *o = st->ops;
    for (int64_t i = 0; i < st->n_pairs; i++) {
        const struct pair *p = &st->pair[i];
        const int64_t rows = p->bank->groups * p->bank->out, r = p->rank;
        const struct tensor wa = low_rank_rows(st->wa, rows, r);
        const struct tensor baa = low_rank_rows(st->baa, rows, r);
        if (!st->measured) o->row_squares(p->squares, &p->bank->value);
        o->matrices_multiply(wa, &p->bank->value, &p->a.read);
        o->matrices_multiply(low_rank_rows(st->gram, p->bank->groups * r, r), &p->a.read,
                             &p->a.read);
        o->matrices_multiply(baa, &p->b.read, &p->gram);
        struct magnitude_norm in = {p->magnitude, p->squares, p->b.used, wa, baa, p->scale};
        const struct magnitude_scale out = {p->scaling, p->rest, p->inverse};
        if (!st->measured && st->fresh) { // m starts as |W|, which is |W|^2 / |W| while B is zero
            in.magnitude = p->squares;
            o->magnitude_scale(&out, &in);
            o->convert(p->magnitude, p->scaling);
            in.magnitude = p->magnitude;
        }
        o->magnitude_scale(&out, &in);
        o->scale(p->rest, 1.0F / (1.0F - st->dropout));
        o->fill(p->through, 1.0F);
        o->add(p->through, p->through, p->rest);
    }
    st->measured = true;
}

static bool merge(struct tuning_state *st, const struct bank *b, int64_t group, float *w,
                  struct error *err)
{
    const struct pair *p = b->adapter;
    const int64_t N = b->out, C = b->in;
    float *magnitude = mem_alloc((size_t)N * sizeof *magnitude);
    if (!magnitude) return fail(err, "no memory for %" PRId64 " magnitudes", N);
    st->ops->download(magnitude, row_f32(p->magnitude, group), (size_t)N * sizeof *magnitude);
    const bool ok = low_rank_merge(p, group, w, err);
    for (int64_t n = 0; ok && n < N; n++) {
        double square = 0;
        for (int64_t c = 0; c < C; c++) {
            square += (double)w[n * C + c] * (double)w[n * C + c];
        }
        const double scale = square > 0 ? (double)magnitude[n] / sqrt(square) : 0;
        for (int64_t c = 0; c < C; c++) {
            w[n * C + c] = (float)(scale * (double)w[n * C + c]);
        }
    }
    mem_free(magnitude);
    return ok;
}

static bool read(bool *mine, struct tuning_options *r, const char *dir, struct error *err)
{
    return low_rank_read(mine, r, true, dir, err);
}

static const struct adapter_format format = {LOW_RANK_FORMAT, .read = read};

const struct tuning tuning_dora = {
    .name = "dora",
    .help = "the same with a learnt magnitude for each row (DoRA)",
    .check = low_rank_check,
    .learns = low_rank_learns,
    .open = open,
    .close = low_rank_close,
    .begin = low_rank_begin,
    .refresh = refresh,
    .forward = forward,
    .dweight = dweight,
    .dinput = dinput,
    .format = &format,
    .merge = merge,
};
