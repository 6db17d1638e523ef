// train/manifest.c - see manifest.h.
#include "train/manifest.h"

#include "base/crc32c.h"
#include "base/file.h"
#include "io/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { FORMAT = 1, CRC_TEXT = 9 };

struct manifest_file *manifest_add(struct manifest *m, const char *name)
{
    struct manifest_file *grown = array_grow(m->file, m->n_files, &m->capacity, sizeof *grown);
    if (!grown) return NULL;
    m->file = grown;
    struct manifest_file *f = &m->file[m->n_files++];
    *f = (struct manifest_file){0};
    snprintf(f->name, sizeof f->name, "%s", name);
    return f;
}

struct manifest_tensor *manifest_add_tensor(struct manifest_file *f, const char *name)
{
    struct manifest_tensor *grown =
        array_grow(f->tensor, f->n_tensors, &f->capacity, sizeof *grown);
    if (!grown) return NULL;
    f->tensor = grown;
    struct manifest_tensor *t = &f->tensor[f->n_tensors++];
    *t = (struct manifest_tensor){0};
    snprintf(t->name, sizeof t->name, "%s", name);
    return t;
}

const struct manifest_file *manifest_find(const struct manifest *m, const char *name)
{
    for (int64_t i = 0; i < m->n_files; i++) {
        if (!strcmp(m->file[i].name, name)) return &m->file[i];
    }
    return NULL;
}

void manifest_free(struct manifest *m)
{
    for (int64_t i = 0; i < m->n_files; i++) {
        mem_free(m->file[i].tensor);
    }
    mem_free(m->file);
    *m = (struct manifest){0};
}

static bool set_crc(json_t *o, const char *key, uint32_t crc)
{
    char text[CRC_TEXT];
    snprintf(text, sizeof text, "%08" PRIx32, crc);
    return json_object_set_new(o, key, json_string(text)) == 0;
}

static bool get_crc(const json_t *o, const char *key, uint32_t *crc, const char *where,
                    struct error *err)
{
    const char *text = NULL;
    if (!json_get_text(o, key, true, &text, where, err)) return false;
    const size_t digits = strspn(text, "0123456789abcdef");
    if (digits != 8 || text[digits]) {
        return fail(err, "%s: %s is '%.20s', 8 hexadecimal digits expected", where, key, text);
    }
    *crc = 0;
    for (const char *p = text; *p; p++) {
        *crc = *crc << 4 | (uint32_t)(*p <= '9' ? *p - '0' : *p - 'a' + 10);
    }
    return true;
}

static json_t *json_of_file(const struct manifest_file *f)
{
    json_t *o = json_object();
    bool ok = json_object_set_new(o, "name", json_string(f->name)) == 0 &&
              json_object_set_new(o, "size", json_integer(f->size)) == 0 &&
              set_crc(o, "crc32c", f->crc);
    if (ok && f->n_tensors) {
        json_t *list = json_array();
        ok = json_object_set_new(o, "tensors", list) == 0;
        for (int64_t i = 0; ok && i < f->n_tensors; i++) {
            json_t *t = json_object();
            ok = json_array_append_new(list, t) == 0 &&
                 json_object_set_new(t, "name", json_string(f->tensor[i].name)) == 0 &&
                 set_crc(t, "crc32c", f->tensor[i].crc);
        }
    }
    if (ok) return o;
    json_decref(o);
    return NULL;
}

static json_t *json_of_manifest(const struct manifest *m)
{
    json_t *root = json_object(), *files = json_array();
    bool ok = json_object_set_new(root, "files", files) == 0 &&
              json_object_set_new(root, "format", json_integer(FORMAT)) == 0 &&
              json_object_set_new(root, "step", json_integer(m->step)) == 0;
    for (int64_t i = 0; ok && i < m->n_files; i++) {
        ok = json_array_append_new(files, json_of_file(&m->file[i])) == 0;
    }
    if (ok) return root;
    json_decref(root);
    return NULL;
}

// One text for one manifest, so that white space and key order are guarded as well.
static bool canonical(const json_t *root, struct buf *out)
{
    char *text = json_text(root, JSON_INDENT(1) | JSON_SORT_KEYS);
    const bool ok = text && buf_puts(out, text) && buf_puts(out, "\n");
    mem_free(text);
    return ok;
}

