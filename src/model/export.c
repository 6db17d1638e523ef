// model/export.c - the base's folder again, with what learnt in it, and with the state of a routing that is
// no part of the architecture beside the weights.
#include "model/model.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "model/families.h"
#include "model/remote.h"

#include <string.h>

enum { README_LIMIT = 64 << 20 };

bool model_weight_changed(const struct model *m, const struct weight *w)
{
    return w->leaf >= 0 || w->brought || (w->bank && w->bank->adapter && m->setup.tuning->merge);
}

// A leaf's value as F32 in host memory. BF16 comes into the upper half and is widened from there: what is
// written never reaches what is still to be read.
static void leaf_download(const struct model *m, float *values, const struct leaf *f)
{
    const int64_t n = tensor_count(f->value);
    const bool bf16 = f->value.dtype == DTYPE_BF16;
    char *raw = (char *)values + (bf16 ? (size_t)n * 2 : 0);
    m->setup.ops->download(raw, f->value.data, tensor_bytes(f->value));
    for (int64_t i = 0; bf16 && i < n; i++) {
        uint16_t h;
        memcpy(&h, raw + 2 * i, sizeof h);
        values[i] = f32_from_bf16(h);
    }
}

bool model_weight_values(const struct model *m, const struct weight *w, float *values,
                         struct error *err)
{
    const int64_t n = tensor_count(w->stored);
    if (w->leaf >= 0) {
        leaf_download(m, values, &m->leaves.leaf[w->leaf]);
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
        if (w->entry != e || !model_weight_changed(m, w)) continue;
        if (!changed) memcpy(bytes, e->tensor.data, e->end - e->begin);
        changed = true;
        const int64_t n = tensor_count(w->stored);
        float *values = mem_alloc((size_t)n * sizeof *values);
        if (!values) return fail(err, "%s: no memory for %lld values", w->name, (long long)n);
        float lost;
        bool ok = model_weight_values(m, w, values, err);
        if (ok && !dtype_holds(e->tensor.dtype, values, n, &lost)) {
            ok = fail(err, "%s: %g does not fit %s, in which the model is stored", w->name,
                      (double)lost, e->dtype_name);
        }
        char *at = (char *)bytes + (size_t)w->offset * dtype_size(e->tensor.dtype);
        if (ok) dtype_convert(at, e->tensor.dtype, values, DTYPE_F32, n);
        mem_free(values);
        if (!ok) return false;
    }
    return changed;
}

struct export
{
    const struct model *m;
    bool plain;        // the architecture's own routing: nothing but weights
    char *readme;      // the base's; NULL: it has none
    struct buf config; // empty: as the base has it
    struct error why;  // of the first tensor that could not be merged
};

static bool merged(void *user, const struct st_entry *e, void *bytes)
{
    struct export *x = user;
    return !*x->why.msg && model_merged_tensor(x->m, e, bytes, &x->why);
}

// A state among the base's weights would be stale, and its type too narrow for ours.
static bool drops_tensor(void *user, const char *name)
{
    const struct export *x = user;
    return routing_source_owns_tensor(name, &x->m->config);
}

static bool rewrites_readme(const struct export *x)
{
    return !x->plain || remote_has_section(x->readme);
}

static bool drops_file(void *user, const char *name)
{
    const struct export *x = user;
    return routing_source_owns_file(name) || !strcmp(name, remote_file) ||
           (!strcmp(name, "README.md") && rewrites_readme(x));
}

static bool write_readme(const struct export *x, const char *out, struct error *err)
{
    char path[4096];
    struct buf text = {0};
    const bool ok = path_join(path, sizeof path, out, "README.md", err) &&
                    remote_readme(&text, x->readme, x->m, x->plain, err) &&
                    (!text.size || file_write(path, text.data, text.size, err));
    buf_free(&text);
    return ok;
}

// A bias or a condenser is not part of the architecture: other loaders run the model without them.
static bool write_state(const struct export *x, const char *out, struct error *err)
{
    char path[4096];
    const struct model *m = x->m;
    const struct routing *r = m->setup.routing;
    log_warning("the exported model: the routing %s is not part of the architecture; its state is "
                "in files beside the weights, and programs that do not read them run without it "
                "(README.md says how to load it)",
                r->name);
    if (!r->save(m->routing_state, out, err)) return false;
    if (!family_remote_class(m->config.architecture)) return true;
    return path_join(path, sizeof path, out, remote_file, err) &&
           file_write(path, remote_code, remote_code_size, err);
}

static bool write_own(void *user, const char *out, struct error *err)
{
    const struct export *x = user;
    return (x->plain || write_state(x, out, err)) &&
           (!rewrites_readme(x) || write_readme(x, out, err));
}

static void read_readme(struct export *x)
{
    char path[4096];
    size_t size;
    struct error err;
    if (!path_join(path, sizeof path, x->m->setup.dir, "README.md", NULL)) return;
    if (!file_exists(path) || file_read(&x->readme, &size, path, README_LIMIT, &err)) return;
    if (!x->plain) log_warning("not copied: %s", err.msg);
}

bool model_export(const struct model *m, const char *out, struct error *err)
{
    struct export x = {.m = m, .plain = !m->routing_state || !m->setup.routing->save};
    read_readme(&x);
    bool ok = remote_config(&x.config, m->setup.dir, &m->config, x.plain, err);
    const struct checkpoint_edit edit = {.user = &x,
                                         .value = merged,
                                         .drops_tensor = drops_tensor,
                                         .drops_file = drops_file,
                                         .write = write_own,
                                         .config = x.config.size ? x.config.data : NULL};
    ok = ok && checkpoint_export_edited(&m->checkpoint, out, &edit, err);
    if (ok && *x.why.msg) ok = fail(err, "%s", x.why.msg);
    ok = ok && m->setup.ops->check(err);
    mem_free(x.readme);
    buf_free(&x.config);
    return ok;
}
