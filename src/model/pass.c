// model/pass.c - the forward and the backward pass over the layers.
#include "model/acts.h"

#include <assert.h>

// A row's own key is the last of its span: a window keeps the last ones.
static void upload_window_span(struct model *m, const struct batch *b)
{
    int32_t *span = m->host;
    for (int64_t i = 0; i < b->n; i++) {
        const int64_t first = b->span[2 * i], last = b->span[2 * i + 1];
        const int64_t reach = last - m->config.window + 1;
        span[2 * i] = (int32_t)(reach > first ? reach : first);
        span[2 * i + 1] = (int32_t)last;
    }
    m->setup.ops->upload(m->acts->window_span.data, span, 2 * (size_t)b->n * sizeof *span);
}

static void upload_batch(struct model *m, const struct batch *b, const int32_t *cache_row)
{
    const struct ops *o = m->setup.ops;
    struct acts *a = m->acts;
    const size_t bytes = (size_t)b->n * sizeof(int32_t);
    o->upload(a->ids.data, b->id, bytes);
    o->upload(a->positions.data, b->position, bytes);
    o->upload(a->span.data, b->span, 2 * bytes);
    if (m->config.window) upload_window_span(m, b);
    if (cache_row) o->upload(a->cache_row.data, cache_row, bytes);
}

int64_t model_upload_targets(struct model *m, const struct batch *b)
{
    const struct ops *o = m->setup.ops;
    int32_t *target = m->host, *row = m->host + b->n;
    int64_t n = 0;
    for (int64_t i = 0; i < b->n; i++) {
        if (b->target[i] < 0) continue;
        target[n] = b->target[i];
        row[n++] = (int32_t)i;
    }
    o->upload(m->acts->target.data, target, (size_t)n * sizeof *target);
    o->upload(m->acts->target_row.data, row, (size_t)n * sizeof *row);
    return n;
}

void model_count_layer(struct model *m, int64_t layer, struct tensor z, struct tensor offsets)
{
    const bool training = m->acts->training;
    if (training || m->count_usage) {
        m->setup.ops->count_rows(tensor_rows(m->usage, layer, 1), offsets);
    }
    if (training && router_losses_on(&m->router_losses)) {
        router_losses_layer(&m->router_losses, z, offsets, m->router_loss_weight);
    }
}

void model_forward(struct model *m, const struct batch *b, const int32_t *cache_row, bool training)
{
    const struct ops *o = m->setup.ops;
    const int64_t L = m->config.n_layers;
    struct acts *a = m->acts;
    assert(b->n > 0 && b->n <= m->setup.max_tokens);
    acts_layout(a, &m->work, m, b->n, training);
    const struct tuning *t = m->setup.tuning;
    if (t && t->begin) t->begin(m->tuning_state, m->pass, training && model_learns(m));
    a->cached = cache_row != NULL;
    upload_batch(m, b, cache_row);
    const bool router_losses = training && router_losses_on(&m->router_losses);
    if (router_losses) router_losses_begin(&m->router_losses);
    o->embedding_forward(a->layer[0].x, weight_value(m, m->embedding), a->ids);
    for (int64_t l = 0; l < L; l++) {
        attention_block_forward(m, &m->layer[l], &a->layer[l]);
        const struct tensor y = l + 1 < L ? a->layer[l + 1].x : a->x_last;
        mlp_block_forward(m, &m->layer[l], &a->layer[l], y, true);
    }
    if (router_losses) router_losses_end(&m->router_losses, b->n, m->router_loss_weight);
    o->rmsnorm_forward(a->final, a->final_rstd, a->x_last, weight_value(m, m->final_norm),
                       m->config.norm_eps);
}

static void section_complete(const struct model *m, int64_t section)
{
    if (m->gradients.complete) m->gradients.complete(m->gradients.user, section);
}

void model_backward(struct model *m, const struct batch *b)
{
    struct acts *a = m->acts;
    const int64_t L = m->config.n_layers;
    assert(a->n == b->n && a->training);
    section_complete(m, section_of_head(L));
    for (int64_t l = L - 1; l >= 0 && 2 * l + 1 >= m->first_learning; l--) {
        struct layer *layer = &m->layer[l];
        if (m->setup.recompute && l < L - 1) { // the last layer's are still there
            attention_block_forward(m, layer, &a->layer[l]);
            mlp_block_forward(m, layer, &a->layer[l], tensor_absent(), false);
        }
        const bool attention = 2 * l >= m->first_learning;
        mlp_block_backward(m, layer, &a->layer[l], a->dx, attention);
        section_complete(m, section_of(l, true));
        if (attention) attention_block_backward(m, layer, &a->layer[l], a->dx);
        section_complete(m, section_of(l, false));
    }
    if (m->first_learning < 0) {
        m->setup.ops->embedding_backward(weight_grad(m, m->embedding), a->dx, a->ids);
    }
    section_complete(m, SECTION_EMBEDDING);
    section_complete(m, SECTION_NONE);
}
