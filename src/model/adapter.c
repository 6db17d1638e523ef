// model/adapter.c - adapters in a folder, whatever the tuning: the file of tensors, the base that they belong
// to, and the whole weights that go with them. What the tensors mean is the policy's (tuning.h).
#include "model/layer.h"

#include "base/crc32c.h"
#include "base/dir.h"
#include "base/file.h"
#include "base/mem.h"
#include "io/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char about_file[] = "moetune_adapter.json";
enum { PATH_SIZE = 4096, FILE_LIMIT = 1 << 20, CHUNK = 1 << 20 };

// A checksum of all that decides which tensors a model has and what they mean.
static uint32_t fingerprint(const struct model_config *c)
{
    uint32_t crc = crc32c(0, c->architecture, strlen(c->architecture));
    const int64_t shape[] = {c->width,        c->n_layers,     c->n_heads,    c->n_kv_heads,
                             c->head_dim,     c->vocab,        c->n_experts,  c->experts_per_tok,
                             c->expert_width, c->shared_width, c->dense_width};
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        char text[24];
        const int n = snprintf(text, sizeof text, " %" PRId64, shape[i]);
        crc = crc32c(crc, text, (size_t)n);
    }
    for (int64_t l = 0; l < c->n_layers; l++) {
        crc = crc32c(crc, c->moe_layer[l] ? "1" : "0", 1);
    }
    return crc;
}

// An adapter of ours says what it was made on; one from elsewhere is known by its names and shapes alone.
static bool check_base(const struct model *m, struct error *err)
{
    char path[PATH_SIZE], now[16];
    const char *base;
    if (!path_join(path, sizeof path, m->setup.adapter, about_file, err)) return false;
    if (!file_exists(path)) return true;
    json_t *file = json_parse_file(path, FILE_LIMIT, err);
    if (!file) return false;
    snprintf(now, sizeof now, "%08" PRIx32, fingerprint(&m->config));
    base = json_string_value(json_object_get(file, "base_config"));
    const bool same = base && !strcmp(base, now);
    if (!same) {
        fail(err, "%s: made on another base (%s, fingerprint %s); %s has fingerprint %s", path,
             json_string_value(json_object_get(file, "base_architecture")), base ? base : "missing",
             m->setup.dir, now);
    }
    json_decref(file);
    return same;
}

// The tensor of a name in the adapter's file: under the file's prefix, as it is, or, as older files have it,
// without "model." in front.
static const struct st_entry *find_named(const struct model *m, const char *of_weight)
{
    char name[2 * NAME_MAX_LENGTH];
    snprintf(name, sizeof name, "%s%s", m->setup.tuning->format->prefix, of_weight);
    const struct st_entry *e = safetensors_find(&m->adapter, name);
    if (!e) e = safetensors_find(&m->adapter, of_weight);
    if (!e && !strncmp(of_weight, "model.", 6)) e = safetensors_find(&m->adapter, of_weight + 6);
    return e;
}

// A whole weight's, by either of its names.
static const struct st_entry *find_whole(const struct model *m, const struct weight *w)
{
    const struct st_entry *e = find_named(m, w->name);
    return e || !*w->other ? e : find_named(m, w->other);
}

static bool same_shape(const struct tensor *a, const struct tensor *b)
{
    bool same = a->rank == b->rank;
    for (int i = 0; same && i < a->rank; i++) {
        same = a->dim[i] == b->dim[i];
    }
    return same;
}

static bool is_float(const struct st_entry *e)
{
    return e->known && (e->tensor.dtype == DTYPE_F32 || e->tensor.dtype == DTYPE_BF16 ||
                        e->tensor.dtype == DTYPE_F16);
}

static bool replace_weights(struct model *m, struct error *err)
{
    for (int64_t i = 0; i < m->weights.count; i++) {
        struct weight *w = &m->weights.weight[i];
        const struct st_entry *e = find_whole(m, w);
        if (!e) continue;
        if (!is_float(e) || !same_shape(&e->tensor, &w->stored)) {
            return fail(err, "%s: %s: not of the shape that the base has, or no floats",
                        m->adapter_path, e->name);
        }
        w->stored = w->value = e->tensor;
        w->brought = true;
    }
    return true;
}

static bool is_tensors(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && !strcmp(dot, ".safetensors");
}

// The file of tensors: the format's own name, or else the only one there.
static bool find_file(char path[PATH_SIZE], const struct model *m, struct error *err)
{
    const char *dir = m->setup.adapter, *own = m->setup.tuning->format->file;
    struct dir_names names;
    if (!path_join(path, PATH_SIZE, dir, own, err)) return false;
    if (file_exists(path)) return true;
    if (!dir_list(&names, dir, err)) return false;
    int64_t found = 0;
    bool ok = true;
    for (int64_t i = 0; ok && i < names.count; i++) {
        if (!is_tensors(names.name[i])) continue;
        found++;
        ok = path_join(path, PATH_SIZE, dir, names.name[i], err);
    }
    dir_names_free(&names);
    if (!ok || found == 1) return ok;
    return fail(err, "%s: no %s, and %" PRId64 " other safetensors files; one expected", dir, own,
                found);
}

