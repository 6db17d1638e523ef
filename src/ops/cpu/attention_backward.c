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

enum { QUERIES = 128, KEYS = 256, LARGE_PART = 8192 };

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

// A matrix that is added to: rows of the gradient itself if that is F32, else a block of scratch.
struct sums {
    float *at;
    int64_t step;
};

static struct sums open_sums(struct tensor x, float *block, int64_t first, int64_t n, int64_t head,
                             int64_t D)
{
    const int64_t width = x.dim[1];
    struct sums s = {block, D};
    if (x.dtype == DTYPE_F32) s = (struct sums){data_f32(x) + first * width + head * D, width};
    for (int64_t r = 0; r < n; r++) {
        memset(s.at + r * s.step, 0, (size_t)D * sizeof *s.at);
    }
    return s;
}

static void close_sums(struct tensor x, struct sums s, int64_t first, int64_t n, int64_t head,
                       int64_t D)
{
    for (int64_t r = 0; r < n; r++) {
        block_store(x, (first + r) * x.dim[1] + head * D, s.at + r * s.step, D);
    }
}

// What stays while the keys of a tile of queries are walked.
struct queries {
    struct rows q, dout;
    float lse[QUERIES], delta[QUERIES];
    int64_t head, first, count;
};

static void load_queries(struct queries *u, const struct problem *p, int64_t head, int64_t first,
                         int64_t count)
{
    const struct attention *a = &p->a;
    float *block = scratch_f32(SCRATCH_A, 2 * QUERIES * a->D), buffer[BLOCK];
    *u = (struct queries){.head = head, .first = first, .count = count};
    u->q = attention_rows(SCRATCH_A, p->s->q, first, count, head, a->D);
    u->dout = (struct rows){data_f32(p->s->dout) + (first * a->H + head) * a->D, a->H * a->D};
    if (p->s->dout.dtype != DTYPE_F32) {
        u->dout = (struct rows){block + QUERIES * a->D, a->D};
        for (int64_t i = 0; i < count; i++) {
            to_f32(block + (QUERIES + i) * a->D,
                   element_at(p->s->dout, ((first + i) * a->H + head) * a->D), p->s->dout.dtype,
                   a->D);
        }
    }
    for (int64_t i = 0; i < count; i++) {
        const int64_t at = (first + i) * a->H + head;
        u->lse[i] = data_f32(p->s->lse)[at];
        u->delta[i] = dot_f32(block_load(buffer, p->s->o, at * a->D, a->D),
                              u->dout.at + i * u->dout.step, a->D);
    }
}

struct work { // scratch of a tile: p and ds (queries, keys), keys and values
    float *p, *ds;
    struct rows k, v;
};

static void load_keys(struct work *w, const struct problem *p, int64_t kv_head, int64_t first,
                      int64_t n)
{
    w->k = attention_rows(SCRATCH_B, p->s->k, first, n, kv_head, p->a.D);
    w->v = attention_rows(SCRATCH_C, p->s->v, first, n, kv_head, p->a.D);
}

// Scores become p, and ds = p (dp - delta), both zero outside the spans.
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

// p and ds of a tile.
static void form_tile(const struct attention *a, const struct tile *t, const struct queries *u,
                      const struct work *w)
{
    struct product s = {.m = t->queries,
                        .n = t->keys,
                        .k = a->D,
                        .a = u->q.at,
                        .lda = u->q.step,
                        .b = w->k.at,
                        .ldb = w->k.step,
                        .transposed_b = true,
                        .c = w->p,
                        .ldc = t->keys};
    product_f32(&s, a->scale);
    s.a = u->dout.at;
    s.lda = u->dout.step;
    s.b = w->v.at;
    s.ldb = w->v.step;
    s.c = w->ds;
    product_f32(&s, 1.0f);
    differentiate(a, t, u, w->p, w->ds);
}

static void add_to_queries(const struct attention *a, const struct tile *t, const struct work *w,
                           struct sums dq)
{
    const struct product s = {.m = t->queries,
                              .n = a->D,
                              .k = t->keys,
                              .a = w->ds,
                              .lda = t->keys,
                              .b = w->k.at,
                              .ldb = w->k.step,
                              .c = dq.at,
                              .ldc = dq.step,
                              .accumulate = true};
    product_f32(&s, a->scale);
}

static void add_to_keys(const struct attention *a, const struct tile *t, const struct queries *u,
                        const struct work *w, struct sums dk, struct sums dv)
{
    struct product s = {.m = t->keys,
                        .n = a->D,
                        .k = t->queries,
                        .a = w->ds,
                        .lda = t->keys,
                        .transposed_a = true,
                        .b = u->q.at,
                        .ldb = u->q.step,
                        .c = dk.at,
                        .ldc = dk.step,
                        .accumulate = true};
    product_f32(&s, a->scale);
    s.a = w->p;
    s.b = u->dout.at;
    s.ldb = u->dout.step;
    s.c = dv.at;
    s.ldc = dv.step;
    product_f32(&s, 1.0f);
}

static struct work open_work(void)
{
    float *p = scratch_f32(SCRATCH_D, 2 * QUERIES * KEYS);
    return (struct work){.p = p, .ds = p + QUERIES * KEYS};
}

static struct sums sums_from(struct sums s, int64_t row)
{
    return (struct sums){s.at + row * s.step, s.step};
}

