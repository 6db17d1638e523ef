// model/attention.c - the first half of a block: norm, q k v, rotary positions, attention, output
// projection, residual. Forward and backward side by side.
#include "model/acts.h"

#include <math.h>

static float attention_scale(const struct model_config *c)
{
    return 1.0F / sqrtf((float)c->head_dim);
}

// The keys of each row in this layer.
static struct tensor layer_span(const struct model *m, const struct layer *l)
{
    return m->config.window_layer[l->index] ? m->acts->window_span : m->acts->span;
}

// A norm over all of a row, or over each head of it.
static struct tensor norm_rows(const struct model *m, struct tensor x)
{
    const int64_t D = m->config.head_dim;
    if (m->config.qk_norm != QK_NORM_HEAD) return x;
    return tensor_reshape_2d(x, tensor_count(x) / D, D);
}

// q (or k): raw <- the projection; y <- norm, clip.
static void norm_and_clip_forward(struct model *m, struct tensor y, struct tensor rstd,
                                  struct tensor raw, int64_t norm)
{
    const struct ops *o = m->setup.ops;
    if (norm >= 0) {
        o->rmsnorm_forward(norm_rows(m, y), rstd, norm_rows(m, raw), weight_value(m, norm),
                           m->config.norm_eps);
    } else {
        o->convert(y, raw);
    }
    if (m->config.clip_qkv > 0) o->clamp_forward(y, m->config.clip_qkv);
}

// dy becomes the gradient of the projection, in place. What was cut is found by making the norm's
// output again: the kept q has been turned since.
static void norm_and_clip_backward(struct model *m, struct tensor dy, struct tensor raw,
                                   struct tensor rstd, int64_t norm)
{
    const struct ops *o = m->setup.ops;
    if (m->config.clip_qkv > 0) {
        const struct tensor y = tensor_2d(m->acts->unclipped.data, dy.dtype, dy.dim[0], dy.dim[1]);
        if (norm >= 0) {
            o->rmsnorm_forward(norm_rows(m, y), rstd, norm_rows(m, raw), weight_value(m, norm),
                               m->config.norm_eps);
        } else {
            o->convert(y, raw);
        }
        o->clamp_backward(dy, y, m->config.clip_qkv);
    }
    if (norm < 0) return;
    o->rmsnorm_backward(norm_rows(m, dy), weight_grad(m, norm), norm_rows(m, dy), norm_rows(m, raw),
                        weight_value(m, norm), rstd);
}

static void project(struct model *m, struct layer *l, struct layer_acts *a)
{
    const struct ops *o = m->setup.ops;
    const struct model_config *c = &m->config;
    const struct tensor all = tensor_absent(), positions = m->acts->positions;
    const bool raw = a->q_raw.data != NULL;
    linear_forward(o, &l->q, raw ? a->q_raw : a->q, a->n1, all);
    linear_forward(o, &l->k, raw ? a->k_raw : a->k, a->n1, all);
    linear_forward(o, &l->v, a->v, a->n1, all);
    if (raw) {
        norm_and_clip_forward(m, a->q, a->q_rstd, a->q_raw, l->q_norm);
        norm_and_clip_forward(m, a->k, a->k_rstd, a->k_raw, l->k_norm);
    }
    if (c->clip_qkv > 0) o->clamp_forward(a->v, c->clip_qkv);
    o->rope(a->q, positions, m->rope, c->head_dim, false);
    o->rope(a->k, positions, m->rope, c->head_dim, false);
}

void attention_block_forward(struct model *m, struct layer *l, struct layer_acts *a)
{
    const struct ops *o = m->setup.ops;
    const struct model_config *c = &m->config;
    o->rmsnorm_forward(a->n1, a->rstd1, a->x, weight_value(m, l->input_norm), c->norm_eps);
    project(m, l, a);
    struct tensor k = a->k, v = a->v;
    if (m->acts->cached) { // keys and values of this batch join those of earlier ones
        o->place_rows(l->cache_k, a->k, m->acts->cache_row);
        o->place_rows(l->cache_v, a->v, m->acts->cache_row);
        k = l->cache_k, v = l->cache_v;
    }
    o->attention_forward(a->o, a->lse, a->q, k, v, layer_span(m, l), c->head_dim,
                         attention_scale(c));
    linear_forward(o, &l->o, m->acts->stream, a->o, tensor_absent());
    o->add(a->mid, a->x, m->acts->stream);
}

void attention_block_backward(struct model *m, struct layer *l, struct layer_acts *a,
                              struct tensor dy)
{
    const struct ops *o = m->setup.ops;
    const struct model_config *c = &m->config;
    const struct acts *s = m->acts;
    const struct tensor all = tensor_absent();
    linear_dweight(o, &l->o, dy, a->o, all);
    linear_dinput(o, &l->o, s->dattention, dy, all, false);

    const struct attention_saved saved = {s->dattention, a->o, a->lse, a->q, a->k, a->v};
    const struct attention_grads grads = {s->dq, s->dk, s->dv};
    o->attention_backward(&grads, &saved, layer_span(m, l), c->head_dim, attention_scale(c));
    o->rope(s->dq, s->positions, m->rope, c->head_dim, true);
    o->rope(s->dk, s->positions, m->rope, c->head_dim, true);
    if (a->q_raw.data) {
        norm_and_clip_backward(m, s->dq, a->q_raw, a->q_rstd, l->q_norm);
        norm_and_clip_backward(m, s->dk, a->k_raw, a->k_rstd, l->k_norm);
    }
    if (c->clip_qkv > 0) o->clamp_backward(s->dv, a->v, c->clip_qkv);

    linear_dweight(o, &l->q, s->dq, a->n1, all);
    linear_dweight(o, &l->k, s->dk, a->n1, all);
    linear_dweight(o, &l->v, s->dv, a->n1, all);
    linear_dinput(o, &l->q, s->dnorm, s->dq, all, false);
    linear_dinput(o, &l->k, s->dnorm, s->dk, all, true);
    linear_dinput(o, &l->v, s->dnorm, s->dv, all, true);
    o->rmsnorm_backward(s->dnorm, weight_grad(m, l->input_norm), s->dnorm, a->x,
                        weight_value(m, l->input_norm), a->rstd1);
    o->add(dy, dy, s->dnorm);
}