// A base's weights are read where they are mapped, and what is wrong with them shows in the first loss; an adapter
// is read whole in any case, and merged without a loss.
static bool check_finite(const struct model *m, struct error *err)
{
    for (int64_t i = 0; i < m->adapter.count; i++) {
        const struct st_entry *e = &m->adapter.entry[i];
        if (!is_float(e)) continue;
        if (!dtype_finite(e->tensor.data, e->tensor.dtype, tensor_count(e->tensor))) {
            return fail(err, "%s: %s: holds NaN or infinity", m->adapter_path, e->name);
        }
    }
    return true;
}

bool adapter_open(struct model *m, struct error *err)
{
    char path[PATH_SIZE];
    if (!m->setup.adapter) return true;
    if (!find_file(path, m, err)) return false;
    m->adapter_path = mem_strdup(path);
    if (!m->adapter_path) return fail(err, "%s: no memory", path);
    return check_base(m, err) && safetensors_open(&m->adapter, m->adapter_path, err) &&
           check_finite(m, err) && replace_weights(m, err);
}

void adapter_close(struct model *m)
{
    safetensors_close(&m->adapter);
    mem_free(m->adapter_path);
    m->adapter_path = NULL;
}

struct loading {
    struct model *m;
    bool *used; // (tensors of the file)
};

static bool load_one(void *user, const struct adapter_tensor *t, struct error *err)
{
    const struct loading *l = user;
    const struct model *m = l->m;
    char name[2 * NAME_MAX_LENGTH];
    if (t->from) {
        l->used[t->from - m->adapter.entry] = true;
        return true;
    }
    snprintf(name, sizeof name, "%s%s", m->setup.tuning->format->prefix, t->name);
    const struct st_entry *e = safetensors_find(&m->adapter, name);
    if (!e) return fail(err, "%s: tensor %s is missing", m->adapter_path, name);
    if (!is_float(e) || !same_shape(&e->tensor, &t->value)) {
        return fail(err, "%s: %s: not of the shape that fits the base, or no floats",
                    m->adapter_path, name);
    }
    m->setup.ops->convert(t->value, e->tensor);
    l->used[e - m->adapter.entry] = true;
    return true;
}

// A tensor without a place would be knowledge lost in silence.
static bool all_used(struct loading *l, struct error *err)
{
    const struct model *m = l->m;
    for (int64_t i = 0; i < m->weights.count; i++) {
        const struct weight *w = &m->weights.weight[i];
        const struct st_entry *by_name[] = {find_named(m, w->name),
                                            *w->other ? find_named(m, w->other) : NULL};
        for (int k = 0; k < 2; k++) {
            if (by_name[k]) l->used[by_name[k] - m->adapter.entry] = true;
        }
    }
    for (int64_t i = 0; i < m->adapter.count; i++) {
        if (l->used[i]) continue;
        return fail(err, "%s: tensor %s has no place in %s", m->adapter_path,
                    m->adapter.entry[i].name, m->setup.dir);
    }
    return true;
}

bool adapter_load(struct model *m, struct error *err)
{
    if (!m->setup.adapter) return true;
    const struct adapter_format *f = m->setup.tuning->format;
    struct loading l = {m, mem_zalloc((size_t)m->adapter.count, sizeof *l.used)};
    if (!l.used) return fail(err, "%s: no memory", m->adapter_path);
    const bool ok =
        (!f->tensors || f->tensors(m->tuning_state, load_one, &l, err)) && all_used(&l, err);
    mem_free(l.used);
    for (int64_t i = 0; ok && i < m->leaves.count; i++) {
        const struct leaf *x = &m->leaves.leaf[i];
        if (x->copy.data) m->setup.ops->convert(x->copy, x->value);
    }
    return ok;
}

// What is written: names with their prefix, and where the values lie.
struct source {
    struct tensor value; // on the backend, F32 or of the stored type; or the latter, mapped
    enum dtype stored;
    bool mapped; // in the file of the adapter before
};

struct saving {
    const struct model *m;
    struct st_writer_entry *entry;
    struct source *source;
    int64_t count, capacity[2];
};

static bool add_tensor(struct saving *s, const char *name, const struct source *source,
                       struct error *err)
{
    const char *prefix = s->m->setup.tuning->format->prefix;
    const struct tensor *value = &source->value;
    struct st_writer_entry *e = array_grow(s->entry, s->count, &s->capacity[0], sizeof *e);
    if (e) s->entry = e;
    struct source *from = array_grow(s->source, s->count, &s->capacity[1], sizeof *from);
    if (from) s->source = from;
    struct buf full = {0};
    if (!e || !from || !buf_printf(&full, "%s%s", prefix, name)) {
        return fail(err, "no memory for the adapter's tensors");
    }
    e[s->count] = (struct st_writer_entry){.name = full.data,
                                           .dtype_name = dtype_name(source->stored),
                                           .rank = value->rank,
                                           .bytes = (size_t)tensor_count(*value) *
                                                    dtype_size(source->stored)};
    memcpy(e[s->count].shape, value->dim, sizeof value->dim);
    from[s->count++] = *source;
    return true;
}