// Keys [first, end) of a part against one tile of queries. dk and dv begin at the part's first key;
// absent (at == NULL): only dq is wanted, and the reverse.
static void walk_keys(const struct problem *p, const struct part *part, const struct queries *u,
                      struct sums dq, struct sums dk, struct sums dv)
{
    const int64_t kv_head = u->head / (p->a.H / p->a.G);
    struct work w = open_work();
    struct tile t = {.query = u->first, .queries = u->count};
    for (t.key = part->key; t.key < part->key_end; t.key += KEYS) {
        t.keys = min_i64(KEYS, part->key_end - t.key);
        if (!attention_touches(&p->a, &t)) continue;
        load_keys(&w, p, kv_head, t.key, t.keys);
        form_tile(&p->a, &t, u, &w);
        if (dq.at) add_to_queries(&p->a, &t, &w, dq);
        if (dk.at) {
            const int64_t row = t.key - part->key;
            add_to_keys(&p->a, &t, u, &w, sums_from(dk, row), sums_from(dv, row));
        }
    }
}

// dq of one tile of queries; with dk.at, also what the tile adds to dk and dv.
static void query_task(const struct problem *p, const struct part *part, int64_t head,
                       int64_t first, struct sums dk, struct sums dv)
{
    const int64_t count = min_i64(QUERIES, part->query_end - first), D = p->a.D;
    struct queries u;
    load_queries(&u, p, head, first, count);
    const struct sums dq =
        open_sums(p->d->dq, scratch_f32(SCRATCH_QUERIES, QUERIES * D), first, count, head, D);
    walk_keys(p, part, &u, dq, dk, dv);
    close_sums(p->d->dq, dq, first, count, head, D);
}

// A whole part for one key-value head and its query heads.
static void part_task(const struct problem *p, const struct part *part, int64_t kv_head)
{
    const int64_t D = p->a.D, keys = part->key_end - part->key, heads = p->a.H / p->a.G;
    float *block = p->d->dk.dtype == DTYPE_F32 ? NULL : scratch_f32(SCRATCH_SUMS, 2 * keys * D);
    float *second = block ? block + keys * D : NULL;
    const struct sums dk = open_sums(p->d->dk, block, part->key, keys, kv_head, D);
    const struct sums dv = open_sums(p->d->dv, second, part->key, keys, kv_head, D);
    for (int64_t h = kv_head * heads; h < (kv_head + 1) * heads; h++) {
        for (int64_t n = part->query; n < part->query_end; n += QUERIES) {
            query_task(p, part, h, n, dk, dv);
        }
    }
    close_sums(p->d->dk, dk, part->key, keys, kv_head, D);
    close_sums(p->d->dv, dv, part->key, keys, kv_head, D);
}

// dk and dv of one tile of keys.
static void key_task(const struct problem *p, const struct part *whole, int64_t kv_head,
                     int64_t key)
{
    const struct part part = {whole->query, whole->query_end, key,
                              min_i64(key + KEYS, whole->key_end)};
    const int64_t D = p->a.D, keys = part.key_end - key, heads = p->a.H / p->a.G;
    float *block = scratch_f32(SCRATCH_SUMS, 2 * KEYS * D);
    const struct sums dk = open_sums(p->d->dk, block, key, keys, kv_head, D);
    const struct sums dv = open_sums(p->d->dv, block + KEYS * D, key, keys, kv_head, D);
    for (int64_t h = kv_head * heads; h < (kv_head + 1) * heads; h++) {
        for (int64_t n = part.query; n < part.query_end; n += QUERIES) {
            struct queries u;
            const struct tile t = {n, min_i64(QUERIES, part.query_end - n), key, keys};
            if (!attention_touches(&p->a, &t)) continue;
            load_queries(&u, p, h, n, t.queries);
            walk_keys(p, &part, &u, (struct sums){0}, dk, dv);
        }
    }
    close_sums(p->d->dk, dk, key, keys, kv_head, D);
    close_sums(p->d->dv, dv, key, keys, kv_head, D);
}

static void by_parts(const struct problem *p)
{
#pragma omp parallel for schedule(dynamic, 1) num_threads(cpu_threads())
    for (int64_t i = 0; i < p->parts * p->a.G; i++) {
        part_task(p, &p->part[i / p->a.G], i % p->a.G);
    }
}

static void by_tiles(const struct problem *p)
{
    for (int64_t i = 0; i < p->parts; i++) {
        const struct part *part = &p->part[i];
        const int64_t key_tiles = ceil_div(part->key_end - part->key, KEYS);
        const int64_t query_tiles = ceil_div(part->query_end - part->query, QUERIES);
#pragma omp parallel for schedule(dynamic, 1) num_threads(cpu_threads())
        for (int64_t j = 0; j < key_tiles * p->a.G; j++) {
            key_task(p, part, j % p->a.G, part->key + j / p->a.G * KEYS);
        }
#pragma omp parallel for schedule(dynamic, 1) num_threads(cpu_threads())
        for (int64_t j = 0; j < query_tiles * p->a.H; j++) {
            query_task(p, part, j % p->a.H, part->query + j / p->a.H * QUERIES, (struct sums){0},
                       (struct sums){0});
        }
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
    if (!p.part || !lowest) abort(); // a few KB; an op has no way to fail
    find_parts(&p, lowest);
    cpu_zero(d->dk); // keys that nobody reaches
    cpu_zero(d->dv);
    int64_t largest = 0;
    for (int64_t i = 0; i < p.parts; i++) {
        largest = max_i64(largest, p.part[i].key_end - p.part[i].key);
    }
    const bool small = d->dk.dtype == DTYPE_F32 || largest <= LARGE_PART;
    if (small && p.parts * p.a.G >= 2 * cpu_threads()) {
        by_parts(&p);
    } else {
        by_tiles(&p);
    }
    mem_free(lowest);
    mem_free(p.part);
}
