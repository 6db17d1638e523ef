// model/acts.c - see acts.h.
#include "model/acts.h"

#include <string.h>

enum { HEAD_CHUNK_ELEMENTS = 1 << 24, HEAD_CHUNK_ROWS = 512 };

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

// What outlives the forward pass under recomputation too.
static void layout_kept(struct layer_acts *l, struct arena *m, const struct model *model,
                        const struct layer *layer, int64_t N, bool training)
{
    const struct model_config *c = &model->config;
    if (!layer->moe) return;
    const int64_t S = model->setup.routing->slots(model->routing_state, layer->index, training);
    l->z = arena_2d(m, DTYPE_F32, N, c->n_experts);
    l->active = S;
    if (training && model->setup.routing->active) {
        l->active = model->setup.routing->active(model->routing_state, layer->index);
    }
    l->route.expert = arena_2d(m, DTYPE_I32, N, S);
    l->route.weight = arena_2d(m, DTYPE_F32, N, S);
}

static void layout_attention(struct layer_acts *l, struct arena *m, const struct model_config *c,
                             int64_t N, enum dtype A)
{
    const int64_t HD = c->n_heads * c->head_dim, GD = c->n_kv_heads * c->head_dim;
    l->n1 = arena_2d(m, A, N, c->width);
    l->rstd1 = arena_1d(m, DTYPE_F32, N);
    if (c->qk_norm != QK_NORM_NONE || c->clip_qkv > 0) {
        l->q_raw = arena_2d(m, A, N, HD);
        l->k_raw = arena_2d(m, A, N, GD);
    }
    if (c->qk_norm != QK_NORM_NONE) {
        const bool head = c->qk_norm == QK_NORM_HEAD;
        l->q_rstd = arena_1d(m, DTYPE_F32, head ? N * c->n_heads : N);
        l->k_rstd = arena_1d(m, DTYPE_F32, head ? N * c->n_kv_heads : N);
    }
    l->q = arena_2d(m, A, N, HD);
    l->k = arena_2d(m, A, N, GD);
    l->v = arena_2d(m, A, N, GD);
    l->o = arena_2d(m, A, N, HD);
    l->lse = arena_2d(m, DTYPE_F32, N, c->n_heads);
    l->mid = arena_2d(m, A, N, c->width);
}

static void layout_mlp(struct layer_acts *l, struct arena *m, const struct model_config *c,
                       const struct layer *layer, int64_t N, enum dtype A)
{
    l->n2 = arena_2d(m, A, N, c->width);
    l->rstd2 = arena_1d(m, DTYPE_F32, N);
    if (!layer->moe) {
        l->gate = arena_2d(m, A, N, c->dense_width);
        l->up = arena_2d(m, A, N, c->dense_width);
        return;
    }
    const int64_t R = N * l->active;
    l->dispatch.offsets = arena_1d(m, DTYPE_I32, c->n_experts + 1);
    l->dispatch.slot = arena_1d(m, DTYPE_I32, R);
    l->dispatch.row = arena_2d(m, DTYPE_I32, N, l->route.expert.dim[1]);
    l->gate = arena_2d(m, A, R, c->expert_width);
    l->up = arena_2d(m, A, R, c->expert_width);
    if (!layer->shared.gate.groups) return;
    l->shared_gate = arena_2d(m, A, N, c->shared_width);
    l->shared_up = arena_2d(m, A, N, c->shared_width);
    if (layer->shared_gate.groups) l->shared_scale = arena_2d(m, DTYPE_F32, N, 1);
}

static void layout_layer(struct layer_acts *l, struct arena *m, const struct model *model,
                         const struct layer *layer, int64_t N, enum dtype A)
{
    layout_attention(l, m, &model->config, N, A);
    layout_mlp(l, m, &model->config, layer, N, A);
}

static void layout_batch(struct acts *a, struct arena *m, const struct model_config *c, int64_t N)
{
    m->purpose = PURPOSE_DATA;
    a->ids = arena_1d(m, DTYPE_I32, N);
    a->positions = arena_1d(m, DTYPE_I32, N);
    a->span = arena_2d(m, DTYPE_I32, N, 2);
    if (c->window) a->window_span = arena_2d(m, DTYPE_I32, N, 2);
    a->cache_row = arena_1d(m, DTYPE_I32, N);
    a->target = arena_1d(m, DTYPE_I32, N);
    a->target_row = arena_1d(m, DTYPE_I32, N);
}

