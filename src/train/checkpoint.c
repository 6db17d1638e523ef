// train/checkpoint.c - see checkpoint.h.
#include "train/checkpoint.h"

#include "base/crc32c.h"
#include "base/dir.h"
#include "base/file.h"
#include "io/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { PATH_SIZE = 4096, CHUNK = 4 << 20, MANIFEST_LIMIT = 256 << 20 };

// The arrays of a leaf, and the file of each, without the leaves that have no such array. Where none has a
// scale there is no file of them.
static const struct part {
    const char *file;
    size_t at;
    bool may_miss;
} parts[] = {
    {"values.safetensors", offsetof(struct leaf, value), false},
    {"m.safetensors", offsetof(struct leaf, m), false},
    {"v.safetensors", offsetof(struct leaf, v), false},
    {"m_scale.safetensors", offsetof(struct leaf, m_scale), true},
    {"v_scale.safetensors", offsetof(struct leaf, v_scale), true},
};
enum { PARTS = sizeof parts / sizeof *parts };

static const struct tensor *part_of(const struct leaf *f, const struct part *p)
{
    return (const struct tensor *)((const char *)f + p->at);
}

static bool has_part(const struct leaf *f, const struct part *p)
{
    return tensor_count(*part_of(f, p)) > 0;
}

static int64_t count_part(const struct leaves *l, const struct part *p)
{
    int64_t n = 0;
    for (int64_t i = 0; i < l->count; i++) {
        n += has_part(&l->leaf[i], p);
    }
    return n;
}

size_t run_checkpoint_bytes(const struct leaves *l)
{
    size_t bytes = 65536;
    for (int64_t i = 0; i < l->count * PARTS; i++) {
        const struct leaf *f = &l->leaf[i / PARTS];
        const struct part *p = &parts[i % PARTS];
        if (!has_part(f, p)) continue;
        bytes += tensor_bytes(*part_of(f, p)) + 512; // names, in headers and manifest
    }
    return bytes;
}

static struct st_writer_entry *entries_of(const struct leaves *l, const struct part *p)
{
    struct st_writer_entry *entry = mem_zalloc((size_t)l->count, sizeof *entry), *e = entry;
    for (int64_t i = 0; entry && i < l->count; i++) {
        const struct tensor *t = part_of(&l->leaf[i], p);
        if (!has_part(&l->leaf[i], p)) continue;
        e->name = l->leaf[i].name;
        e->dtype_name = dtype_name(t->dtype);
        e->rank = t->rank;
        e->bytes = tensor_bytes(*t);
        for (int d = 0; d < t->rank; d++) {
            e->shape[d] = t->dim[d];
        }
        e++;
    }
    return entry;
}

// Streams one array from the backend through `chunk`.
static bool write_tensor(struct file_writer *w, uint32_t *crc, const struct ops *o,
                         const struct tensor *t, char *chunk, struct error *err)
{
    const size_t bytes = tensor_bytes(*t);
    *crc = 0;
    for (size_t at = 0; at < bytes; at += CHUNK) {
        const size_t n = bytes - at < CHUNK ? bytes - at : CHUNK;
        o->download(chunk, (const char *)t->data + at, n);
        *crc = crc32c(*crc, chunk, n);
        if (!file_writer_write(w, chunk, n, err)) return false;
    }
    return true;
}

static bool write_tensors(struct file_writer *w, struct manifest_file *f, const struct saved *what,
                          const struct part *p, char *chunk, struct error *err)
{
    for (int64_t i = 0; i < what->leaves->count; i++) {
        const struct leaf *leaf = &what->leaves->leaf[i];
        if (!has_part(leaf, p)) continue;
        struct manifest_tensor *t = manifest_add_tensor(f, leaf->name);
        if (!t) return fail(err, "%s: no memory", f->name);
        if (!write_tensor(w, &t->crc, what->ops, part_of(leaf, p), chunk, err)) return false;
    }
    return true;
}

// The bytes of a safetensors file before its data.
static bool header_size(size_t *n, const struct file_map *m, const char *path, struct error *err)
{
    uint64_t text = 0;
    if (m->size < sizeof text) return fail(err, "%s: %zu bytes is too short", path, m->size);
    memcpy(&text, m->data, sizeof text);
    if (text > m->size - sizeof text) {
        return fail(err, "%s: header of %" PRIu64 " bytes, file of %zu", path, text, m->size);
    }
    *n = sizeof text + (size_t)text;
    return true;
}

