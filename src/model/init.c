// model/init.c - see init.h.
#include "model/init.h"

#include "base/dir.h"
#include "base/dtype.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "io/folders.h"
#include "io/json.h"
#include "model/shapes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    CONFIG_LIMIT = 16 << 20,
    PIECE = 1 << 22, // elements made and written at a time
    PART = 1 << 12,  // elements a thread makes at a time
};

static const struct {
    const char *name, *config_name; // ours, and the one in config.json
    enum dtype dtype;
} dtypes[] = {
    {"bf16", "bfloat16", DTYPE_BF16}, {"f16", "float16", DTYPE_F16}, {"f32", "float32", DTYPE_F32}};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

struct maker {
    const struct model_init_options *options;
    const struct family *family;
    struct model_config config;
    char *text; // of config.json
    size_t text_size;
    int type; // index in dtypes
    struct tensor_spec *spec;
    int64_t *shard_of; // (count)
    int64_t count, capacity, n_shards;
    int64_t bytes, parameters;
    char *piece; // (PIECE) of the largest type
};

static int64_t spec_count(const struct tensor_spec *s)
{
    int64_t n = 1;
    for (int i = 0; i < s->rank; i++) {
        n *= s->dim[i];
    }
    return n;
}

static int64_t spec_bytes(const struct maker *m, const struct tensor_spec *s)
{
    return spec_count(s) * (int64_t)dtype_size(dtypes[m->type].dtype);
}

static bool collect(void *user, const struct tensor_spec *s, struct error *err)
{
    struct maker *m = user;
    struct tensor_spec *grown = array_grow(m->spec, m->count, &m->capacity, sizeof *m->spec);
    if (!grown) return fail(err, "%s: no memory for the list of tensors", m->options->config);
    m->spec = grown;
    m->spec[m->count++] = *s;
    m->bytes += spec_bytes(m, s);
    m->parameters += spec_count(s);
    return true;
}

// ---- values ----

// FNV-1a: a stream for each name.
static uint64_t stream_of(const char *name)
{
    uint64_t h = 0xcbf29ce484222325U;
    for (; *name; name++) {
        h = (h ^ (unsigned char)*name) * 0x100000001b3U;
    }
    return h;
}

struct part {
    float constant, std; // std 0: all of it is the constant
    uint64_t seed, stream;
};

// n elements from `first` of a stream into m->piece, in the type of the checkpoint.
static void make_piece(const struct maker *m, const struct part *p, int64_t first, int64_t n)
{
    const enum dtype type = dtypes[m->type].dtype;
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < n; at += PART) {
        float value[PART];
        const int64_t count = n - at < PART ? n - at : PART;
        if (p->std > 0) {
            rng_fill_normal(value, count, p->std, p->seed, p->stream, (uint64_t)(first + at));
        } else {
            for (int64_t i = 0; i < count; i++) {
                value[i] = p->constant;
            }
        }
        dtype_convert(m->piece + (size_t)at * dtype_size(type), type, value, DTYPE_F32, count);
    }
}

static bool write_part(struct maker *m, struct file_writer *w, const struct part *p, int64_t count,
                       struct error *err)
{
    const size_t size = dtype_size(dtypes[m->type].dtype);
    for (int64_t at = 0; at < count; at += PIECE) {
        const int64_t n = count - at < PIECE ? count - at : PIECE;
        make_piece(m, p, at, n);
        if (!file_writer_write(w, m->piece, (size_t)n * size, err)) return false;
    }
    return true;
}

static bool is_constant(enum role role, float *value)
{
    switch (role) {
    case ROLE_FINAL_NORM:
    case ROLE_INPUT_NORM:
    case ROLE_POST_NORM:
    case ROLE_Q_NORM:
    case ROLE_K_NORM:
        *value = 1;
        return true;
    case ROLE_Q_BIAS:
    case ROLE_K_BIAS:
    case ROLE_V_BIAS:
    case ROLE_O_BIAS:
    case ROLE_GATE_BIAS:
    case ROLE_UP_BIAS:
    case ROLE_DOWN_BIAS:
        *value = 0;
        return true;
    default:
        return false;
    }
}

