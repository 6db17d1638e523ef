// model/head.c - the last norm, the output projection and the loss, over the supervised rows only and in
// chunks, so that the full logits never exist; their gradient is written over them.
#include "model/acts.h"

#include <assert.h>

static int64_t chunk_rows(const struct acts *a)
{
    return a->logits.dim[0];
}

// logits (n,V) of some rows of the last norm's output, in the type asked for.
static struct tensor chunk_logits(struct model *m, struct tensor x, struct tensor row, enum dtype t)
{
    const struct ops *o = m->setup.ops;
    const struct tensor logits = tensor_2d(m->acts->logits.data, t, row.dim[0], m->config.vocab);
    o->gather_rows(x, m->acts->final, row);
    linear_forward(o, &m->head_bank, logits, x, tensor_absent());
    return logits;
}

static void chunk_backward(struct model *m, struct tensor dlogits, struct tensor x,
                           struct tensor row)
{
    const struct ops *o = m->setup.ops;
    const struct tensor dx = tensor_rows(m->acts->head_dx, 0, row.dim[0]), all = tensor_absent();
    linear_dweight(o, &m->head_bank, dlogits, x, all);
    linear_dinput(o, &m->head_bank, dx, dlogits, all, false);
    o->place_rows(m->acts->dx, dx, row);
}

void model_loss(struct model *m, const struct batch *b, float scale)
{
    const struct ops *o = m->setup.ops;
    struct acts *a = m->acts;
    assert(a->n == b->n && (a->training || scale == 0));
    const int64_t supervised = model_upload_targets(m, b);
    if (scale != 0) o->zero(a->dx);
    for (int64_t at = 0; at < supervised; at += chunk_rows(a)) {
        const int64_t left = supervised - at, n = left < chunk_rows(a) ? left : chunk_rows(a);
        const struct tensor row = tensor_rows(a->target_row, at, n);
        const struct tensor x = tensor_rows(a->head_x, 0, n), losses = tensor_rows(a->losses, 0, n);
        const struct tensor logits = chunk_logits(m, x, row, a->dtype);
        o->cross_entropy(losses, logits, tensor_rows(a->target, at, n), scale);
        o->sum(m->loss_sum, losses);
        if (scale != 0) chunk_backward(m, logits, x, row);
    }
    if (scale == 0) return;
    o->rmsnorm_backward(a->dx, weight_grad(m, m->final_norm), a->dx, a->x_last,
                        weight_value(m, m->final_norm), a->final_rstd);
}

// The targets stand on the backend and, as the first n of them, in host memory.
static int64_t count_hits(struct model *m, const int32_t *target, int64_t at, int64_t n)
{
    const struct ops *o = m->setup.ops;
    struct acts *a = m->acts;
    int32_t best[64];
    int64_t hits = 0;
    assert(n <= 64);
    const struct tensor x = tensor_rows(a->head_x, 0, n);
    const struct tensor y = chunk_logits(m, x, tensor_rows(a->target_row, at, n), DTYPE_F32);
    const struct tensor index = tensor_2d(a->losses.data, DTYPE_I32, n, 1); // as wide as a loss
    o->topk(index, y);
    o->download(best, index.data, tensor_bytes(index));
    for (int64_t i = 0; i < n; i++) {
        hits += best[i] == target[at + i];
    }
    return hits;
}

int64_t model_hits(struct model *m, const struct batch *b)
{
    const int64_t supervised = model_upload_targets(m, b);
    const int64_t most = chunk_rows(m->acts) < 64 ? chunk_rows(m->acts) : 64;
    int64_t hits = 0;
    for (int64_t at = 0; at < supervised; at += most) {
        const int64_t left = supervised - at;
        hits += count_hits(m, m->host, at, left < most ? left : most);
    }
    return hits;
}

void model_logits(struct model *m, const int32_t *row, int64_t n_rows, float *logits)
{
    const struct ops *o = m->setup.ops;
    struct acts *a = m->acts;
    const int64_t V = m->config.vocab;
    for (int64_t at = 0; at < n_rows; at += chunk_rows(a)) {
        const int64_t left = n_rows - at, n = left < chunk_rows(a) ? left : chunk_rows(a);
        const struct tensor index = tensor_rows(a->target_row, 0, n);
        o->upload(index.data, row + at, tensor_bytes(index));
        const struct tensor x = tensor_rows(a->head_x, 0, n);
        const struct tensor y = chunk_logits(m, x, index, DTYPE_F32);
        o->download(logits + at * V, y.data, tensor_bytes(y));
    }
}

void model_token_losses(struct model *m, const struct batch *b, float *loss)
{
    const struct ops *o = m->setup.ops;
    struct acts *a = m->acts;
    assert(a->n == b->n);
    const int64_t supervised = model_upload_targets(m, b);
    for (int64_t at = 0; at < supervised; at += chunk_rows(a)) {
        const int64_t left = supervised - at, n = left < chunk_rows(a) ? left : chunk_rows(a);
        const struct tensor losses = tensor_rows(a->losses, 0, n);
        const struct tensor logits = chunk_logits(m, tensor_rows(a->head_x, 0, n),
                                                  tensor_rows(a->target_row, at, n), DTYPE_F32);
        o->cross_entropy(losses, logits, tensor_rows(a->target, at, n), 0);
        o->download(loss + at, losses.data, tensor_bytes(losses));
    }
}
