// ops/cpu/attention.c - softmax(scale q k^T) v over spans, in tiles with a running maximum and sum (the
// online softmax of Milakov & Gimelshein 2018, tiled as in Dao et al. 2022).
#include "ops/cpu/attention.h"

#include "ops/cpu/product.h"

#include <assert.h>

enum { QUERIES = 128, KEYS = 512, FEW_QUERIES = 4 };

struct attention attention_make(struct tensor q, struct tensor k, struct tensor span,
                                int64_t head_dim, float scale)
{
    const struct attention a = {.N = q.dim[0],
                                .M = k.dim[0],
                                .H = q.dim[1] / head_dim,
                                .G = k.dim[1] / head_dim,
                                .D = head_dim,
                                .span = data_i32(span),
                                .scale = scale};
    assert(a.H * a.D == q.dim[1] && a.G * a.D == k.dim[1] && a.H % a.G == 0);
    assert(tensor_count(span) == 2 * a.N);
    for (int64_t n = 0; n < a.N; n++) {
        assert(a.span[2 * n] >= 0 && a.span[2 * n + 1] < a.M);
    }
    return a;
}

struct rows attention_rows(enum scratch_use use, struct tensor x, int64_t first, int64_t n,
                           int64_t head, int64_t D)
{
    const int64_t width = x.dim[1], at = first * width + head * D;
    if (x.dtype == DTYPE_F32) return (struct rows){data_f32(x) + at, width};
    float *block = scratch_f32(use, n * D);
    for (int64_t r = 0; r < n; r++) {
        to_f32(block + r * D, element_at(x, at + r * width), x.dtype, D);
    }
    return (struct rows){block, D};
}

bool attention_reach(const struct attention *a, int64_t query, int64_t queries, int64_t *first,
                     int64_t *end)
{
    *first = a->M;
    *end = 0;
    for (int64_t n = query; n < query + queries; n++) {
        if (a->span[2 * n] > a->span[2 * n + 1]) continue;
        *first = min_i64(*first, a->span[2 * n]);
        *end = max_i64(*end, (int64_t)a->span[2 * n + 1] + 1);
    }
    return *first < *end;
}

bool attention_touches(const struct attention *a, const struct tile *t)
{
    for (int64_t n = t->query; n < t->query + t->queries; n++) {
        int64_t from, to;
        attention_clip(a, t, n, &from, &to);
        if (from < to) return true;
    }
    return false;
}

struct running { // per query row of a tile
    float max[QUERIES], sum[QUERIES];
};

// Scores (queries, keys) become e^(score - max), zero outside the spans; what is already in o is scaled
// to a new maximum.
static void soften(const struct attention *a, const struct tile *t, float *score, float *o,
                   struct running *r)
{
    for (int64_t i = 0; i < t->queries; i++) {
        float *row = score + i * t->keys;
        int64_t from, to;
        attention_clip(a, t, t->query + i, &from, &to);
        if (from >= to) {
            memset(row, 0, (size_t)t->keys * sizeof *row);
            continue;
        }
        const float max = fmaxf(r->max[i], max_f32(row + from, to - from));
        const float sum = exp_sum_f32(row + from, row + from, max, to - from);
        memset(row, 0, (size_t)from * sizeof *row);
        memset(row + to, 0, (size_t)(t->keys - to) * sizeof *row);
        if (max > r->max[i]) {
            const float shrink = exp_f32(r->max[i] - max);
            r->sum[i] *= shrink;
            for (int64_t d = 0; d < a->D; d++) {
                o[i * a->D + d] *= shrink;
            }
            r->max[i] = max;
        }
        r->sum[i] += sum;
    }
}

struct outputs {
    struct tensor o, lse;
};

static void store(const struct attention *a, const struct outputs *out, const struct tile *t,
                  int64_t head, float *o, const struct running *r)
{
    for (int64_t i = 0; i < t->queries; i++) {
        const float inverse = r->sum[i] != 0.0f ? 1.0f / r->sum[i] : 0.0f; // 0: an empty span
        for (int64_t d = 0; d < a->D; d++) {
            o[i * a->D + d] *= inverse;
        }
        const int64_t n = t->query + i;
        block_store(out->o, (n * a->H + head) * a->D, o + i * a->D, a->D);
        if (out->lse.data) data_f32(out->lse)[n * a->H + head] = r->max[i] + logf(r->sum[i]);
    }
}

