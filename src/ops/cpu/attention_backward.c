// ops/cpu/attention_backward.c - the gradients of attention, tile by tile, with p recomputed from lse:
//   p = e^(scale q k^T - lse),  dv = p^T do,  ds = p (do v^T - <do, o>),  dq = scale ds k,
//   dk = scale ds^T q
// Rows that share no keys with others (documents) form parts. If there are enough (part, kv head) pairs
// for the threads, a task is one pair and forms each tile once. Else tasks own a tile of keys (dk, dv) or
// of queries (dq), and tiles are formed twice. Every output is the same sum in the same order either
// way: over heads, queries, keys ascending.
#include "ops/cpu/attention.h"
#include "ops/cpu/product.h"

#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>

enum {
    QUERIES = 128, // of a tile
    KEYS = 256,
    LARGE_PART = 512 * 1024, // key elements of one head beyond which keys are packed tile by tile
};

struct part { // of the score matrix, with nothing beside it
    int64_t query, query_end, key, key_end;
};

struct problem {
    struct attention a;
    const struct attention_grads *d;
    const struct attention_saved *s;
    struct part *part; // at most N
    int64_t parts;
};

// Keys, values and the sums of their gradients of one kv head, dense, from key `first` on. Without sums
// only dq is wanted.
struct keys {
    int64_t first, count;
    float *k, *v, *dk, *dv;
};

// The same of a tile of queries of one head; dq NULL: not wanted.
struct queries {
    int64_t head, first, count;
    float *q, *dout, *dq;
    float lse[QUERIES], delta[QUERIES];
};

// Parts begin where no later row reaches back over what earlier rows have reached.
static void find_parts(struct problem *p, int64_t *lowest)
{
    const struct attention *a = &p->a;
    lowest[a->N] = a->M;
    for (int64_t n = a->N - 1; n >= 0; n--) {
        const bool empty = a->span[2 * n] > a->span[2 * n + 1];
        lowest[n] = empty ? lowest[n + 1] : min_i64(lowest[n + 1], a->span[2 * n]);
    }
    int64_t reached = 0;
    for (int64_t n = 0; n < a->N; n++) {
        if (n == 0 || lowest[n] >= reached) {
            const int64_t key = min_i64(lowest[n], a->M);
            p->part[p->parts++] = (struct part){n, n, key, key};
        }
        struct part *last = &p->part[p->parts - 1];
        if (a->span[2 * n] <= a->span[2 * n + 1]) {
            reached = max_i64(reached, (int64_t)a->span[2 * n + 1] + 1);
        }
        last->query_end = n + 1;
        last->key_end = max_i64(last->key_end, reached);
    }
}

static struct keys open_keys(const struct problem *p, int64_t kv_head, int64_t first, int64_t count,
                             bool sums)
{
    const int64_t size = count * p->a.D;
    struct keys w = {.first = first, .count = count};
    w.k = scratch_f32(SCRATCH_B, 2 * size);
    w.v = w.k + size;
    attention_pack(w.k, p->s->k, first, count, kv_head, p->a.D);
    attention_pack(w.v, p->s->v, first, count, kv_head, p->a.D);
    if (!sums) return w;
    w.dk = scratch_f32(SCRATCH_SUMS, 2 * size);
    w.dv = w.dk + size;
    memset(w.dk, 0, (size_t)(2 * size) * sizeof *w.dk);
    return w;
}

static void close_keys(const struct problem *p, int64_t kv_head, const struct keys *w)
{
    const int64_t D = p->a.D;
    for (int64_t r = 0; r < w->count; r++) {
        const int64_t at = ((w->first + r) * p->a.G + kv_head) * D;
        block_store(p->d->dk, at, w->dk + r * D, D);
        block_store(p->d->dv, at, w->dv + r * D, D);
    }
}

static void open_queries(struct queries *u, const struct problem *p, int64_t head, int64_t first,
                         int64_t count, bool sums)
{
    const int64_t D = p->a.D, H = p->a.H;
    float buffer[BLOCK];
    u->head = head;
    u->first = first;
    u->count = count;
    u->q = scratch_f32(SCRATCH_A, 3 * QUERIES * D);
    u->dout = u->q + QUERIES * D;
    u->dq = sums ? u->q + 2 * QUERIES * D : NULL;
    attention_pack(u->q, p->s->q, first, count, head, D);
    attention_pack(u->dout, p->s->dout, first, count, head, D);
    if (sums) memset(u->dq, 0, (size_t)(count * D) * sizeof *u->dq);
    for (int64_t i = 0; i < count; i++) {
        const int64_t at = (first + i) * H + head;
        u->lse[i] = data_f32(p->s->lse)[at];
        u->delta[i] = dot_f32(block_load(buffer, p->s->o, at * D, D), u->dout + i * D, D);
    }
}