// A fused tensor is its experts' matrices one after the other, gate before up.
static bool write_fused(struct maker *m, struct file_writer *w, const struct tensor_spec *s,
                        struct error *err)
{
    static const enum role gate_up[] = {ROLE_EXPERT_GATE, ROLE_EXPERT_UP};
    static const enum role down[] = {ROLE_EXPERT_DOWN};
    const bool two = s->role == ROLE_EXPERTS_GATE_UP;
    const int64_t count = s->dim[1] * s->dim[2] / (two ? 2 : 1);
    for (int64_t e = 0; e < s->dim[0]; e++) {
        for (int half = 0; half < (two ? 2 : 1); half++) {
            char name[sizeof s->name];
            family_name(name, sizeof name, m->family, (two ? gate_up : down)[half], s->layer, e);
            const struct part p = {0, m->config.init_std, m->options->seed, stream_of(name)};
            if (!write_part(m, w, &p, count, err)) return false;
        }
    }
    return true;
}

static bool write_tensor(struct maker *m, struct file_writer *w, const struct tensor_spec *s,
                         struct error *err)
{
    if (s->rank == 3) return write_fused(m, w, s, err);
    char name[sizeof s->name]; // the one beside experts one by one, so that both layouts agree
    family_name(name, sizeof name, m->family, s->role, s->layer, s->expert);
    struct part p = {0, m->config.init_std, m->options->seed, stream_of(name)};
    if (is_constant(s->role, &p.constant)) p.std = 0;
    return write_part(m, w, &p, spec_count(s), err);
}

// ---- files ----

// In order, a new shard where the next tensor would make this one too large.
static bool divide(struct maker *m, struct error *err)
{
    const int64_t limit = m->options->shard_bytes > 0 ? m->options->shard_bytes : 5000000000;
    m->shard_of = mem_zalloc((size_t)m->count, sizeof *m->shard_of);
    if (!m->shard_of) return fail(err, "%s: no memory", m->options->config);
    int64_t filled = 0;
    for (int64_t i = 0; i < m->count; i++) {
        const int64_t n = spec_bytes(m, &m->spec[i]);
        if (i == 0 || filled + n > limit) {
            m->n_shards++;
            filled = 0;
        }
        m->shard_of[i] = m->n_shards - 1;
        filled += n;
    }
    return true;
}

static void shard_name(char *out, size_t size, const struct maker *m, int64_t shard)
{
    if (m->n_shards == 1) {
        snprintf(out, size, "model.safetensors");
    } else {
        snprintf(out, size, "model-%05" PRId64 "-of-%05" PRId64 ".safetensors", shard + 1,
                 m->n_shards);
    }
}

static bool write_tensors(struct maker *m, struct file_writer *w, int64_t first, int64_t n,
                          struct error *err)
{
    for (int64_t i = first; i < first + n; i++) {
        if (!write_tensor(m, w, &m->spec[i], err)) return false;
    }
    return file_writer_commit(w, err);
}

// The shard that begins with tensor `first`; *n: how many it has.
static bool write_shard(struct maker *m, int64_t first, int64_t *n, struct error *err)
{
    const int64_t shard = m->shard_of[first];
    char name[64], path[4096];
    shard_name(name, sizeof name, m, shard);
    for (*n = 1; first + *n < m->count && m->shard_of[first + *n] == shard;) {
        ++*n;
    }
    struct st_writer_entry *entry = mem_zalloc((size_t)*n, sizeof *entry);
    if (!entry) return fail(err, "%s: no memory", name);
    for (int64_t i = 0; i < *n; i++) {
        const struct tensor_spec *s = &m->spec[first + i];
        entry[i] = (struct st_writer_entry){.name = s->name,
                                            .dtype_name = dtype_name(dtypes[m->type].dtype),
                                            .rank = s->rank,
                                            .bytes = (size_t)spec_bytes(m, s)};
        memcpy(entry[i].shape, s->dim, sizeof s->dim);
    }
    struct file_writer w = {.fd = -1};
    const bool ok = path_join(path, sizeof path, m->options->out, name, err) &&
                    safetensors_begin(&w, path, entry, *n, "{\"format\":\"pt\"}", err) &&
                    write_tensors(m, &w, first, *n, err);
    if (!ok) file_writer_discard(&w);
    mem_free(entry);
    if (ok) log_info("%s: %" PRId64 " tensors", path, *n);
    return ok;
}

