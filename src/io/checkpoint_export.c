// io/checkpoint_export.c - a model folder written again with some tensors changed. Headers are copied as
// they are, so names, shapes, dtypes, order, metadata and alignment are the base's by construction.
// config.json comes last: a folder that an interruption left incomplete does not load.
#include "base/dir.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char index_name[] = "model.safetensors.index.json";
static const int64_t side_file_limit = 200000000;

// The files copied besides weights and index.
struct side_files {
    struct dir_names names;
    int64_t bytes;
};

static bool ends_with(const char *s, const char *suffix)
{
    const size_t n = strlen(s), m = strlen(suffix);
    return n >= m && !strcmp(s + n - m, suffix);
}

// Weights in any form, and indexes of weights: written by us or not part of the export.
static bool is_weights(const char *name)
{
    static const char *const suffixes[] = {
        ".safetensors", ".bin",  ".pt",        ".pth",     ".ckpt",   ".gguf", ".ggml",      ".h5",
        ".ot",          ".onnx", ".onnx_data", ".msgpack", ".tflite", ".npz",  ".index.json"};
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        if (ends_with(name, suffixes[i])) return true;
    }
    return false;
}

static bool is_single(const struct checkpoint *c)
{
    return c->n_shards == 1 && !strcmp(c->shard[0].file, "model.safetensors");
}

static bool is_ours(const struct checkpoint *c, const char *name)
{
    for (int64_t s = 0; s < c->n_shards; s++) {
        if (!strcmp(c->shard[s].file, name)) return true;
    }
    return !is_single(c) && !strcmp(name, index_name);
}

// Links are followed, folders are not.
static bool is_side_file(const char *dir, const char *name, int64_t *bytes)
{
    char path[4096];
    struct stat st;
    if (is_weights(name) || !strcmp(name, ".lock")) return false;
    if (!path_join(path, sizeof path, dir, name, NULL)) return false;
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode)) return false;
    *bytes = st.st_size;
    if (st.st_size <= side_file_limit) return true;
    log_warning("%s: not copied, it is larger than %" PRId64 " MB", path,
                side_file_limit / 1000000);
    return false;
}

static bool list_side_files(struct side_files *side, const char *dir, struct error *err)
{
    struct dir_names *n = &side->names;
    if (!dir_list(n, dir, err)) return false;
    int64_t kept = 0;
    for (int64_t i = 0; i < n->count; i++) {
        int64_t bytes;
        if (is_side_file(dir, n->name[i], &bytes)) {
            side->bytes += bytes;
            n->name[kept++] = n->name[i];
        } else {
            mem_free(n->name[i]);
        }
    }
    n->count = kept;
    return true;
}

// A loader would mix weights that an earlier export of another shape left behind with ours, or take them
// for ours.
static bool check_leftovers(const struct checkpoint *c, const char *out, struct error *err)
{
    struct dir_names n;
    if (!dir_list(&n, out, err)) return false;
    bool ok = true;
    for (int64_t i = 0; ok && i < n.count; i++) {
        const char *name = n.name[i];
        const bool weights = (!strncmp(name, "model", 5) && ends_with(name, ".safetensors")) ||
                             !strcmp(name, index_name);
        if (weights && !is_ours(c, name)) {
            ok = fail(err, "%s: holds %s of another model, remove it or choose another folder", out,
                      name);
        }
    }
    dir_names_free(&n);
    return ok;
}

static bool check_folder(const struct checkpoint *c, const char *out, struct error *err)
{
    struct stat from, to;
    if (!dir_make(out, err)) return false;
    if (stat(c->dir, &from) != 0) return fail(err, "%s: %s", c->dir, strerror(errno));
    if (stat(out, &to) != 0) return fail(err, "%s: %s", out, strerror(errno));
    if (from.st_dev == to.st_dev && from.st_ino == to.st_ino) {
        return fail(err, "%s: is the folder that the model is read from", out);
    }
    return check_leftovers(c, out, err);
}

