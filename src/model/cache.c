// model/cache.c - rows of the KV cache from one place to another, in every layer.
#include "model/acts.h"

#include <assert.h>

void model_copy_cache(struct model *m, int64_t to, int64_t from, int64_t n)
{
    const struct ops *o = m->setup.ops;
    struct acts *a = m->acts;
    assert(a->n > 0 && (to + n <= from || from + n <= to));
    for (int64_t at = 0; at < n; at += a->n) { // as many rows as the last batch's keys have
        const int64_t rows = n - at < a->n ? n - at : a->n;
        int32_t *source = m->host, *target = m->host + rows;
        for (int64_t i = 0; i < rows; i++) {
            source[i] = (int32_t)(from + at + i);
            target[i] = (int32_t)(to + at + i);
        }
        const struct tensor read = tensor_rows(a->target_row, 0, rows),
                            write = tensor_rows(a->target, 0, rows);
        o->upload(read.data, source, tensor_bytes(read));
        o->upload(write.data, target, tensor_bytes(write));
        for (int64_t l = 0; l < m->config.n_layers; l++) {
            const struct tensor k = tensor_rows(a->layer[l].k, 0, rows);
            const struct tensor v = tensor_rows(a->layer[l].v, 0, rows);
            o->gather_rows(k, m->layer[l].cache_k, read);
            o->place_rows(m->layer[l].cache_k, k, write);
            o->gather_rows(v, m->layer[l].cache_v, read);
            o->place_rows(m->layer[l].cache_v, v, write);
        }
    }
}
