// ops/cpu/attention.h - what the forward and the backward pass of attention share: the problem, blocks of
// rows of one head as F32, and which part of a tile a row's span reaches.
#pragma once
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector.h"

struct attention {
    int64_t N, M, H, G, D;
    const int32_t *span; // (N,2)
    float scale;
};

// A rectangle of the score matrix.
struct tile {
    int64_t query, queries, key, keys;
};

struct attention attention_make(struct tensor q, struct tensor k, struct tensor span,
                                int64_t head_dim, float scale);

// Rows [first, first + n) of a head of x (rows, heads * D) as dense F32 rows: products of rows that lie
// H * D apart lose a third of their speed to cache lines that displace each other.
void attention_pack(float *out, struct tensor x, int64_t first, int64_t n, int64_t head, int64_t D);

// The keys that rows [query, query + queries) reach: *first <= m < *end; false if none.
bool attention_reach(const struct attention *a, int64_t query, int64_t queries, int64_t *first,
                     int64_t *end);
bool attention_touches(const struct attention *a, const struct tile *t); // any row reaches the tile

// The part [*from, *to) of the tile's keys that query row n reaches; empty: from >= to.
static inline void attention_clip(const struct attention *a, const struct tile *t, int64_t n,
                                  int64_t *from, int64_t *to)
{
    *from = max_i64((int64_t)a->span[2 * n] - t->key, 0);
    *to = min_i64((int64_t)a->span[2 * n + 1] + 1 - t->key, t->keys);
}
