// io/tokenizer_decode.c - ids back into text: the tokens' strings go through the decoder's steps, each of
// which makes a new list of strings, and are joined.
#include "io/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

// Strings one behind the other; end[i] is where the i-th one stops.
struct strings {
    struct buf text;
    size_t *end;
    int64_t count, capacity;
};

static void strings_free(struct strings *s)
{
    buf_free(&s->text);
    mem_free(s->end);
    *s = (struct strings){0};
}

static bool close_string(struct strings *s) // what was appended to s->text since the last one
{
    size_t *end = array_grow(s->end, s->count, &s->capacity, sizeof *end);
    if (!end) return false;
    s->end = end;
    s->end[s->count++] = s->text.size;
    return true;
}

static bool add_string(struct strings *s, const char *text, size_t size)
{
    return buf_append(&s->text, text, size) && close_string(s);
}

static const char *get_string(const struct strings *s, int64_t i, size_t *size)
{
    const size_t start = i ? s->end[i - 1] : 0;
    *size = s->end[i] - start;
    return s->text.data + start;
}

static bool byte_level(struct strings *out, const struct strings *in)
{
    struct buf bytes = {0};
    bool ok = buf_reserve(&bytes, in->text.size);
    for (int64_t i = 0; ok && i < in->count; i++) {
        size_t size, n;
        const char *text = get_string(in, i, &size);
        // A token with a character that stands for no byte is taken as it is.
        if (!byte_level_decode(bytes.data + bytes.size, &n, text, size)) {
            memcpy(bytes.data + bytes.size, text, size);
            n = size;
        }
        bytes.size += n;
    }
    ok = ok && buf_reserve(&out->text, 0) &&
         utf8_append_lossy(&out->text, bytes.data, bytes.size) && close_string(out);
    buf_free(&bytes);
    return ok;
}

