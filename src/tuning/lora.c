// tuning/lora.c - LoRA (arXiv 2106.09685): y = W x + (alpha/r) B A x', x' = dropout(x), W frozen. With
// h = (alpha/r) A x' and dh = (alpha/r) B^T dy:
//   dB = dy h^T,  dA = dh x'^T,  dx = W^T dy + dropout(A^T dh).
#include "tuning/low_rank.h"
#include "tuning/policies.h"

static bool open(struct tuning_state **st, const struct tuning_input *in, struct arena *a,
                 struct leaves *out, struct error *err)
{
    return low_rank_open(st, in, false, a, out, err);
}

static void forward(const struct ops *o, const struct bank *w, struct tensor y, struct tensor x,
                    struct tensor offsets)
{
    const struct part p = low_rank_part(w);
    o->matmul_forward(y, x, &w->value, offsets, false);
    const struct tensor h = low_rank_hidden(&p, low_rank_input(&p, x), offsets);
    o->matmul_forward(y, h, &p.b, offsets, true);
}

static void dweight(const struct ops *o, const struct bank *w, struct tensor dy, struct tensor x,
                    struct tensor offsets)
{
    const struct part p = low_rank_part(w);
    o->matmul_dweight(&p.pair->b.dweight, dy, low_rank_kept(&p, x), offsets);
    const struct tensor dh = low_rank_dhidden(&p, dy, offsets);
    o->matmul_dweight(&p.pair->a.dweight, dh, low_rank_input(&p, x), offsets);
}

static void dinput(const struct ops *o, const struct bank *w, struct tensor dx, struct tensor dy,
                   struct tensor offsets, bool accumulate)
{
    const struct part p = low_rank_part(w);
    o->matmul_dinput(dx, dy, &w->value, offsets, accumulate);
    const struct tensor dh = low_rank_dhidden(&p, dy, offsets);
    if (p.pair->all->dropping) {
        const struct tensor dropped = low_rank_rows(p.pair->all->input, dx.dim[0], dx.dim[1]);
        o->matmul_dinput(dropped, dh, &p.a, offsets, false);
        o->dropout(dx, dropped, &p.drop, true);
    } else {
        o->matmul_dinput(dx, dh, &p.a, offsets, true);
    }
}

static bool merge(struct tuning_state *st, const struct bank *b, int64_t group, float *w,
                  struct error *err)
{
    (void)st;
    return low_rank_merge(b->adapter, group, w, err);
}

static bool read(bool *mine, struct tuning_options *r, const char *dir, struct error *err)
{
    return low_rank_read(mine, r, false, dir, err);
}

static const struct adapter_format format = {LOW_RANK_FORMAT, .read = read};

const struct tuning tuning_lora = {
    .name = "lora",
    .help = "low-rank matrices beside frozen projections, experts included (LoRA)",
    .check = low_rank_check,
    .learns = low_rank_learns,
    .open = open,
    .close = low_rank_close,
    .begin = low_rank_begin,
    .forward = forward,
    .dweight = dweight,
    .dinput = dinput,
    .format = &format,
    .merge = merge,
};