static void one_tile(const struct attention *a, const struct tile *t, struct rows q, struct rows k,
                     struct rows v, float *score, float *o, struct running *r)
{
    const struct product s = {.m = t->queries,
                              .n = t->keys,
                              .k = a->D,
                              .a = q.at,
                              .lda = q.step,
                              .b = k.at,
                              .ldb = k.step,
                              .transposed_b = true,
                              .c = score,
                              .ldc = t->keys};
    product_f32(&s, a->scale);
    soften(a, t, score, o, r);
    const struct product pv = {.m = t->queries,
                               .n = a->D,
                               .k = t->keys,
                               .a = score,
                               .lda = t->keys,
                               .b = v.at,
                               .ldb = v.step,
                               .c = o,
                               .ldc = a->D,
                               .accumulate = true};
    product_f32(&pv, 1.0f);
}

struct inputs {
    struct tensor q, k, v;
};

static void query_tile(const struct attention *a, const struct outputs *out,
                       const struct inputs *in, int64_t head, int64_t query)
{
    struct tile t = {.query = query, .queries = min_i64(QUERIES, a->N - query)};
    float *score = scratch_f32(SCRATCH_D, QUERIES * (KEYS + a->D)), *o = score + QUERIES * KEYS;
    memset(o, 0, (size_t)(t.queries * a->D) * sizeof *o);
    struct running r;
    for (int64_t i = 0; i < t.queries; i++) {
        r.max[i] = -INFINITY;
        r.sum[i] = 0;
    }
    const int64_t kv_head = head / (a->H / a->G);
    const struct rows q = attention_rows(SCRATCH_A, in->q, query, t.queries, head, a->D);
    int64_t first, end;
    if (!attention_reach(a, query, t.queries, &first, &end)) end = first = 0;
    for (t.key = first; t.key < end; t.key += KEYS) {
        t.keys = min_i64(KEYS, end - t.key);
        if (!attention_touches(a, &t)) continue;
        const struct rows k = attention_rows(SCRATCH_B, in->k, t.key, t.keys, kv_head, a->D);
        const struct rows v = attention_rows(SCRATCH_C, in->v, t.key, t.keys, kv_head, a->D);
        one_tile(a, &t, q, k, v, score, o, &r);
    }
    store(a, out, &t, head, o, &r);
}

// One row of one head without products: generation, where a row meets a cache.
static void query_row(const struct attention *a, const struct outputs *out, const struct inputs *in,
                      int64_t head, int64_t n)
{
    struct tile t = {.query = n, .queries = 1};
    float *score = scratch_f32(SCRATCH_D, KEYS + a->D), *o = score + KEYS;
    memset(o, 0, (size_t)a->D * sizeof *o);
    struct running r;
    r.max[0] = -INFINITY;
    r.sum[0] = 0;
    const int64_t kv_head = head / (a->H / a->G);
    const struct rows q = attention_rows(SCRATCH_A, in->q, n, 1, head, a->D);
    int64_t first, end;
    if (!attention_reach(a, n, 1, &first, &end)) end = first = 0;
    for (t.key = first; t.key < end; t.key += KEYS) {
        t.keys = min_i64(KEYS, end - t.key);
        const struct rows k = attention_rows(SCRATCH_B, in->k, t.key, t.keys, kv_head, a->D);
        const struct rows v = attention_rows(SCRATCH_C, in->v, t.key, t.keys, kv_head, a->D);
        for (int64_t m = 0; m < t.keys; m++) {
            score[m] = a->scale * dot_f32(q.at, k.at + m * k.step, a->D);
        }
        soften(a, &t, score, o, &r);
        for (int64_t m = 0; m < t.keys; m++) {
            for (int64_t d = 0; d < a->D; d++) {
                o[d] = __builtin_fmaf(score[m], v.at[m * v.step + d], o[d]);
            }
        }
    }
    store(a, out, &t, head, o, &r);
}

void cpu_attention_forward(struct tensor o, struct tensor lse, struct tensor q, struct tensor k,
                           struct tensor v, struct tensor span, int64_t head_dim, float scale)
{
    const struct attention a = attention_make(q, k, span, head_dim, scale);
    const struct outputs out = {o, lse};
    const struct inputs in = {q, k, v};
    if (a.N <= FEW_QUERIES) {
        const bool worth = a.N * a.M * a.H * a.D > SMALL_WORK * 4;
#pragma omp parallel for schedule(dynamic, 1) num_threads(cpu_threads()) if (worth)
        for (int64_t i = 0; i < a.N * a.H; i++) {
            query_row(&a, &out, &in, i % a.H, i / a.H);
        }
        return;
    }
    const int64_t tiles = ceil_div(a.N, QUERIES);
    const bool worth = a.N * a.H * a.D > SMALL_WORK;
#pragma omp parallel for schedule(dynamic, 1) num_threads(cpu_threads()) if (worth)
    for (int64_t i = 0; i < tiles * a.H; i++) {
        query_tile(&a, &out, &in, i % a.H, i / a.H * QUERIES);
    }
}
