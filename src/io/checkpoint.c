// io/checkpoint.c - see checkpoint.h. Opening a folder, and looking tensors up; checkpoint_export.c
// writes it again.
#include "io/checkpoint.h"

#include "base/log.h"
#include "base/mem.h"
#include "io/json.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

static const char single_name[] = "model.safetensors";
static const char index_name[] = "model.safetensors.index.json";
enum { INDEX_LIMIT = 64 << 20, MAX_SHARDS = 10000 };

static bool ends_with(const char *s, const char *suffix)
{
    const size_t n = strlen(s), m = strlen(suffix);
    return n >= m && !strcmp(s + n - m, suffix);
}

static bool add_shard(struct checkpoint *c, const char *file, int64_t *capacity, struct error *err)
{
    char path[4096];
    if (!path_join(path, sizeof path, c->dir, file, err)) return false;
    struct checkpoint_shard *grown = array_grow(c->shard, c->n_shards, capacity, sizeof *c->shard);
    if (!grown) return fail(err, "%s: no memory", path);
    c->shard = grown;
    struct checkpoint_shard *s = &c->shard[c->n_shards++];
    *s = (struct checkpoint_shard){.file = mem_strdup(file), .path = mem_strdup(path)};
    if (!s->file || !s->path) return fail(err, "%s: no memory", path);
    return safetensors_open(&s->st, s->path, err);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool check_shard_name(const char *tensor, const json_t *value, const char *where,
                             struct error *err)
{
    const char *file = json_string_value(value);
    const bool plain = file && path_is_plain_name(file) && strlen(file) <= NAME_MAX;
    if (plain && ends_with(file, ".safetensors")) return true;
    return fail(err,
                "%s: weight_map: %s: found %.100s, expected the name of a .safetensors file in "
                "the same folder",
                where, tensor, file ? file : "no string");
}

// Opens each file that the weight map names, in the order of their names.
static bool open_shards(struct checkpoint *c, json_t *map, const char *where, struct error *err)
{
    const size_t n = json_object_size(map);
    const char **file = mem_zalloc(n, sizeof *file), *name;
    if (!file) return fail(err, "%s: no memory for %zu names", where, n);
    json_t *value;
    bool ok = true;
    size_t count = 0;
    json_object_foreach(map, name, value)
    {
        ok = ok && check_shard_name(name, value, where, err);
        file[count++] = json_string_value(value);
    }
    if (ok && n) qsort(file, n, sizeof *file, by_text);
    int64_t capacity = 0;
    for (size_t i = 0; ok && i < n; i++) {
        if (i && !strcmp(file[i], file[i - 1])) continue;
        ok = c->n_shards < MAX_SHARDS || fail(err, "%s: more than %d shards", where, MAX_SHARDS);
        ok = ok && add_shard(c, file[i], &capacity, err);
    }
    mem_free(file);
    return ok;
}

static bool check_index(const struct checkpoint *c, json_t *map, const char *where,
                        struct error *err)
{
    for (int64_t s = 0; s < c->n_shards; s++) {
        const struct checkpoint_shard *shard = &c->shard[s];
        for (int64_t i = 0; i < shard->st.count; i++) {
            const char *name = shard->st.entry[i].name;
            const char *file = json_string_value(json_object_get(map, name));
            if (file && !strcmp(file, shard->file)) continue;
            return fail(err, "%s: %s is in %s, the index has it in %s", where, name, shard->file,
                        file ? file : "no shard");
        }
    }
    // Every stored tensor is in the index at its shard; equal counts make the converse true.
    if (checkpoint_tensors(c) == (int64_t)json_object_size(map)) return true;
    const char *name;
    json_t *value;
    json_object_foreach(map, name, value)
    {
        if (!checkpoint_find(c, name)) {
            return fail(err, "%s: %s: not in its shard %s", where, name, json_string_value(value));
        }
    }
    return true;
}

static bool open_index(struct checkpoint *c, const char *path, struct error *err)
{
    json_t *root = json_parse_file(path, INDEX_LIMIT, err);
    if (!root) return false;
    json_t *map = json_object_get(root, "weight_map");
    const bool ok = (json_is_object(map) || fail(err, "%s: no weight_map", path)) &&
                    open_shards(c, map, path, err) && check_index(c, map, path, err);
    json_decref(root);
    return ok;
}

// Why there is nothing to open: the likely mistakes have their own words.
static bool nothing_here(const char *dir, struct error *err)
{
    char bin[4096], bin_index[4096];
    if (!path_join(bin, sizeof bin, dir, "pytorch_model.bin", err) ||
        !path_join(bin_index, sizeof bin_index, dir, "pytorch_model.bin.index.json", err)) {
        return false;
    }
    if (!file_exists(dir)) return fail(err, "%s: no such folder", dir);
    return fail(err, "%s: neither %s nor %s here%s", dir, single_name, index_name,
                file_exists(bin) || file_exists(bin_index)
                    ? "; pytorch_model.bin is not read, convert it to safetensors"
                    : "");
}

bool checkpoint_open(struct checkpoint *c, const char *dir, struct error *err)
{
    *c = (struct checkpoint){.dir = mem_strdup(dir)};
    char single[4096], index[4096];
    int64_t capacity = 0;
    bool ok = (c->dir || fail(err, "%s: no memory", dir)) &&
              path_join(single, sizeof single, dir, single_name, err) &&
              path_join(index, sizeof index, dir, index_name, err);
    if (ok && file_exists(single)) { // as transformers: the single file is preferred
        ok = add_shard(c, single_name, &capacity, err);
    } else if (ok && file_exists(index)) {
        ok = open_index(c, index, err);
    } else if (ok) {
        ok = nothing_here(dir, err);
    }
    if (!ok) checkpoint_close(c);
    return ok;
}

bool checkpoint_exists(const char *dir)
{
    char single[4096], index[4096];
    return !path_join(single, sizeof single, dir, single_name, NULL) ||
           !path_join(index, sizeof index, dir, index_name, NULL) || file_exists(single) ||
           file_exists(index);
}

bool checkpoint_check_files(struct checkpoint *c, struct error *err)
{
    for (int64_t s = 0; s < c->n_shards; s++) {
        bool written = false;
        if (!file_map_check(&c->shard[s].st.map, c->shard[s].path, &written, err)) return false;
        if (!written) continue;
        log_warning("%s: was written to while it is in use: weights may be of two models",
                    c->shard[s].path);
    }
    return true;
}

void checkpoint_close(struct checkpoint *c)
{
    for (int64_t s = 0; s < c->n_shards; s++) {
        safetensors_close(&c->shard[s].st);
        mem_free(c->shard[s].file);
        mem_free(c->shard[s].path);
    }
    mem_free(c->shard);
    mem_free(c->dir);
    *c = (struct checkpoint){0};
}

const struct st_entry *checkpoint_find(const struct checkpoint *c, const char *name)
{
    for (int64_t s = 0; s < c->n_shards; s++) {
        const struct st_entry *e = safetensors_find(&c->shard[s].st, name);
        if (e) return e;
    }
    return NULL;
}

const char *checkpoint_file_of(const struct checkpoint *c, const struct st_entry *e)
{
    for (int64_t s = 0; s < c->n_shards; s++) {
        if (safetensors_find(&c->shard[s].st, e->name) == e) return c->shard[s].path;
    }
    return c->dir;
}

int64_t checkpoint_tensors(const struct checkpoint *c)
{
    int64_t n = 0;
    for (int64_t s = 0; s < c->n_shards; s++) {
        n += c->shard[s].st.count;
    }
    return n;
}

const struct st_entry *checkpoint_at(const struct checkpoint *c, int64_t i)
{
    for (int64_t s = 0; s < c->n_shards; s++) {
        if (i < c->shard[s].st.count) return &c->shard[s].st.entry[i];
        i -= c->shard[s].st.count;
    }
    return NULL;
}