static bool sum_header(struct manifest_file *f, const char *path, struct error *err)
{
    struct file_map m;
    size_t n = 0;
    if (!file_map_open(&m, path, err)) return false;
    const bool ok = header_size(&n, &m, path, err);
    if (ok) f->crc = crc32c(0, m.data, n);
    if (ok) f->size = (int64_t)m.size;
    file_map_close(&m);
    return ok;
}

static bool write_part(struct manifest *m, const char *dir, const struct saved *what,
                       const struct part *p, struct error *err)
{
    char path[PATH_SIZE];
    const int64_t n = count_part(what->leaves, p);
    if (!n && p->may_miss) return true;
    struct manifest_file *f = manifest_add(m, p->file);
    if (!f) return fail(err, "%s: no memory", dir);
    if (!path_join(path, sizeof path, dir, p->file, err)) return false;
    struct st_writer_entry *entry = entries_of(what->leaves, p);
    char *chunk = mem_alloc(CHUNK);
    struct file_writer w = {.fd = -1};
    bool ok = (entry && chunk) || fail(err, "%s: no memory", path);
    ok = ok && safetensors_begin(&w, path, entry, n, NULL, err) &&
         write_tensors(&w, f, what, p, chunk, err) && file_writer_commit(&w, err);
    file_writer_discard(&w);
    mem_free(entry);
    mem_free(chunk);
    return ok && sum_header(f, path, err);
}

// A file that others wrote into the folder (the state, the routing's).
static bool list_file(struct manifest *m, const char *dir, const char *name, struct error *err)
{
    char path[PATH_SIZE];
    struct file_map map;
    if (!path_join(path, sizeof path, dir, name, err)) return false;
    struct manifest_file *f = manifest_add(m, name);
    if (!f) return fail(err, "%s: no memory", path);
    if (!file_map_open(&map, path, err)) return false;
    f->size = (int64_t)map.size;
    f->crc = crc32c(0, map.data, map.size);
    file_map_close(&map);
    return true;
}

static bool list_others(struct manifest *m, const char *dir, struct error *err)
{
    struct dir_names names;
    if (!dir_list(&names, dir, err)) return false;
    bool ok = true;
    for (int64_t i = 0; ok && i < names.count; i++) {
        if (!manifest_find(m, names.name[i])) ok = list_file(m, dir, names.name[i], err);
    }
    dir_names_free(&names);
    return ok;
}

static bool write_manifest(const struct manifest *m, const char *dir, struct error *err)
{
    char path[PATH_SIZE];
    struct buf text = {0};
    bool ok = path_join(path, sizeof path, dir, "manifest.json", err);
    if (ok && !manifest_text(m, &text)) ok = fail(err, "%s: no memory", path);
    ok = ok && file_write(path, text.data, text.size, err);
    buf_free(&text);
    return ok;
}

static bool write_folder(const char *dir, const struct saved *what, const struct train_state *state,
                         struct error *err)
{
    char path[PATH_SIZE];
    struct manifest m = {.step = state->step};
    bool ok = dir_make(dir, err);
    for (int i = 0; ok && i < PARTS; i++) {
        ok = write_part(&m, dir, what, &parts[i], err);
    }
    if (ok && what->routing_state && what->routing->save) {
        ok = what->routing->save(what->routing_state, dir, err);
    }
    if (ok && what->tuning && what->tuning->save) {
        ok = what->tuning->save(what->tuning_state, dir, err);
    }
    ok = ok && what->ops->check(err) && path_join(path, sizeof path, dir, "state.json", err) &&
         train_state_write(state, path, err) && list_others(&m, dir, err) &&
         write_manifest(&m, dir, err);
    manifest_free(&m);
    return ok;
}

bool run_checkpoint_save(const char *out, const struct saved *what, const struct train_state *state,
                         struct error *err)
{
    char dir[PATH_SIZE], temporary[PATH_SIZE];
    const int n = snprintf(dir, sizeof dir, "%s/checkpoint-%" PRId64, out, state->step);
    const int m = snprintf(temporary, sizeof temporary, "%s.tmp", dir);
    if (n < 0 || m < 0 || (size_t)m >= sizeof temporary) return fail(err, "%s: path too long", out);
    if (!dir_remove(temporary, err)) return false;
    // One that is there already did not verify.
    if (write_folder(temporary, what, state, err) && dir_replace(dir, temporary, err)) return true;
    dir_remove(temporary, NULL);
    return false;
}

