// model/export.c - the base's folder again, with what learnt in it.
#include "model/model.h"

#include "base/log.h"
#include "base/mem.h"

#include <string.h>

struct export
{
    const struct model *m;
    float *master; // (largest leaf)
};

static const struct leaf *leaf_of(const struct model *m, const char *name)
{
    for (int64_t i = 0; i < m->leaves.count; i++) {
        if (!strcmp(m->leaves.leaf[i].name, name)) return &m->leaves.leaf[i];
    }
    return NULL;
}

static bool learnt_value(void *user, const struct st_entry *e, void *bytes)
{
    const struct export *x = user;
    const struct leaf *f = leaf_of(x->m, e->name);
    if (!f) return false;
    x->m->setup.ops->download(x->master, f->value.data, tensor_bytes(f->value));
    dtype_convert(bytes, e->tensor.dtype, x->master, DTYPE_F32, tensor_count(f->value));
    return true;
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
    size_t largest = 0;
    for (int64_t i = 0; i < m->leaves.count; i++) {
        const size_t bytes = tensor_bytes(m->leaves.leaf[i].value);
        if (bytes > largest) largest = bytes;
    }
    struct export x = {m, mem_alloc(largest)};
    if (!x.master) return fail(err, "%s: no memory for a tensor of %zu bytes", out, largest);
    const bool ok = checkpoint_export(&m->checkpoint, out, learnt_value, &x, err);
    mem_free(x.master);
    return ok && save_routing(m, out, err);
}