// "<0x41>" -> 0x41; -1: something else. One hexadecimal digit after a plus sign counts, too.
static int fallback_byte(const char *text, size_t size)
{
    if (size != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    const char digits[3] = {text[3], text[4], 0};
    const char *first = digits + (digits[0] == '+');
    if (!*first || strspn(first, "0123456789abcdefABCDEF") != strlen(first)) return -1;
    return (int)strtol(first, NULL, 16);
}

static bool add_bytes(struct strings *out, struct buf *bytes)
{
    if (bytes->size == 0) return true;
    bool ok = true;
    if (utf8_valid(bytes->data, bytes->size) == bytes->size) {
        ok = add_string(out, bytes->data, bytes->size);
    } else {
        for (size_t i = 0; ok && i < bytes->size; i++) {
            ok = add_string(out, "\xEF\xBF\xBD", 3);
        }
    }
    bytes->size = 0;
    return ok;
}

static bool byte_fallback(struct strings *out, const struct strings *in)
{
    struct buf bytes = {0}; // of the run of bytes so far
    bool ok = true;
    for (int64_t i = 0; ok && i < in->count; i++) {
        size_t size;
        const char *text = get_string(in, i, &size);
        const int byte = fallback_byte(text, size);
        if (byte >= 0) {
            const char c = (char)byte;
            ok = buf_append(&bytes, &c, 1);
        } else {
            ok = add_bytes(out, &bytes) && add_string(out, text, size);
        }
    }
    ok = ok && add_bytes(out, &bytes);
    buf_free(&bytes);
    return ok;
}

static bool strip(struct strings *out, const struct strings *in, const struct decoder *d)
{
    const size_t n = strlen(d->text);
    for (int64_t i = 0; i < in->count; i++) {
        size_t size;
        const char *text = get_string(in, i, &size);
        for (int64_t k = 0; k < d->start && size >= n && memcmp(text, d->text, n) == 0; k++) {
            text += n;
            size -= n;
        }
        for (int64_t k = 0; k < d->stop && size >= n && memcmp(text + size - n, d->text, n) == 0;
             k++) {
            size -= n;
        }
        if (!add_string(out, text, size)) return false;
    }
    return true;
}

static bool metaspace(struct strings *out, const struct strings *in, const struct decoder *d)
{
    const size_t n = strlen(d->text);
    for (int64_t i = 0; i < in->count; i++) {
        size_t size, at = 0;
        const char *text = get_string(in, i, &size);
        while (at < size) {
            const bool mark = size - at >= n && memcmp(text + at, d->text, n) == 0;
            bool ok = true;
            if (!mark) {
                ok = buf_append(&out->text, text + at, 1);
            } else if (i > 0 || !d->drop_first) {
                ok = buf_puts(&out->text, " ");
            }
            if (!ok) return false;
            at += mark ? n : 1;
        }
        if (!close_string(out)) return false;
    }
    return true;
}

static bool replace(struct strings *out, const struct strings *in, const struct decoder *d,
                    struct error *err)
{
    struct matcher m = {0};
    struct ranges r = {0};
    bool ok = true;
    for (int64_t i = 0; ok && i < in->count; i++) {
        size_t size;
        const char *text = get_string(in, i, &size);
        char *shadow = NULL;
        r.count = 0;
        ok = unicode_shadow(&shadow, text, size) || no_memory(err);
        ok = ok && (size == 0 || regex_split(&m, d->regex, shadow ? shadow : text, size, &r, err));
        mem_free(shadow);
        for (int64_t k = 0; ok && k < r.count; k++) {
            const struct range at = r.at[k];
            ok = (at.id ? buf_puts(&out->text, d->text)
                        : buf_append(&out->text, text + at.start, at.end - at.start)) ||
                 no_memory(err);
        }
        ok = ok && (close_string(out) || no_memory(err));
    }
    matcher_close(&m);
    mem_free(r.at);
    return ok;
}

static bool run(const struct decoder *d, struct strings *out, const struct strings *in,
                struct error *err)
{
    bool ok = false;
    switch (d->kind) {
    case DECODE_BYTE_LEVEL:
        ok = byte_level(out, in);
        break;
    case DECODE_BYTE_FALLBACK:
        ok = byte_fallback(out, in);
        break;
    case DECODE_FUSE:
        ok = add_string(out, in->text.data, in->text.size);
        break;
    case DECODE_STRIP:
        ok = strip(out, in, d);
        break;
    case DECODE_METASPACE:
        ok = metaspace(out, in, d);
        break;
    case DECODE_REPLACE:
        return replace(out, in, d, err);
    }
    return ok || no_memory(err);
}

// The strings of the ids; ids in gaps of the vocabulary have none.
static bool collect(const struct tokenizer *t, const int32_t *id, int64_t n, bool skip_special,
                    struct strings *out, struct error *err)
{
    if (!buf_reserve(&out->text, 0)) return no_memory(err);
    for (int64_t i = 0; i < n; i++) {
        if (id[i] < 0 || id[i] >= t->size) {
            return fail(err, "tokenizer: id %d, expected 0 to %d", id[i], (int)t->size - 1);
        }
        const int32_t index = t->added.by_id[id[i]];
        const char *text = NULL;
        if (index >= 0) {
            if (skip_special && t->added.token[index].skipped) continue;
            text = t->added.token[index].pattern;
        } else if (id[i] < t->bpe.size) {
            text = t->bpe.token[id[i]];
        }
        if (!text) continue;
        if (!t->decoders.given && out->count > 0 && !buf_puts(&out->text, " "))
            return no_memory(err);
        if (!add_string(out, text, strlen(text))) return no_memory(err);
    }
    return true;
}

bool tokenizer_decode(const struct tokenizer *t, const int32_t *id, int64_t n, bool skip_special,
                      struct buf *out, struct error *err)
{
    struct strings now = {0};
    bool ok = collect(t, id, n, skip_special, &now, err);
    for (int i = 0; ok && i < t->decoders.count; i++) {
        struct strings next = {0};
        ok = (buf_reserve(&next.text, 0) || no_memory(err)) &&
             run(&t->decoders.step[i], &next, &now, err);
        strings_free(&now);
        now = next;
    }
    ok = ok && (buf_append(out, now.text.data, now.text.size) || no_memory(err));
    strings_free(&now);
    return ok;
}
