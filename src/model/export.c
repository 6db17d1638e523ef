// model/export.c - the base's folder again, with what learnt in it.
#include "model/model.h"

#include "base/log.h"
#include "base/mem.h"

#include <string.h>

// Does the matrix differ from what the checkpoint stores: it learnt, an adapter's folder brought it, or an
// adapter changes it?
static bool is_changed(const struct model *m, const struct weight *w)
{
    const char *in_checkpoint = (const char *)w->entry->tensor.data +
                                (size_t)w->offset * dtype_size(w->entry->tensor.dtype);
    return w->leaf >= 0 || w->stored.data != (const void *)in_checkpoint ||
           (w->bank && w->bank->adapter && m->setup.tuning->merge);
}

// The matrix as F32 in host memory.
static bool merged_values(const struct model *m, const struct weight *w, float *values,
                          struct error *err)
{
    const int64_t n = tensor_count(w->stored);
    if (w->leaf >= 0) {
        m->setup.ops->download(values, m->leaves.leaf[w->leaf].value.data,
                               (size_t)n * sizeof *values);
    } else {
        dtype_convert(values, DTYPE_F32, w->stored.data, w->stored.dtype, n);
    }
    if (!w->bank || !w->bank->adapter || !m->setup.tuning->merge) return true;
    return m->setup.tuning->merge(m->tuning_state, w->bank, w->group, values, err);
}

bool model_merged_tensor(const struct model *m, const struct st_entry *e, void *bytes,
                         struct error *err)
{
    bool changed = false;
    for (int64_t i = 0; i < m->weights.count; i++) {
        const struct weight *w = &m->weights.weight[i];
        if (w->entry != e || !is_changed(m, w)) continue;
        if (!changed) memcpy(bytes, e->tensor.data, e->end - e->begin);
        changed = true;
        const int64_t n = tensor_count(w->stored);
        float *values = mem_alloc((size_t)n * sizeof *values);
        if (!values) return fail(err, "%s: no memory for %lld values", w->name, (long long)n);
        const bool ok = merged_values(m, w, values, err);
        char *at = (char *)bytes + (size_t)w->offset * dtype_size(e->tensor.dtype);
        if (ok) dtype_convert(at, e->tensor.dtype, values, DTYPE_F32, n);
        mem_free(values);
        if (!ok) return false;
    }
    return changed;
}

struct merging {
    const struct model *m;
    struct error *err; // of the first failure
};

static bool merged(void *user, const struct st_entry *e, void *bytes)
{
    const struct merging *x = user;
    return !*x->err->msg && model_merged_tensor(x->m, e, bytes, x->err);
}

// A bias or a condenser is not part of the architecture: other loaders run the model without them.
static bool save_routing(const struct model *m, const char *out, struct error *err)
{
    const struct routing *r = m->setup.routing;
    if (!m->routing_state || !r->save) return true;
    log_warning(
        "the exported model: the routing %s is not part of the architecture; its state is in "
        "files beside the weights, and programs that do not read them run without it",
        r->name);
    return r->save(m->routing_state, out, err);
}

bool model_export(const struct model *m, const char *out, struct error *err)
{
    struct error why = {0};
    struct merging x = {m, &why};
    if (!checkpoint_export(&m->checkpoint, out, merged, &x, err)) return false;
    if (*why.msg) return fail(err, "%s", why.msg);
    return save_routing(m, out, err);
}
