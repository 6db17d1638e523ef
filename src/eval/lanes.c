// eval/lanes.c - see lanes.h.
#include "eval/lanes.h"

#include "base/mem.h"

#include <inttypes.h>

bool lanes_open(struct lanes *l, struct model *m, int64_t n, struct error *err)
{
    const size_t lanes = (size_t)n, V = (size_t)m->config.vocab;
    *l = (struct lanes){.m = m, .n = n};
    if (!batch_reserve(&l->batch, m->setup.max_tokens, err)) return false;
    l->base = mem_zalloc(lanes, sizeof *l->base);
    l->done = mem_zalloc(lanes, sizeof *l->done);
    l->cache_row = mem_zalloc((size_t)m->setup.max_tokens, sizeof *l->cache_row);
    l->row = mem_zalloc(lanes, sizeof *l->row);
    l->owner = mem_zalloc(lanes, sizeof *l->owner);
    l->logits = mem_zalloc(lanes, V * sizeof *l->logits);
    return (l->base && l->done && l->cache_row && l->row && l->owner && l->logits) ||
           fail(err, "no memory for %" PRId64 " sequences", n);
}

void lanes_close(struct lanes *l)
{
    batch_free(&l->batch);
    mem_free(l->base);
    mem_free(l->done);
    mem_free(l->cache_row);
    mem_free(l->row);
    mem_free(l->owner);
    mem_free(l->logits);
    *l = (struct lanes){0};
}

// Its key and value go into the cache, and it attends to all of its lane so far.
void lanes_add(struct lanes *l, int64_t lane, int32_t id, bool wanted)
{
    struct batch *b = &l->batch;
    const int64_t position = l->done[lane]++, row = l->base[lane] + position;
    b->id[b->n] = id;
    b->position[b->n] = (int32_t)position;
    b->span[2 * b->n] = (int32_t)l->base[lane];
    b->span[2 * b->n + 1] = (int32_t)row;
    b->target[b->n] = -100;
    l->cache_row[b->n] = (int32_t)row;
    if (wanted) {
        l->row[l->wanted] = (int32_t)b->n;
        l->owner[l->wanted++] = lane;
    }
    b->n++;
}

bool lanes_full(const struct lanes *l)
{
    return l->batch.n == l->m->setup.max_tokens;
}

bool lanes_run(struct lanes *l)
{
    if (!l->batch.n) return false;
    model_forward(l->m, &l->batch, l->cache_row, false);
    if (l->wanted) model_logits(l->m, l->row, l->wanted, l->logits);
    l->batch.n = 0;
    return true;
}

void lanes_taken(struct lanes *l)
{
    l->wanted = 0;
}

void lanes_copy(struct lanes *l, int64_t to, int64_t from, int64_t first)
{
    model_copy_cache(l->m, l->base[to] + first, l->base[from] + first, l->done[from] - first);
    l->done[to] = l->done[from];
}