static bool check_crc(uint32_t found, uint32_t expected, const char *path, const char *what,
                      struct error *err)
{
    if (found == expected) return true;
    return fail(err, "%s: %s: checksum %08" PRIx32 ", %08" PRIx32 " expected: its bytes changed",
                path, what, found, expected);
}

static bool check_size(const struct file_map *m, const struct manifest_file *f, const char *path,
                       struct error *err)
{
    if ((uint64_t)m->size == (uint64_t)f->size) return true;
    return fail(err, "%s: %zu bytes, %" PRId64 " expected", path, m->size, f->size);
}

static bool check_file(const char *dir, const struct manifest_file *f, struct error *err)
{
    char path[PATH_SIZE];
    struct file_map m;
    if (!path_join(path, sizeof path, dir, f->name, err) || !file_map_open(&m, path, err)) {
        return false;
    }
    const bool ok = check_size(&m, f, path, err) &&
                    check_crc(crc32c(0, m.data, m.size), f->crc, path, "the file", err);
    file_map_close(&m);
    return ok;
}

static bool read_manifest(struct manifest *manifest, const char *dir, struct error *err)
{
    char path[PATH_SIZE], *text;
    size_t size;
    if (!path_join(path, sizeof path, dir, "manifest.json", err) ||
        !file_read(&text, &size, path, MANIFEST_LIMIT, err)) {
        return false;
    }
    const bool ok = manifest_parse(manifest, text, size, path, err);
    mem_free(text);
    return ok;
}

static bool read_state(const char *dir, const struct manifest *manifest, struct train_state *state,
                       struct error *err)
{
    char path[PATH_SIZE];
    const struct manifest_file *f = manifest_find(manifest, "state.json");
    if (!f) return fail(err, "%s: manifest.json lists no state.json", dir);
    if (!check_file(dir, f, err)) return false;
    if (!path_join(path, sizeof path, dir, f->name, err)) return false;
    if (!train_state_read(state, path, err)) return false;
    if (state->step == manifest->step) return true;
    train_state_free(state);
    return fail(err, "%s: of step %" PRId64 ", manifest.json of step %" PRId64, path, state->step,
                manifest->step);
}

// A folder of another checkpoint verifies as well as this one's would.
static bool check_step(const char *path, int64_t step, const struct manifest *manifest,
                       struct error *err)
{
    return manifest->step == step ||
           fail(err, "%s: holds step %" PRId64 ", step %" PRId64 " expected (manifest.json)", path,
                manifest->step, step);
}

bool run_checkpoint_state(const char *path, int64_t step, struct manifest *manifest,
                          struct train_state *state, struct error *err)
{
    *state = (struct train_state){0};
    if (!read_manifest(manifest, path, err)) return false;
    if (check_step(path, step, manifest, err) && read_state(path, manifest, state, err)) {
        return true;
    }
    manifest_free(manifest);
    return false;
}

// Summed and handed over in pieces, so that each is read from memory once.
static uint32_t load_bytes(const struct ops *o, char *to, const unsigned char *from, size_t bytes)
{
    uint32_t crc = 0;
    for (size_t at = 0; at < bytes; at += CHUNK) {
        const size_t n = bytes - at < CHUNK ? bytes - at : CHUNK;
        crc = crc32c(crc, from + at, n);
        o->upload(to + at, from + at, n);
    }
    return crc;
}

static bool same_shape(const struct st_entry *e, const struct tensor *t)
{
    bool same = e->known && e->tensor.dtype == t->dtype && e->tensor.rank == t->rank;
    for (int d = 0; same && d < t->rank; d++) {
        same = e->tensor.dim[d] == t->dim[d];
    }
    return same;
}

