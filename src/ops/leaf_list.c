// ops/leaf_list.c - lists of leaves for the optimizer's ops: see ops.h.
#include "ops/ops.h"

#include "base/mem.h"

#include <string.h>

size_t leaf_list_bytes(const struct ops *o, int64_t n)
{
    return o->reads_host ? 0 : (size_t)n * sizeof(struct adamw_leaf);
}

bool leaf_list_open(struct leaf_list *l, const struct ops *o, struct adamw_leaf *leaf, int64_t n,
                    struct error *err)
{
    const size_t bytes = (size_t)n * sizeof *leaf;
    *l = (struct leaf_list){.count = n};
    for (int64_t i = 0; i < n; i++) {
        leaf[i].first = l->chunks;
        l->chunks += (tensor_count(leaf[i].w) + LEAF_CHUNK - 1) / LEAF_CHUNK;
    }
    l->leaf = o->reads_host ? mem_alloc(bytes) : o->allocate(bytes);
    if (!l->leaf) return o->check(err) && fail(err, "no memory for a list of what learns");
    if (o->reads_host) {
        memcpy(l->leaf, leaf, bytes);
    } else {
        o->upload(l->leaf, leaf, bytes);
    }
    return true;
}

void leaf_list_close(struct leaf_list *l, const struct ops *o)
{
    if (o && o->reads_host) {
        mem_free(l->leaf);
    } else if (l->leaf) {
        o->release(l->leaf, (size_t)l->count * sizeof *l->leaf);
    }
    *l = (struct leaf_list){0};
}
