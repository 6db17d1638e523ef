// io/safetensors_write.c - see safetensors.h. Writing: the header from a description of all tensors, and
// then the caller's bytes; the file appears at commit.
#include "base/mem.h"
#include "io/safetensors.h"

#include <inttypes.h>
#include <string.h>

static bool append_string(struct buf *b, const char *s)
{
    bool ok = buf_puts(b, "\"");
    for (; *s; s++) {
        const unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') {
            ok = ok && buf_printf(b, "\\%c", c);
        } else if (c < 0x20) {
            ok = ok && buf_printf(b, "\\u%04x", c);
        } else {
            ok = ok && buf_append(b, s, 1);
        }
    }
    return ok && buf_puts(b, "\"");
}

static bool append_entry(struct buf *b, const struct st_writer_entry *e, size_t begin)
{
    bool ok =
        append_string(b, e->name) && buf_printf(b, ":{\"dtype\":\"%s\",\"shape\":[", e->dtype_name);
    for (int i = 0; i < e->rank; i++) {
        ok = ok && buf_printf(b, "%s%" PRId64, i ? "," : "", e->shape[i]);
    }
    return ok && buf_printf(b, "],\"data_offsets\":[%zu,%zu]}", begin, begin + e->bytes);
}

static bool build_header(struct buf *b, const struct st_writer_entry *entry, int64_t count,
                         const char *metadata)
{
    bool ok = buf_puts(b, "{");
    if (metadata) ok = ok && buf_puts(b, "\"__metadata__\":") && buf_puts(b, metadata);
    size_t at = 0;
    for (int64_t i = 0; ok && i < count; i++) {
        ok = (!(i || metadata) || buf_puts(b, ",")) && append_entry(b, &entry[i], at);
        at += entry[i].bytes;
    }
    ok = ok && buf_puts(b, "}");
    while (ok && b->size % 8 != 0) { // spaces, so that the data is aligned
        ok = buf_puts(b, " ");
    }
    return ok;
}

bool safetensors_begin(struct file_writer *w, const char *path, const struct st_writer_entry *entry,
                       int64_t count, const char *metadata, struct error *err)
{
    if (!file_writer_open(w, path, err)) return false;
    struct buf b = {0};
    bool ok = build_header(&b, entry, count, metadata) || fail(err, "%s: no memory", path);
    unsigned char size[8];
    for (int i = 0; i < 8; i++) {
        size[i] = (unsigned char)((uint64_t)b.size >> (8 * i));
    }
    ok = ok && file_writer_write(w, size, sizeof size, err) &&
         file_writer_write(w, b.data, b.size, err);
    buf_free(&b);
    if (!ok) file_writer_discard(w);
    return ok;
}

static bool write_all(struct file_writer *w, const struct st_named *t, int64_t n, struct error *err)
{
    for (int64_t i = 0; i < n; i++) {
        if (!file_writer_write(w, t[i].tensor.data, tensor_bytes(t[i].tensor), err)) return false;
    }
    return file_writer_commit(w, err);
}

bool safetensors_write(const char *path, const struct st_named *t, int64_t n, const char *metadata,
                       struct error *err)
{
    struct st_writer_entry *entry = mem_zalloc((size_t)n, sizeof *entry);
    if (!entry) return fail(err, "%s: no memory", path);
    for (int64_t i = 0; i < n; i++) {
        entry[i] = (struct st_writer_entry){.name = t[i].name,
                                            .dtype_name = dtype_name(t[i].tensor.dtype),
                                            .rank = t[i].tensor.rank,
                                            .bytes = tensor_bytes(t[i].tensor)};
        memcpy(entry[i].shape, t[i].tensor.dim, sizeof t[i].tensor.dim);
    }
    struct file_writer w;
    bool ok = safetensors_begin(&w, path, entry, n, metadata, err);
    if (ok && !write_all(&w, t, n, err)) {
        file_writer_discard(&w);
        ok = false;
    }
    mem_free(entry);
    return ok;
}
