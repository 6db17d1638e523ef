// ops/cpu/attention.c - softmax(scale q k^T) v over spans, in tiles with a running maximum and sum (the
// online softmax of Milakov & Gimelshein 2018, tiled as in Dao et al. 2022).
#include "ops/cpu/attention.h"

#include "ops/cpu/product.h"

#include <assert.h>

enum {
    QUERIES = 128, // of a tile
    KEYS = 256,
    BLOCK_QUERIES = 512, // of a task: packed keys and values serve that many
    FEW_QUERIES = 4,
    MANY_TASKS = 64, // enough for any machine; with fewer, tasks are made smaller
};

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

void attention_pack(float *out, struct tensor x, int64_t first, int64_t n, int64_t head, int64_t D)
{
    const int64_t width = x.dim[1];
    for (int64_t r = 0; r < n; r++) {
        to_f32(out + r * D, element_at(x, (first + r) * width + head * D), x.dtype, D);
    }
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

struct outputs {
    struct tensor o, lse;
};
struct inputs {
    struct tensor q, k, v;
};

// A task's queries, and the sums over the keys seen so far: rows of D, dense.
struct block {
    int64_t head, query, queries;
    float *q, *o, *score, *k, *v; // score: of one tile; k, v: of one tile's keys
    float max[BLOCK_QUERIES], sum[BLOCK_QUERIES];
    int64_t first[BLOCK_QUERIES / QUERIES],
        end[BLOCK_QUERIES / QUERIES]; // keys that a tile reaches
};

// Scores (queries, keys) become e^(score - max), zero outside the spans; what is already in o is scaled
// to a new maximum. row: the tile's first in the block.
VECTOR_CLONES
static void soften(const struct attention *a, const struct tile *t, struct block *b, int64_t row)
{
    for (int64_t i = 0; i < t->queries; i++) {
        float *score = b->score + i * t->keys, *max = &b->max[row + i], *sum = &b->sum[row + i];
        int64_t from, to;
        attention_clip(a, t, t->query + i, &from, &to);
        if (from >= to) {
            memset(score, 0, (size_t)t->keys * sizeof *score);
            continue;
        }
        const float largest = fmaxf(*max, max_f32(score + from, to - from));
        if (largest > *max) {
            const float shrink = exp_f32(*max - largest);
            float *o = b->o + (row + i) * a->D;
            *sum *= shrink;
            for (int64_t d = 0; d < a->D; d++) {
                o[d] *= shrink;
            }
            *max = largest;
        }
        *sum += exp_sum_f32(score + from, score + from, largest, to - from);
        memset(score, 0, (size_t)from * sizeof *score);
        memset(score + to, 0, (size_t)(t->keys - to) * sizeof *score);
    }
}

static void store(const struct attention *a, const struct outputs *out, struct block *b)
{
    for (int64_t i = 0; i < b->queries; i++) {
        const float inverse = b->sum[i] != 0.0f ? 1.0f / b->sum[i] : 0.0f; // 0: an empty span
        float *o = b->o + i * a->D;
        for (int64_t d = 0; d < a->D; d++) {
            o[d] *= inverse;
        }
        const int64_t n = b->query + i;
        block_store(out->o, (n * a->H + b->head) * a->D, o, a->D);
        if (out->lse.data) data_f32(out->lse)[n * a->H + b->head] = b->max[i] + logf(b->sum[i]);
    }
}

// Keys [t->key, t->key + t->keys), at k and v, against the tile's queries.
static void one_tile(const struct attention *a, const struct tile *t, struct block *b,
                     const float *k, const float *v)
{
    const int64_t row = t->query - b->query;
    const struct product s = {.m = t->queries,
                              .n = t->keys,
                              .k = a->D,
                              .a = b->q + row * a->D,
                              .lda = a->D,
                              .b = k,
                              .ldb = a->D,
                              .transposed_b = true,
                              .c = b->score,
                              .ldc = t->keys};
    product_f32(&s, a->scale);
    soften(a, t, b, row);
    const struct product pv = {.m = t->queries,
                               .n = a->D,
                               .k = t->keys,
                               .a = b->score,
                               .lda = t->keys,
                               .b = v,
                               .ldb = a->D,
                               .c = b->o + row * a->D,
                               .ldc = a->D,
                               .accumulate = true};
    product_f32(&pv, 1.0f);
}

// All tiles of the block against keys [key, key + KEYS), of which each takes what it reaches.
static void key_column(const struct attention *a, const struct inputs *in, struct block *b,
                       int64_t key)
{
    bool packed = false;
    for (int64_t i = 0; i < ceil_div(b->queries, QUERIES); i++) {
        struct tile t = {.query = b->query + i * QUERIES, .key = max_i64(key, b->first[i])};
        t.queries = min_i64(QUERIES, b->query + b->queries - t.query);
        t.keys = min_i64(key + KEYS, b->end[i]) - t.key;
        if (t.keys <= 0 || !attention_touches(a, &t)) continue;
        if (!packed) {
            const int64_t kv_head = b->head / (a->H / a->G), n = min_i64(KEYS, a->M - key);
            attention_pack(b->k, in->k, key, n, kv_head, a->D);
            attention_pack(b->v, in->v, key, n, kv_head, a->D);
            packed = true;
        }
        one_tile(a, &t, b, b->k + (t.key - key) * a->D, b->v + (t.key - key) * a->D);
    }
}

// Space for a block's rows, with nothing summed yet.
static void open_block(struct block *b, const struct attention *a, const struct inputs *in,
                       int64_t rows)
{
    b->q = scratch_f32(SCRATCH_A, 2 * rows * a->D);
    b->o = b->q + rows * a->D;
    b->k = scratch_f32(SCRATCH_B, 2 * KEYS * a->D);
    b->v = b->k + KEYS * a->D;
    b->score = scratch_f32(SCRATCH_C, QUERIES * KEYS);
    attention_pack(b->q, in->q, b->query, b->queries, b->head, a->D);
    memset(b->o, 0, (size_t)(b->queries * a->D) * sizeof *b->o);
    for (int64_t i = 0; i < b->queries; i++) {
        b->max[i] = -INFINITY;
        b->sum[i] = 0;
    }
}

static void query_block(const struct attention *a, const struct outputs *out,
                        const struct inputs *in, int64_t head, int64_t query, int64_t rows)
{
    struct block b = {.head = head, .query = query, .queries = min_i64(rows, a->N - query)};
    open_block(&b, a, in, rows);
    int64_t first = a->M, end = 0;
    for (int64_t i = 0; i < ceil_div(b.queries, QUERIES); i++) {
        const int64_t n = min_i64(QUERIES, b.queries - i * QUERIES);
        if (!attention_reach(a, query + i * QUERIES, n, &b.first[i], &b.end[i])) continue;
        first = min_i64(first, b.first[i]);
        end = max_i64(end, b.end[i]);
    }
    for (int64_t key = first; key < end; key += KEYS) {
        key_column(a, in, &b, key);
    }
    store(a, out, &b);
}

// Scores of one row of one head, and what it adds to o, without products: generation, where a row meets a
// cache.
VECTOR_CLONES
static void row_scores(const struct attention *a, const struct block *b, int64_t keys)
{
    for (int64_t m = 0; m < keys; m++) {
        b->score[m] = a->scale * dot_f32(b->q, b->k + m * a->D, a->D);
    }
}

VECTOR_CLONES
static void row_values(const struct attention *a, const struct block *b, int64_t keys)
{
    float *restrict o = b->o;
    for (int64_t m = 0; m < keys; m++) {
        const float p = b->score[m], *v = b->v + m * a->D;
        for (int64_t d = 0; d < a->D; d++) {
            o[d] += p * v[d];
        }
    }
}

static void query_row(const struct attention *a, const struct outputs *out, const struct inputs *in,
                      int64_t head, int64_t n)
{
    const int64_t kv_head = head / (a->H / a->G);
    struct block b = {.head = head, .query = n, .queries = 1};
    struct tile t = {.query = n, .queries = 1};
    open_block(&b, a, in, 1);
    int64_t first, end;
    if (!attention_reach(a, n, 1, &first, &end)) end = first = 0;
    for (t.key = first; t.key < end; t.key += KEYS) {
        t.keys = min_i64(KEYS, end - t.key);
        attention_pack(b.k, in->k, t.key, t.keys, kv_head, a->D);
        attention_pack(b.v, in->v, t.key, t.keys, kv_head, a->D);
        row_scores(a, &b, t.keys);
        soften(a, &t, &b, 0);
        row_values(a, &b, t.keys);
    }
    store(a, out, &b);
}

struct forward {
    struct attention a;
    struct outputs out;
    struct inputs in;
    int64_t rows; // of a block
};

static void task_of_row(const void *op, int64_t i)
{
    const struct forward *f = op;
    query_row(&f->a, &f->out, &f->in, i % f->a.H, i / f->a.H);
}

static void task_of_block(const void *op, int64_t i)
{
    const struct forward *f = op;
    query_block(&f->a, &f->out, &f->in, i % f->a.H, i / f->a.H * f->rows, f->rows);
}

void cpu_attention_forward(struct tensor o, struct tensor lse, struct tensor q, struct tensor k,
                           struct tensor v, struct tensor span, int64_t head_dim, float scale)
{
    struct forward f = {attention_make(q, k, span, head_dim, scale), {o, lse}, {q, k, v}, 0};
    const struct attention *a = &f.a;
    if (a->N <= FEW_QUERIES) {
        cpu_tasks(a->N * a->H, a->N * a->M * a->H * a->D > SMALL_WORK * 4, task_of_row, &f);
        return;
    }
    const bool many = a->H * ceil_div(a->N, BLOCK_QUERIES) >= MANY_TASKS;
    f.rows = many ? BLOCK_QUERIES : QUERIES;
    cpu_tasks(ceil_div(a->N, f.rows) * a->H, a->N * a->H * a->D > SMALL_WORK, task_of_block, &f);
}