static bool write_index(const struct maker *m, struct error *err)
{
    char path[4096], file[64];
    if (m->n_shards == 1) return true;
    if (!path_join(path, sizeof path, m->options->out, "model.safetensors.index.json", err)) {
        return false;
    }
    json_t *map = json_object();
    bool ok = map != NULL;
    for (int64_t i = 0; ok && i < m->count; i++) {
        shard_name(file, sizeof file, m, m->shard_of[i]);
        ok = json_object_set_new(map, m->spec[i].name, json_string(file)) == 0;
    }
    json_t *root = json_pack("{s:{s:I,s:I},s:o}", "metadata", "total_parameters",
                             (json_int_t)m->parameters, "total_size", (json_int_t)m->bytes,
                             "weight_map", map); // takes map, also where it fails
    ok = root && ok ? json_write_file(path, root, err) : fail(err, "%s: no memory", path);
    json_decref(root);
    return ok;
}

// A loader would read the weights in the type that config.json names, so it must name ours.
static bool write_config(const struct maker *m, json_t *config, struct error *err)
{
    char path[4096];
    if (!path_join(path, sizeof path, m->options->out, "config.json", err)) return false;
    static const char *const keys[] = {"dtype", "torch_dtype"};
    bool same = true;
    for (int i = 0; i < 2; i++) {
        const char *text = json_string_value(json_object_get(config, keys[i]));
        if (!text || !strcmp(text, dtypes[m->type].config_name)) continue;
        same = false;
        if (json_object_set_new(config, keys[i], json_string(dtypes[m->type].config_name)) != 0) {
            return fail(err, "%s: no memory", path);
        }
    }
    return same ? file_write(path, m->text, m->text_size, err) : json_write_file(path, config, err);
}

static bool remove_model(const char *dir, struct error *err)
{
    struct dir_names n;
    char path[4096];
    if (!dir_list(&n, dir, err)) return false;
    bool ok = true;
    for (int64_t i = 0; ok && i < n.count; i++) {
        if (!is_model_file(n.name[i])) continue;
        ok = path_join(path, sizeof path, dir, n.name[i], err) &&
             (unlink(path) == 0 || fail(err, "%s: cannot remove: %s", path, strerror(errno)));
    }
    dir_names_free(&n);
    return ok;
}

static bool clear_folder(const struct maker *m, struct error *err)
{
    const char *out = m->options->out;
    if (!m->options->overwrite && !folder_has_no_model(out, err)) return false;
    return dir_make(out, err) && remove_model(out, err);
}

static bool choose_dtype(struct maker *m, const json_t *config, struct error *err)
{
    const char *wanted = m->options->dtype, *text = wanted;
    if (!text) text = json_string_value(json_object_get(config, "dtype"));
    if (!text) text = json_string_value(json_object_get(config, "torch_dtype"));
    if (!text) return true; // bf16, the first
    for (m->type = 0; m->type < DTYPES; m->type++) {
        if (!strcmp(text, wanted ? dtypes[m->type].name : dtypes[m->type].config_name)) return true;
    }
    return fail(err, "%s: dtype %.60s, expected %s", m->options->config, text,
                wanted ? "bf16, f16 or f32" : "bfloat16, float16 or float32");
}

static bool check_space(const struct maker *m, struct error *err)
{
    const int64_t available = disk_free(m->options->out);
    if (available < 0 || m->bytes <= available) return true;
    return fail(err, "%s: the model needs %" PRId64 " MB, %" PRId64 " MB are free", m->options->out,
                m->bytes / 1000000 + 1, available / 1000000);
}

static bool make(struct maker *m, json_t *config, struct error *err)
{
    bool fused[MAX_LAYERS];
    memset(fused, m->options->fused, sizeof fused);
    if (!choose_dtype(m, config, err) ||
        !shapes_visit(m->family, &m->config, fused, collect, m, err) || !divide(m, err) ||
        !check_space(m, err) || !clear_folder(m, err)) {
        return false;
    }
    m->piece = mem_alloc((size_t)PIECE * sizeof(float));
    if (!m->piece) return fail(err, "%s: no memory", m->options->out);
    for (int64_t i = 0, n = 0; i < m->count; i += n) {
        if (!write_shard(m, i, &n, err)) return false;
    }
    return write_index(m, err) && write_config(m, config, err);
}

bool model_init(const struct model_init_options *o, struct error *err)
{
    struct maker m = {.options = o};
    if (!file_read(&m.text, &m.text_size, o->config, CONFIG_LIMIT, err)) return false;
    bool ok = family_parse_config(&m.family, &m.config, m.text, m.text_size, o->config, err);
    json_t *config = ok ? json_parse(m.text, m.text_size, o->config, err) : NULL;
    ok = config && make(&m, config, err);
    json_decref(config);
    mem_free(m.text);
    mem_free(m.spec);
    mem_free(m.shard_of);
    mem_free(m.piece);
    return ok;
}