static bool check_space(const struct checkpoint *c, const struct side_files *side, const char *out,
                        struct error *err)
{
    int64_t needed = side->bytes;
    for (int64_t s = 0; s < c->n_shards; s++) {
        needed += (int64_t)c->shard[s].st.map.size;
    }
    const int64_t available = disk_free(out);
    if (available < 0 || needed <= available) return true;
    return fail(err, "%s: the model needs %" PRId64 " MB, %" PRId64 " MB are free", out,
                needed / 1000000 + 1, available / 1000000);
}

static int by_offset(const void *pa, const void *pb)
{
    const struct st_entry *a = *(const struct st_entry *const *)pa;
    const struct st_entry *b = *(const struct st_entry *const *)pb;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    return (a->end > b->end) - (a->end < b->end);
}

static bool write_tensor(struct file_writer *w, const struct st_entry *e, checkpoint_value value,
                         void *user, struct error *err)
{
    const size_t n = e->end - e->begin;
    void *bytes = value ? mem_zalloc(n, 1) : NULL;
    if (value && !bytes) return fail(err, "%s: %s: no memory for %zu bytes", w->path, e->name, n);
    const bool changed = value && value(user, e, bytes);
    const bool ok = file_writer_write(w, changed ? bytes : e->tensor.data, n, err);
    mem_free(bytes);
    return ok;
}

static bool write_tensors(struct file_writer *w, const struct safetensors *st,
                          checkpoint_value value, void *user, struct error *err)
{
    const struct st_entry **order = mem_zalloc((size_t)st->count, sizeof *order);
    if (!order) return fail(err, "%s: no memory", w->path);
    for (int64_t i = 0; i < st->count; i++) {
        order[i] = &st->entry[i];
    }
    if (st->count) qsort(order, (size_t)st->count, sizeof *order, by_offset);
    bool ok = true;
    for (int64_t i = 0; ok && i < st->count; i++) {
        ok = write_tensor(w, order[i], value, user, err);
    }
    mem_free(order);
    return ok;
}

static bool export_shard(const struct checkpoint_shard *s, const char *out, checkpoint_value value,
                         void *user, struct error *err)
{
    char path[4096];
    struct file_writer w;
    if (!path_join(path, sizeof path, out, s->file, err) || !file_writer_open(&w, path, err)) {
        return false;
    }
    if (file_writer_write(&w, s->st.map.data, s->st.header_size, err) &&
        write_tensors(&w, &s->st, value, user, err) && file_writer_commit(&w, err)) {
        return true;
    }
    file_writer_discard(&w);
    return false;
}

static bool copy_one(const char *out, const char *dir, const char *name, struct error *err)
{
    char from[4096], to[4096];
    return path_join(from, sizeof from, dir, name, err) &&
           path_join(to, sizeof to, out, name, err) && file_copy(to, from, err);
}

static bool export_all(const struct checkpoint *c, const struct side_files *side, const char *out,
                       checkpoint_value value, void *user, struct error *err)
{
    for (int64_t s = 0; s < c->n_shards; s++) {
        if (!export_shard(&c->shard[s], out, value, user, err)) return false;
    }
    if (!is_single(c) && !copy_one(out, c->dir, index_name, err)) return false;
    bool has_config = false;
    for (int64_t i = 0; i < side->names.count; i++) {
        const char *name = side->names.name[i];
        const bool config = !strcmp(name, "config.json");
        has_config |= config;
        if (!config && !copy_one(out, c->dir, name, err)) return false;
    }
    return !has_config || copy_one(out, c->dir, "config.json", err);
}

bool checkpoint_export(const struct checkpoint *c, const char *out, checkpoint_value value,
                       void *user, struct error *err)
{
    struct side_files side = {0};
    const bool ok = check_folder(c, out, err) && list_side_files(&side, c->dir, err) &&
                    check_space(c, &side, out, err) && export_all(c, &side, out, value, user, err);
    dir_names_free(&side.names);
    return ok;
}