// The checksum covers the canonical text without the checksum itself.
static bool crc_of(json_t *root, uint32_t *crc)
{
    struct buf text = {0};
    const bool ok = canonical(root, &text);
    *crc = ok ? crc32c(0, text.data, text.size) : 0;
    buf_free(&text);
    return ok;
}

bool manifest_text(const struct manifest *m, struct buf *out)
{
    json_t *root = json_of_manifest(m);
    uint32_t crc = 0;
    const bool ok =
        root && crc_of(root, &crc) && set_crc(root, "crc32c", crc) && canonical(root, out);
    json_decref(root);
    return ok;
}

static bool check_guard(json_t *root, const char *text, size_t size, const char *where,
                        struct error *err)
{
    uint32_t found = 0, expected = 0;
    struct buf again = {0};
    if (!get_crc(root, "crc32c", &found, where, err)) return false;
    bool same = canonical(root, &again) && again.size == size && !memcmp(again.data, text, size);
    buf_free(&again);
    if (!same) return fail(err, "%s: not the text that was written", where);
    json_object_del(root, "crc32c");
    if (!crc_of(root, &expected)) return fail(err, "%s: no memory", where);
    if (found == expected) return true;
    return fail(err, "%s: checksum %08" PRIx32 ", %08" PRIx32 " expected", where, found, expected);
}

static bool read_tensors(struct manifest_file *f, const json_t *o, const char *where,
                         struct error *err)
{
    const json_t *list = json_object_get(o, "tensors");
    if (!list) return true;
    if (!json_is_array(list)) return fail(err, "%s: %s: tensors is not a list", where, f->name);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        const char *name = NULL;
        uint32_t crc = 0;
        if (!json_is_object(item)) return fail(err, "%s: a tensor is not an object", where);
        if (!json_get_text(item, "name", true, &name, where, err)) return false;
        if (!get_crc(item, "crc32c", &crc, where, err)) return false;
        if (strlen(name) >= NAME_MAX_LENGTH) return fail(err, "%s: name too long", where);
        struct manifest_tensor *t = manifest_add_tensor(f, name);
        if (!t) return fail(err, "%s: no memory", where);
        t->crc = crc;
    }
    return true;
}

static bool read_file_entry(struct manifest *m, const json_t *o, const char *where,
                            struct error *err)
{
    const char *name = NULL;
    if (!json_is_object(o)) return fail(err, "%s: a file is not an object", where);
    if (!json_get_text(o, "name", true, &name, where, err)) return false;
    if (!path_is_plain_name(name) || strlen(name) >= sizeof m->file->name) {
        return fail(err, "%s: '%.60s' is not a plain file name", where, name);
    }
    if (manifest_find(m, name)) return fail(err, "%s: %s is listed twice", where, name);
    struct manifest_file *f = manifest_add(m, name);
    if (!f) return fail(err, "%s: no memory", where);
    return json_get_int(o, "size", 0, INT64_MAX, true, &f->size, where, err) &&
           get_crc(o, "crc32c", &f->crc, where, err) && read_tensors(f, o, where, err);
}

static bool read_manifest(struct manifest *m, const json_t *root, const char *where,
                          struct error *err)
{
    int64_t format = 0;
    if (!json_get_int(root, "format", FORMAT, FORMAT, true, &format, where, err)) return false;
    if (!json_get_int(root, "step", 0, INT64_MAX, true, &m->step, where, err)) return false;
    const json_t *files = json_object_get(root, "files");
    if (!json_is_array(files)) return fail(err, "%s: files is not a list", where);
    for (size_t i = 0; i < json_array_size(files); i++) {
        if (!read_file_entry(m, json_array_get(files, i), where, err)) return false;
    }
    return true;
}

bool manifest_parse(struct manifest *m, const char *text, size_t size, const char *where,
                    struct error *err)
{
    *m = (struct manifest){0};
    json_t *root = json_parse(text, size, where, err);
    if (!root) return false;
    const bool ok = (json_is_object(root) || fail(err, "%s: not an object", where)) &&
                    check_guard(root, text, size, where, err) && read_manifest(m, root, where, err);
    json_decref(root);
    if (!ok) manifest_free(m);
    return ok;
}
