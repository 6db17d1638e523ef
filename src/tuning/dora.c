// tuning/dora.c - DoRA (arXiv 2402.09353) as peft computes it: V = W + (alpha/r) B A, and with c = m / |V| by rows,
// the norm held constant in the backward pass, x' = dropout(x),
//   y = W x + (c - 1) u0 + c v,   u0 = W x',  v = (alpha/r) B A x';   without dropout y = c (W x + v).
// Backward: v and u0 get c dy and (c - 1) dy in the place of LoRA's dy, and dm = sum of dy (u0 + v) / |V|.
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

static void forward(const struct ops *o, const struct bank *w, struct tensor y, struct tensor x,
                    struct tensor offsets)
{
    const struct part p = low_rank_part(w);
    const struct tensor c = of_groups(p.pair->scaling, w), in = low_rank_input(&p, x);
    o->matmul_forward(y, x, &w->value, offsets, false);
    const struct tensor h = low_rank_hidden(&p, in, offsets);
    if (p.pair->all->dropping) {
        const struct tensor u = low_rank_rows(p.pair->all->output, y.dim[0], y.dim[1]);
        o->matmul_forward(u, in, &w->value, offsets, false);
        o->scale_columns(y, u, of_groups(p.pair->rest, w), offsets, true);
        o->matmul_forward(u, h, &p.b, offsets, false);
        o->scale_columns(y, u, c, offsets, true);
    } else {
        o->matmul_forward(y, h, &p.b, offsets, true);
        o->scale_columns(y, y, c, offsets, false);
    }
}

static void dweight(const struct ops *o, const struct bank *w, struct tensor dy, struct tensor x,
                    struct tensor offsets)
{
    const struct part p = low_rank_part(w);
    struct pair *q = p.pair;
    const struct tensor h = low_rank_kept(&p, x), in = low_rank_input(&p, x);
    const struct tensor scratch = low_rank_rows(q->all->output, dy.dim[0], dy.dim[1]);
    o->matmul_forward(scratch, in, &w->value, offsets, false);
    o->matmul_forward(scratch, h, &p.b, offsets, true);
    o->dot_columns(q->dmagnitude, q->inverse, dy, scratch, offsets);
    o->scale_columns(scratch, dy, q->scaling, offsets, false);
    o->matmul_dweight(&q->b.dweight, scratch, h, offsets);
    o->matmul_dweight(&q->a.dweight, low_rank_dhidden(&p, scratch, offsets), in, offsets);
}

static void dinput(const struct ops *o, const struct bank *w, struct tensor dx, struct tensor dy,
                   struct tensor offsets, bool accumulate)
{
    const struct part p = low_rank_part(w);
    const struct tuning_state *st = p.pair->all;
    const struct tensor scratch = low_rank_rows(st->output, dy.dim[0], dy.dim[1]);
    o->scale_columns(scratch, dy, of_groups(p.pair->scaling, w), offsets, false);
    const struct tensor dh = low_rank_dhidden(&p, scratch, offsets);
    if (st->dropping) {
        const struct tensor dropped = low_rank_rows(st->input, dx.dim[0], dx.dim[1]);
        o->scale_columns(scratch, dy, of_groups(p.pair->rest, w), offsets, false);
        o->matmul_dinput(dropped, scratch, &w->value, offsets, false);
        o->matmul_dinput(dropped, dh, &p.a, offsets, true);
        o->matmul_dinput(dx, dy, &w->value, offsets, accumulate);
        o->dropout(dx, dropped, &p.drop, true);
    } else {
        o->matmul_dinput(dx, scratch, &w->value, offsets, accumulate);
        o->matmul_dinput(dx, dh, &p.a, offsets, true);
    }
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

static const struct adapter_format format = {
    .file = "adapter_model.safetensors",
    .prefix = "base_model.model.",
    .write = low_rank_write,
    .describe = low_rank_describe,
    .read = read,
    .tensors = low_rank_tensors,
};

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