static void layout_head(struct acts *a, struct arena *m, const struct model_config *c, int64_t N,
                        enum dtype A)
{
    const int64_t rows =
        min64(N, min64(HEAD_CHUNK_ROWS, max64(16, HEAD_CHUNK_ELEMENTS / c->vocab)));
    a->head_x = arena_2d(m, A, rows, c->width);
    a->head_dx = arena_2d(m, A, rows, c->width);
    a->logits = arena_2d(m, DTYPE_F32, rows, c->vocab);
    a->losses = arena_1d(m, DTYPE_F32, rows);
}

// The widest needs over the layers, for scratch that all of them share.
struct widest {
    int64_t rows, hidden, slots;
    bool shared;
};

static struct widest widest_layer(const struct acts *a, const struct model *m, int64_t N)
{
    const struct model_config *c = &m->config;
    struct widest w = {0};
    for (int64_t l = 0; l < c->n_layers; l++) {
        const struct layer *layer = &m->layer[l];
        if (!layer->moe) {
            w.hidden = max64(w.hidden, N * c->dense_width);
            continue;
        }
        const int64_t active = a->layer[l].active;
        w.slots = max64(w.slots, a->layer[l].route.expert.dim[1]);
        w.rows = max64(w.rows, N * active);
        w.hidden = max64(w.hidden, N * active * c->expert_width);
        w.hidden = max64(w.hidden, N * c->shared_width);
        w.shared |= layer->shared.gate.groups > 0;
    }
    return w;
}

static void layout_scratch(struct acts *a, struct arena *m, const struct model *model, int64_t N,
                           enum dtype A)
{
    const struct model_config *c = &model->config;
    const int64_t C = c->width, HD = c->n_heads * c->head_dim, GD = c->n_kv_heads * c->head_dim;
    const struct widest w = widest_layer(a, model, N);
    a->rows = arena_2d(m, A, w.rows, C);
    a->hidden = arena_1d(m, A, w.hidden);
    a->stream = arena_2d(m, A, N, C);
    if (w.shared) a->shared_stream = arena_2d(m, A, N, C);
    if (!a->training) return;
    a->dx = arena_2d(m, A, N, C);
    a->dnorm = arena_2d(m, A, N, C);
    a->dattention = arena_2d(m, A, N, HD);
    a->dq = arena_2d(m, A, N, HD);
    a->dk = arena_2d(m, A, N, GD);
    a->dv = arena_2d(m, A, N, GD);
    if (c->clip_qkv > 0) a->unclipped = arena_2d(m, A, N, HD);
    a->dz = arena_2d(m, DTYPE_F32, N, max64(c->n_experts, 1));
    a->dweight = arena_1d(m, DTYPE_F32, N * w.slots);
    a->dshared = arena_2d(m, DTYPE_F32, N, 1);
}

// Without a backward pass, and under recomputation, the layers share one set of everything that is not
// kept; without a backward pass they share what is kept too, and x.
void acts_layout(struct acts *a, struct arena *arena, const struct model *m, int64_t n,
                 bool training)
{
    const struct model_config *c = &m->config;
    const enum dtype A = a->dtype;
    const bool share = !training || m->setup.recompute;
    a->n = n;
    a->training = training;
    arena->used = 0;
    memset(arena->by_purpose, 0, sizeof arena->by_purpose);
    memset(a->layer, 0, (size_t)c->n_layers * sizeof *a->layer);
    layout_batch(a, arena, c, n);

    arena->purpose = PURPOSE_ACTIVATIONS;
    struct tensor x = arena_2d(arena, A, n, c->width);
    for (int64_t l = 0; l < c->n_layers; l++) {
        if (training && l) x = arena_2d(arena, A, n, c->width);
        a->layer[l].x = x;
        layout_kept(&a->layer[l], arena, m, &m->layer[l], n, training);
        if (!share) layout_layer(&a->layer[l], arena, m, &m->layer[l], n, A);
    }
    a->x_last = training ? arena_2d(arena, A, n, c->width) : x;
    a->final = arena_2d(arena, A, n, c->width);
    a->final_rstd = arena_1d(arena, DTYPE_F32, n);

    arena->purpose = PURPOSE_SCRATCH;
    const size_t start = arena->used;
    size_t end = start;
    for (int64_t l = 0; share && l < c->n_layers; l++) { // one on top of the other
        arena->used = start;
        layout_layer(&a->layer[l], arena, m, &m->layer[l], n, A);
        if (arena->used > end) end = arena->used;
    }
    arena->used = end;
    layout_scratch(a, arena, m, n, A);
    layout_head(a, arena, c, n, A);
    arena->by_purpose[PURPOSE_SCRATCH] = arena->used - start;
}