static void close_queries(const struct problem *p, const struct queries *u)
{
    const int64_t D = p->a.D;
    for (int64_t i = 0; i < u->count; i++) {
        block_store(p->d->dq, ((u->first + i) * p->a.H + u->head) * D, u->dq + i * D, D);
    }
}

// Scores become p, and ds = p (dp - delta), both zero outside the spans.
VECTOR_CLONES
static void differentiate(const struct attention *a, const struct tile *t, const struct queries *u,
                          float *p, float *ds)
{
    for (int64_t i = 0; i < t->queries; i++) {
        float *prow = p + i * t->keys, *row = ds + i * t->keys;
        const float lse = u->lse[i], delta = u->delta[i];
        int64_t from, to;
        attention_clip(a, t, t->query + i, &from, &to);
        if (from >= to) from = to = 0;
        memset(prow, 0, (size_t)from * sizeof *prow);
        memset(row, 0, (size_t)from * sizeof *row);
#pragma omp simd
        for (int64_t j = from; j < to; j++) {
            const float e = exp_f32(prow[j] - lse);
            prow[j] = e;
            row[j] = e * (row[j] - delta);
        }
        memset(prow + to, 0, (size_t)(t->keys - to) * sizeof *prow);
        memset(row + to, 0, (size_t)(t->keys - to) * sizeof *row);
    }
}

// p and ds of a tile: keys at k and v.
static void form_tile(const struct attention *a, const struct tile *t, const struct queries *u,
                      const float *k, const float *v, float *p, float *ds)
{
    struct product s = {.m = t->queries,
                        .n = t->keys,
                        .k = a->D,
                        .a = u->q,
                        .lda = a->D,
                        .b = k,
                        .ldb = a->D,
                        .transposed_b = true,
                        .c = p,
                        .ldc = t->keys};
    product_f32(&s, a->scale);
    s.a = u->dout;
    s.b = v;
    s.c = ds;
    product_f32(&s, 1.0f);
    differentiate(a, t, u, p, ds);
}

// dq += scale ds k
static void add_to_queries(const struct attention *a, const struct tile *t, const float *ds,
                           const float *k, float *dq)
{
    const struct product s = {.m = t->queries,
                              .n = a->D,
                              .k = t->keys,
                              .a = ds,
                              .lda = t->keys,
                              .b = k,
                              .ldb = a->D,
                              .c = dq,
                              .ldc = a->D,
                              .accumulate = true};
    product_f32(&s, a->scale);
}

// sums += scale weights^T rows: dk from ds and q, dv from p and do
static void add_to_keys(const struct attention *a, const struct tile *t, const float *weights,
                        const float *rows, float *sums, float scale)
{
    const struct product s = {.m = t->keys,
                              .n = a->D,
                              .k = t->queries,
                              .a = weights,
                              .lda = t->keys,
                              .transposed_a = true,
                              .b = rows,
                              .ldb = a->D,
                              .c = sums,
                              .ldc = a->D,
                              .accumulate = true};
    product_f32(&s, scale);
}

// One tile of queries against one of keys, cut to the keys that the queries reach.
static void one_tile(const struct problem *p, const struct queries *u, const struct keys *w,
                     int64_t key, int64_t end)
{
    const struct attention *a = &p->a;
    struct tile t = {.query = u->first, .queries = u->count};
    int64_t first, last;
    if (!attention_reach(a, u->first, u->count, &first, &last)) return;
    t.key = max_i64(key, first);
    t.keys = min_i64(end, last) - t.key;
    if (t.keys <= 0 || !attention_touches(a, &t)) return;
    float *weights = scratch_f32(SCRATCH_C, 2 * QUERIES * KEYS), *ds = weights + QUERIES * KEYS;
    const int64_t at = (t.key - w->first) * a->D;
    form_tile(a, &t, u, w->k + at, w->v + at, weights, ds);
    if (u->dq) add_to_queries(a, &t, ds, w->k + at, u->dq);
    if (w->dk) add_to_keys(a, &t, ds, u->q, w->dk + at, a->scale);
    if (w->dv) add_to_keys(a, &t, weights, u->dout, w->dv + at, 1.0f);
}

// Queries [first, ...) of one head against all keys of the part, which are packed in w.
static void query_tile(const struct problem *p, const struct part *part, const struct keys *w,
                       int64_t head, int64_t first)
{
    struct queries u;
    open_queries(&u, p, head, first, min_i64(QUERIES, part->query_end - first), true);
    for (int64_t key = part->key; key < part->key_end; key += KEYS) {
        one_tile(p, &u, w, key, min_i64(key + KEYS, part->key_end));
    }
    close_queries(p, &u);
}