static bool load_tensors(const struct safetensors *st, const struct manifest_file *f,
                         const struct saved *what, const struct part *p, struct error *err)
{
    const struct leaves *l = what->leaves;
    const int64_t n = count_part(l, p);
    if (st->count != n || f->n_tensors != n) {
        return fail(err, "%s: %" PRId64 " tensors, %" PRId64 " learn in this run", st->path,
                    st->count, n);
    }
    int64_t at = 0; // in the file
    for (int64_t i = 0; i < l->count; i++) {
        const struct tensor *t = part_of(&l->leaf[i], p);
        const struct st_entry *e = safetensors_find(st, l->leaf[i].name);
        if (!has_part(&l->leaf[i], p)) continue;
        if (!e || strcmp(f->tensor[at].name, l->leaf[i].name) != 0) {
            return fail(err, "%s: no tensor %s in its place", st->path, l->leaf[i].name);
        }
        if (!same_shape(e, t)) {
            return fail(err, "%s: %s: not of the type and shape that learn in this run", st->path,
                        e->name);
        }
        const uint32_t crc = load_bytes(what->ops, t->data, e->tensor.data, tensor_bytes(*t));
        if (!check_crc(crc, f->tensor[at++].crc, st->path, e->name, err)) return false;
    }
    return true;
}

static bool check_header(const struct manifest_file *f, const char *path, struct error *err)
{
    struct file_map m;
    size_t n = 0;
    if (!file_map_open(&m, path, err)) return false;
    const bool ok = check_size(&m, f, path, err) && header_size(&n, &m, path, err) &&
                    check_crc(crc32c(0, m.data, n), f->crc, path, "the header", err);
    file_map_close(&m);
    return ok;
}

static bool load_part(const char *dir, const struct manifest *manifest, const struct saved *what,
                      const struct part *p, struct error *err)
{
    char path[PATH_SIZE];
    struct safetensors st;
    const struct manifest_file *f = manifest_find(manifest, p->file);
    if (!f && p->may_miss && !count_part(what->leaves, p)) return true;
    if (!f) return fail(err, "%s: manifest.json lists no %s", dir, p->file);
    if (!path_join(path, sizeof path, dir, p->file, err)) return false;
    if (!check_header(f, path, err) || !safetensors_open(&st, path, err)) return false;
    const bool ok = load_tensors(&st, f, what, p, err);
    safetensors_close(&st);
    return ok;
}

bool run_checkpoint_values(const char *path, const struct manifest *manifest,
                           const struct saved *what, struct error *err)
{
    if (!load_part(path, manifest, what, &parts[0], err)) return false;
    for (int64_t i = 0; i < what->leaves->count; i++) {
        const struct leaf *f = &what->leaves->leaf[i];
        if (f->copy.data) what->ops->convert(f->copy, f->value);
    }
    return true;
}

static bool is_part(const char *name)
{
    for (int i = 0; i < PARTS; i++) {
        if (!strcmp(parts[i].file, name)) return true;
    }
    return false;
}

// What is not in the list was not written with it, and might be read for a part of the state. What others keep in a
// folder unseen (.DS_Store, .nfs...) is never read.
static bool nothing_unlisted(const char *path, const struct manifest *manifest, struct error *err)
{
    struct dir_names names;
    if (!dir_list(&names, path, err)) return false;
    bool ok = true;
    for (int64_t i = 0; ok && i < names.count; i++) {
        const char *name = names.name[i];
        ok = *name == '.' || !strcmp(name, "manifest.json") || manifest_find(manifest, name) ||
             fail(err, "%s: holds %s, which manifest.json does not list", path, name);
    }
    dir_names_free(&names);
    return ok;
}

static bool check_others(const char *path, const struct manifest *manifest, struct error *err)
{
    if (!nothing_unlisted(path, manifest, err)) return false;
    for (int64_t i = 0; i < manifest->n_files; i++) {
        const struct manifest_file *f = &manifest->file[i];
        if (!is_part(f->name) && !check_file(path, f, err)) return false;
    }
    return true;
}

static bool load_routing(const char *path, const struct saved *what, struct error *err)
{
    struct routing_source from;
    if (!what->routing_state || !what->routing->load) return true;
    return routing_source_find(&from, path, NULL, err) &&
           what->routing->load(what->routing_state, &from, err);
}

bool run_checkpoint_routing(const char *path, const struct manifest *manifest,
                            const struct saved *what, struct error *err)
{
    return check_others(path, manifest, err) && load_routing(path, what, err);
}

bool run_checkpoint_rest(const char *path, const struct manifest *manifest,
                         const struct saved *what, struct error *err)
{
    for (int i = 1; i < PARTS; i++) {
        if (!load_part(path, manifest, what, &parts[i], err)) return false;
    }
    if (!check_others(path, manifest, err)) return false;
    if (what->tuning && what->tuning->load && !what->tuning->load(what->tuning_state, path, err)) {
        return false;
    }
    return load_routing(path, what, err);
}