static bool add_own(void *user, const struct adapter_tensor *t, struct error *err)
{
    return add_tensor(user, t->name, &(struct source){t->value, DTYPE_F32, false}, err);
}

static bool add_all(struct saving *s, struct error *err)
{
    const struct model *m = s->m;
    const struct adapter_format *f = m->setup.tuning->format;
    for (int64_t i = 0; i < m->weights.count; i++) {
        const struct weight *w = &m->weights.weight[i];
        struct source from = {w->stored, w->stored.dtype, true};
        if (w->leaf >= 0) {
            from = (struct source){m->leaves.leaf[w->leaf].value, w->stored.dtype, false};
        } else if (!m->adapter_path || !find_whole(m, w)) {
            continue;
        }
        if (!add_tensor(s, w->name, &from, err)) return false;
        // Under both names, so that it is read by either version of transformers.
        if (*w->other && !add_tensor(s, w->other, &from, err)) return false;
    }
    return !f->tensors || f->tensors(m->tuning_state, add_own, s, err);
}

static bool write_values(struct file_writer *w, const struct saving *s, int64_t i, float *values,
                         void *bytes, struct error *err)
{
    const struct source *from = &s->source[i];
    const struct tensor *t = &from->value;
    const int64_t all = tensor_count(*t);
    if (from->mapped) return file_writer_write(w, t->data, tensor_bytes(*t), err);
    for (int64_t at = 0; at < all; at += CHUNK) {
        const int64_t n = all - at < CHUNK ? all - at : CHUNK;
        const size_t size = dtype_size(t->dtype);
        s->m->setup.ops->download(values, (const char *)t->data + (size_t)at * size,
                                  (size_t)n * size);
        float lost;
        if (t->dtype == DTYPE_F32 && !dtype_holds(from->stored, values, n, &lost)) {
            return fail(err, "%s: %g does not fit %s, in which the model is stored",
                        s->entry[i].name, (double)lost, dtype_name(from->stored));
        }
        dtype_convert(bytes, from->stored, values, t->dtype, n);
        if (!file_writer_write(w, bytes, (size_t)n * dtype_size(from->stored), err)) return false;
    }
    return true;
}

static bool write_tensors(const struct saving *s, const char *path, struct error *err)
{
    struct file_writer w = {.fd = -1};
    float *values = mem_alloc(2 * CHUNK * sizeof *values);
    if (!values) return fail(err, "%s: no memory", path);
    bool ok = safetensors_begin(&w, path, s->entry, s->count, "{\"format\":\"pt\"}", err);
    for (int64_t i = 0; ok && i < s->count; i++) {
        ok = write_values(&w, s, i, values, values + CHUNK, err);
    }
    ok = ok && file_writer_commit(&w, err);
    if (!ok) file_writer_discard(&w);
    mem_free(values);
    return ok;
}

static bool write_about(const struct model *m, const char *dir, struct error *err)
{
    char path[PATH_SIZE], crc[16];
    if (!path_join(path, sizeof path, dir, about_file, err)) return false;
    snprintf(crc, sizeof crc, "%08" PRIx32, fingerprint(&m->config));
    json_t *about =
        json_pack("{s:s, s:s, s:s, s:s}", "tuning", m->setup.tuning->name, "base_architecture",
                  m->config.architecture, "base_config", crc, "moetune_version", MOETUNE_VERSION);
    const struct adapter_format *f = m->setup.tuning->format;
    const struct tuning_input in = tuning_input(m);
    bool ok = about || fail(err, "%s: no memory", path);
    ok = ok && (!f->describe || f->describe(m->tuning_state, &in, about, err)) &&
         json_write_file(path, about, err);
    json_decref(about);
    return ok;
}

bool model_save_adapter(const struct model *m, const char *dir, struct error *err)
{
    char path[PATH_SIZE];
    const struct adapter_format *f = m->setup.tuning->format;
    const struct routing *r = m->setup.routing;
    const struct tuning_input in = tuning_input(m);
    struct saving s = {.m = m};
    bool ok = dir_make(dir, err) && path_join(path, sizeof path, dir, f->file, err) &&
              add_all(&s, err) && write_tensors(&s, path, err) &&
              f->write(m->tuning_state, &in, dir, err) && write_about(m, dir, err) &&
              (!m->routing_state || !r->save || r->save(m->routing_state, dir, err)) &&
              m->setup.ops->check(err);
    for (int64_t i = 0; i < s.count; i++) {
        mem_free((void *)(uintptr_t)s.entry[i].name);
    }
    mem_free(s.entry);
    mem_free(s.source);
    return ok;
}