// A whole part for one key-value head and its query heads.
static void part_task(const struct problem *p, const struct part *part, int64_t kv_head)
{
    const int64_t heads = p->a.H / p->a.G;
    const struct keys w = open_keys(p, kv_head, part->key, part->key_end - part->key, true);
    for (int64_t h = kv_head * heads; h < (kv_head + 1) * heads; h++) {
        for (int64_t n = part->query; n < part->query_end; n += QUERIES) {
            query_tile(p, part, &w, h, n);
        }
    }
    close_keys(p, kv_head, &w);
}

// dk and dv of one tile of keys.
static void key_task(const struct problem *p, const struct part *part, int64_t kv_head, int64_t key)
{
    const int64_t heads = p->a.H / p->a.G, end = min_i64(key + KEYS, part->key_end);
    const struct keys w = open_keys(p, kv_head, key, end - key, true);
    for (int64_t h = kv_head * heads; h < (kv_head + 1) * heads; h++) {
        for (int64_t n = part->query; n < part->query_end; n += QUERIES) {
            const struct tile t = {n, min_i64(QUERIES, part->query_end - n), key, end - key};
            if (!attention_touches(&p->a, &t)) continue;
            struct queries u;
            open_queries(&u, p, h, n, t.queries, false);
            one_tile(p, &u, &w, key, end);
        }
    }
    close_keys(p, kv_head, &w);
}

// dq of one tile of queries.
static void query_task(const struct problem *p, const struct part *part, int64_t head,
                       int64_t first)
{
    struct queries u;
    open_queries(&u, p, head, first, min_i64(QUERIES, part->query_end - first), true);
    for (int64_t key = part->key; key < part->key_end; key += KEYS) {
        const struct tile t = {first, u.count, key, min_i64(KEYS, part->key_end - key)};
        if (!attention_touches(&p->a, &t)) continue;
        const struct keys w = open_keys(p, head / (p->a.H / p->a.G), key, t.keys, false);
        one_tile(p, &u, &w, key, key + t.keys);
    }
    close_queries(p, &u);
}

static void task_of_part(const void *op, int64_t i)
{
    const struct problem *p = op;
    part_task(p, &p->part[i / p->a.G], i % p->a.G);
}

static void by_parts(const struct problem *p)
{
    cpu_tasks(p->parts * p->a.G, true, task_of_part, p);
}

struct tiles {
    const struct problem *p;
    const struct part *part;
};

static void task_of_keys(const void *op, int64_t i)
{
    const struct tiles *t = op;
    const int64_t G = t->p->a.G;
    key_task(t->p, t->part, i % G, t->part->key + i / G * KEYS);
}

static void task_of_queries(const void *op, int64_t i)
{
    const struct tiles *t = op;
    const int64_t H = t->p->a.H;
    query_task(t->p, t->part, i % H, t->part->query + i / H * QUERIES);
}

static void by_tiles(const struct problem *p)
{
    for (int64_t i = 0; i < p->parts; i++) {
        const struct part *part = &p->part[i];
        const struct tiles t = {p, part};
        cpu_tasks(ceil_div(part->key_end - part->key, KEYS) * p->a.G, true, task_of_keys, &t);
        cpu_tasks(ceil_div(part->query_end - part->query, QUERIES) * p->a.H, true, task_of_queries,
                  &t);
    }
}

void cpu_attention_backward(const struct attention_grads *d, const struct attention_saved *s,
                            struct tensor span, int64_t head_dim, float scale)
{
    struct problem p = {.a = attention_make(s->q, s->k, span, head_dim, scale), .d = d, .s = s};
    assert(head_dim <= BLOCK);
    const size_t rows = (size_t)p.a.N + 1;
    p.part = mem_alloc(rows * sizeof *p.part);
    int64_t *lowest = mem_alloc(rows * sizeof *lowest);
    if (!p.part || !lowest) {
        cpu_out_of_memory();
        mem_free(lowest);
        mem_free(p.part);
        return;
    }
    find_parts(&p, lowest);
    cpu_zero(d->dk); // keys that nobody reaches
    cpu_zero(d->dv);
    int64_t largest = 0;
    for (int64_t i = 0; i < p.parts; i++) {
        largest = max_i64(largest, p.part[i].key_end - p.part[i].key);
    }
    if (largest * head_dim <= LARGE_PART && p.parts * p.a.G >= 2 * cpu_threads()) {
        by_parts(&p);
    } else {
        by_tiles(&p);
    }
    mem_free(lowest);
    mem_free(p.part);
}
