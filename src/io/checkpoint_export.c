// io/checkpoint_export.c - a model folder written again with some tensors changed. Headers are copied as
// they are, so names, shapes, dtypes, order, metadata and alignment are the base's by construction.
// config.json comes last: a folder that an interruption left incomplete does not load.
#include "base/dir.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/checkpoint.h"
#include "io/folders.h"
#include "io/json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char index_name[] = "model.safetensors.index.json";
static const int64_t side_file_limit = 200000000;
static const size_t index_limit = 64 << 20;

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
    *bytes = 0;
    if (is_weights(name) || !strcmp(name, ".lock")) return false;
    if (!path_join(path, sizeof path, dir, name, NULL)) return false;
    if (stat(path, &st) != 0) return errno != ENOENT && errno != ELOOP; // its copy says why
    if (!S_ISREG(st.st_mode)) return false;
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
        if (is_weights_file(name) && !is_ours(c, name)) {
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

static bool drops(const struct checkpoint_edit *edit, const char *tensor)
{
    return edit->drops_tensor && edit->drops_tensor(edit->user, tensor);
}

// The tensors of a shard that stay, in the order of their bytes. mem_free; NULL: no memory.
static const struct st_entry **kept_entries(const struct safetensors *st,
                                            const struct checkpoint_edit *edit, int64_t *count)
{
    const struct st_entry **order = mem_zalloc((size_t)st->count, sizeof *order);
    *count = 0;
    for (int64_t i = 0; order && i < st->count; i++) {
        if (!drops(edit, st->entry[i].name)) order[(*count)++] = &st->entry[i];
    }
    if (*count) qsort(order, (size_t)*count, sizeof *order, by_offset);
    return order;
}

static bool write_tensor(struct file_writer *w, const struct st_entry *e,
                         const struct checkpoint_edit *edit, struct error *err)
{
    const size_t n = e->end - e->begin;
    void *bytes = edit->value ? mem_zalloc(n, 1) : NULL;
    if (edit->value && !bytes) {
        return fail(err, "%s: %s: no memory for %zu bytes", w->path, e->name, n);
    }
    const bool changed = edit->value && edit->value(edit->user, e, bytes);
    const bool ok = file_writer_write(w, changed ? bytes : e->tensor.data, n, err);
    mem_free(bytes);
    return ok;
}

// The header again without what is dropped.
static bool begin_shard(struct file_writer *w, const char *path, const struct safetensors *st,
                        const struct st_entry **kept, int64_t count, struct error *err)
{
    if (count == st->count) {
        return file_writer_open(w, path, err) &&
               file_writer_write(w, st->map.data, st->header_size, err);
    }
    struct st_writer_entry *entry = mem_zalloc((size_t)count, sizeof *entry);
    if (!entry) return fail(err, "%s: no memory", path);
    for (int64_t i = 0; i < count; i++) {
        entry[i] = (struct st_writer_entry){.name = kept[i]->name,
                                            .dtype_name = kept[i]->dtype_name,
                                            .rank = kept[i]->rank,
                                            .bytes = kept[i]->end - kept[i]->begin};
        memcpy(entry[i].shape, kept[i]->shape, sizeof entry[i].shape);
    }
    const bool ok = safetensors_begin(w, path, entry, count, st->metadata, err);
    mem_free(entry);
    return ok;
}

static bool export_shard(const struct checkpoint_shard *s, const char *out,
                         const struct checkpoint_edit *edit, struct error *err)
{
    char path[4096];
    int64_t count;
    struct file_writer w = {.fd = -1};
    if (!path_join(path, sizeof path, out, s->file, err)) return false;
    const struct st_entry **kept = kept_entries(&s->st, edit, &count);
    bool ok =
        kept ? begin_shard(&w, path, &s->st, kept, count, err) : fail(err, "%s: no memory", path);
    for (int64_t i = 0; ok && i < count; i++) {
        ok = write_tensor(&w, kept[i], edit, err);
    }
    ok = ok && file_writer_commit(&w, err);
    file_writer_discard(&w);
    mem_free(kept);
    return ok;
}

static bool copy_one(const char *out, const char *dir, const char *name, struct error *err)
{
    char from[4096], to[4096];
    return path_join(from, sizeof from, dir, name, err) &&
           path_join(to, sizeof to, out, name, err) && file_copy(to, from, err);
}

static int64_t dropped_bytes(const struct checkpoint *c, const struct checkpoint_edit *edit)
{
    int64_t bytes = 0;
    for (int64_t i = 0; i < checkpoint_tensors(c); i++) {
        const struct st_entry *e = checkpoint_at(c, i);
        if (drops(edit, e->name)) bytes += (int64_t)(e->end - e->begin);
    }
    return bytes;
}

// The index without what is dropped; total_size, where it is a number, counts bytes of tensors.
static bool edit_index(const struct checkpoint *c, const char *out,
                       const struct checkpoint_edit *edit, struct error *err)
{
    char from[4096], to[4096];
    if (!path_join(from, sizeof from, c->dir, index_name, err)) return false;
    if (!path_join(to, sizeof to, out, index_name, err)) return false;
    json_t *root = json_parse_file(from, index_limit, err);
    if (!root) return false;
    json_t *map = json_object_get(root, "weight_map");
    json_t *metadata = json_object_get(root, "metadata");
    const json_t *total = json_object_get(metadata, "total_size");
    if (json_is_integer(total)) {
        const json_int_t rest = json_integer_value(total) - dropped_bytes(c, edit);
        json_object_set_new(metadata, "total_size", json_integer(rest));
    }
    for (int64_t i = 0; i < checkpoint_tensors(c); i++) {
        const char *name = checkpoint_at(c, i)->name;
        if (drops(edit, name)) json_object_del(map, name);
    }
    const bool ok = json_write_file(to, root, err);
    json_decref(root);
    return ok;
}

static bool export_index(const struct checkpoint *c, const char *out,
                         const struct checkpoint_edit *edit, struct error *err)
{
    for (int64_t i = 0; i < checkpoint_tensors(c); i++) {
        if (drops(edit, checkpoint_at(c, i)->name)) return edit_index(c, out, edit, err);
    }
    return copy_one(out, c->dir, index_name, err);
}

static bool export_config(const struct checkpoint *c, const char *out,
                          const struct checkpoint_edit *edit, struct error *err)
{
    char path[4096];
    if (!edit->config) return copy_one(out, c->dir, "config.json", err);
    return path_join(path, sizeof path, out, "config.json", err) &&
           file_write(path, edit->config, strlen(edit->config), err);
}

static bool export_all(const struct checkpoint *c, const struct side_files *side, const char *out,
                       const struct checkpoint_edit *edit, struct error *err)
{
    for (int64_t s = 0; s < c->n_shards; s++) {
        if (!export_shard(&c->shard[s], out, edit, err)) return false;
    }
    if (!is_single(c) && !export_index(c, out, edit, err)) return false;
    bool has_config = false;
    for (int64_t i = 0; i < side->names.count; i++) {
        const char *name = side->names.name[i];
        const bool config = !strcmp(name, "config.json");
        has_config |= config;
        if (config || (edit->drops_file && edit->drops_file(edit->user, name))) continue;
        if (!copy_one(out, c->dir, name, err)) return false;
    }
    if (edit->write && !edit->write(edit->user, out, err)) return false;
    return !has_config || export_config(c, out, edit, err);
}

bool checkpoint_export_edited(const struct checkpoint *c, const char *out,
                              const struct checkpoint_edit *edit, struct error *err)
{
    struct side_files side = {0};
    const bool ok = check_folder(c, out, err) && list_side_files(&side, c->dir, err) &&
                    check_space(c, &side, out, err) && export_all(c, &side, out, edit, err);
    dir_names_free(&side.names);
    return ok;
}

bool checkpoint_export(const struct checkpoint *c, const char *out, checkpoint_value value,
                       void *user, struct error *err)
{
    const struct checkpoint_edit edit = {.user = user, .value = value};
    return checkpoint_export_edited(c, out, &edit, err);
}
