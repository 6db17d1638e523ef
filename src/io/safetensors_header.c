// io/safetensors_header.c - a parser for just the JSON that a safetensors header may hold. A general
// JSON library would spend forty bytes of memory on each byte of a hostile header of 100 MB; this one
// spends less than four, and knows where the error is.
#include "io/safetensors_header.h"

#include "base/mem.h"
#include "io/json.h"

#include <assert.h>
#include <string.h>

// 100 MB of header hold nearly two million tensors, half a gigabyte when described; the largest models have a hundred
// thousand.
enum { METADATA_LIMIT = 16 << 20, MOST_TENSORS = 1 << 19 };

struct cursor {
    struct safetensors *st;
    const unsigned char *start, *p, *end;
    struct buf text; // the string last read
    int64_t capacity;
    struct error *err;
};

static bool expected(struct cursor *c, const char *what)
{
    return fail(c->err, "%s: byte %zu of the header: expected %s", c->st->path,
                (size_t)(c->p - c->start) + 8, what);
}

static bool no_memory(struct cursor *c)
{
    return fail(c->err, "%s: no memory for the header", c->st->path);
}

static void skip_space(struct cursor *c)
{
    while (c->p < c->end && (*c->p == ' ' || *c->p == '\t' || *c->p == '\n' || *c->p == '\r')) {
        c->p++;
    }
}

// Takes `ch` if it comes next.
static bool take(struct cursor *c, char ch)
{
    skip_space(c);
    if (c->p == c->end || *c->p != (unsigned char)ch) return false;
    c->p++;
    return true;
}

// Bytes of the UTF-8 sequence at p, 0 where it is none: no overlong forms, surrogates, or above 10FFFF.
static size_t utf8_length(const unsigned char *p, size_t left)
{
    const unsigned char a = p[0];
    const size_t n = a < 0x80 ? 1 : a < 0xc2 ? 0 : a < 0xe0 ? 2 : a < 0xf0 ? 3 : a < 0xf5 ? 4 : 0;
    if (n == 0 || n > left) return 0;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
    }
    if (a == 0xe0 && p[1] < 0xa0) return 0;
    if (a == 0xed && p[1] >= 0xa0) return 0;
    if (a == 0xf0 && p[1] < 0x90) return 0;
    if (a == 0xf4 && p[1] >= 0x90) return 0;
    return n;
}

static bool read_hex4(struct cursor *c, uint32_t *out)
{
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) {
        const int ch = c->p < c->end ? *c->p : 0;
        uint32_t digit;
        if (ch >= '0' && ch <= '9') {
            digit = (uint32_t)(ch - '0');
        } else if ((ch >= 'a' && ch <= 'f') || (ch >= 'A' && ch <= 'F')) {
            digit = (uint32_t)((ch | 0x20) - 'a') + 10;
        } else {
            return expected(c, "four hexadecimal digits");
        }
        value = value << 4 | digit;
        c->p++;
    }
    *out = value;
    return true;
}

static bool append_code_point(struct cursor *c, uint32_t u)
{
    unsigned char b[4];
    size_t n = 0;
    if (u < 0x80) {
        b[n++] = (unsigned char)u;
    } else if (u < 0x800) {
        b[n++] = (unsigned char)(0xc0 | u >> 6);
    } else if (u < 0x10000) {
        b[n++] = (unsigned char)(0xe0 | u >> 12);
        b[n++] = (unsigned char)(0x80 | (u >> 6 & 0x3f));
    } else {
        b[n++] = (unsigned char)(0xf0 | u >> 18);
        b[n++] = (unsigned char)(0x80 | (u >> 12 & 0x3f));
        b[n++] = (unsigned char)(0x80 | (u >> 6 & 0x3f));
    }
    if (u >= 0x80) b[n++] = (unsigned char)(0x80 | (u & 0x3f));
    return buf_append(&c->text, b, n) || no_memory(c);
}

static bool read_unicode_escape(struct cursor *c)
{
    uint32_t u = 0, low = 0;
    if (!read_hex4(c, &u)) return false;
    if (u == 0) return expected(c, "no NUL in a string");
    if (u >= 0xdc00 && u < 0xe000) return expected(c, "a high surrogate before a low one");
    if (u < 0xd800 || u >= 0xdc00) return append_code_point(c, u);
    if (c->end - c->p < 2 || c->p[0] != '\\' || c->p[1] != 'u') {
        return expected(c, "the low half of a surrogate pair");
    }
    c->p += 2;
    if (!read_hex4(c, &low)) return false;
    if (low < 0xdc00 || low >= 0xe000) return expected(c, "the low half of a surrogate pair");
    return append_code_point(c, 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00));
}

static bool read_escape(struct cursor *c)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const int ch = c->p < c->end ? *c->p : 0;
    if (ch == 'u') {
        c->p++;
        return read_unicode_escape(c);
    }
    const char *at = ch ? strchr(from, ch) : NULL;
    if (!at) return expected(c, "a valid escape");
    c->p++;
    return buf_append(&c->text, &to[at - from], 1) || no_memory(c);
}

// A string, into c->text (NUL-terminated, and without NUL inside).
static bool read_string(struct cursor *c, const char *what)
{
    if (!take(c, '"')) return expected(c, what);
    c->text.size = 0;
    if (!buf_append(&c->text, "", 0)) return no_memory(c);
    while (c->p < c->end && *c->p != '"') {
        if (*c->p == '\\') {
            c->p++;
            if (!read_escape(c)) return false;
            continue;
        }
        const size_t n = *c->p < 0x20 ? 0 : utf8_length(c->p, (size_t)(c->end - c->p));
        if (n == 0) return expected(c, "UTF-8 text without control characters");
        if (!buf_append(&c->text, c->p, n)) return no_memory(c);
        c->p += n;
    }
    if (c->p == c->end) return expected(c, "the end of a string");
    c->p++;
    return true;
}

static bool read_count(struct cursor *c, int64_t *out)
{
    static const char what[] = "an integer from 0 to 9223372036854775807";
    skip_space(c);
    const unsigned char *first = c->p;
    int64_t value = 0;
    for (; c->p < c->end && *c->p >= '0' && *c->p <= '9'; c->p++) {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, *c->p - '0', &value)) {
            return expected(c, what);
        }
    }
    if (c->p == first || (*first == '0' && c->p - first > 1)) return expected(c, what);
    *out = value;
    return true;
}

// [a, b, ...] of at most `limit` counts.
static bool read_counts(struct cursor *c, int64_t *out, int limit, int *count, const char *what)
{
    *count = 0;
    if (!take(c, '[')) return expected(c, what);
    if (take(c, ']')) return true;
    do {
        if (*count == limit) return expected(c, what);
        if (!read_count(c, &out[*count])) return false;
        ++*count;
    } while (take(c, ','));
    return take(c, ']') || expected(c, "',' or ']'");
}

static bool read_dtype(struct cursor *c, struct st_entry *e)
{
    if (!read_string(c, "a dtype")) return false;
    if (c->text.size >= sizeof e->dtype_name) return expected(c, "a dtype of the format");
    memcpy(e->dtype_name, c->text.data, c->text.size + 1);
    return true;
}

static bool read_offsets(struct cursor *c, struct st_entry *e)
{
    int64_t at[2];
    int n;
    if (!read_counts(c, at, 2, &n, "two data_offsets")) return false;
    if (n != 2 || at[0] > at[1]) return expected(c, "two data_offsets, the second not the lower");
    e->begin = (size_t)at[0];
    e->end = (size_t)at[1];
    return true;
}

// {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}: each key once, and no other.
static bool read_tensor(struct cursor *c, struct st_entry *e)
{
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };
    unsigned seen = 0;
    if (!take(c, '{')) return expected(c, "'{'");
    do {
        if (!read_string(c, "a key")) return false;
        const unsigned key = !strcmp(c->text.data, "dtype")          ? DTYPE
                             : !strcmp(c->text.data, "shape")        ? SHAPE
                             : !strcmp(c->text.data, "data_offsets") ? OFFSETS
                                                                     : 0;
        if (!key || (seen & key)) return expected(c, "dtype, shape and data_offsets, each once");
        seen |= key;
        if (!take(c, ':')) return expected(c, "':'");
        const bool ok = key == DTYPE   ? read_dtype(c, e)
                        : key == SHAPE ? read_counts(c, e->shape, 8, &e->rank, "at most 8 sizes")
                                       : read_offsets(c, e);
        if (!ok) return false;
    } while (take(c, ','));
    if (!take(c, '}')) return expected(c, "',' or '}'");
    return seen == (DTYPE | SHAPE | OFFSETS) || expected(c, "dtype, shape and data_offsets before");
}

static bool read_entry(struct cursor *c, const char *name)
{
    struct safetensors *st = c->st;
    if (st->count == MOST_TENSORS) return expected(c, "at most 524288 tensors");
    struct st_entry *grown = array_grow(st->entry, st->count, &c->capacity, sizeof *st->entry);
    if (!grown) return no_memory(c);
    st->entry = grown;
    struct st_entry *e = &st->entry[st->count];
    memset(e, 0, sizeof *e);
    if (!(e->name = mem_strdup(name))) return no_memory(c);
    st->count++; // from here on safetensors_close frees the name
    return read_tensor(c, e);
}

// {"key": "value", ...}; its text is kept as it is.
static bool read_metadata(struct cursor *c)
{
    if (c->st->metadata) return expected(c, "__metadata__ once");
    skip_space(c);
    const unsigned char *first = c->p;
    if (!take(c, '{')) return expected(c, "'{'");
    if (!take(c, '}')) {
        do {
            if (!read_string(c, "a key")) return false;
            if (!take(c, ':')) return expected(c, "':'");
            if (!read_string(c, "a string")) return false;
        } while (take(c, ','));
        if (!take(c, '}')) return expected(c, "',' or '}'");
    }
    const size_t size = (size_t)(c->p - first);
    if (size > METADATA_LIMIT) return expected(c, "__metadata__ of at most 16 MiB");
    json_t *checked = json_parse((const char *)first, size, c->st->path, c->err); // for duplicates
    if (!checked) return false;
    json_decref(checked);
    c->st->metadata = mem_strndup((const char *)first, size);
    return c->st->metadata || no_memory(c);
}

static bool read_header(struct cursor *c)
{
    if (c->p == c->end || *c->p != '{') return expected(c, "'{'");
    c->p++;
    if (!take(c, '}')) {
        do {
            if (!read_string(c, "the name of a tensor")) return false;
            if (!take(c, ':')) return expected(c, "':'");
            assert(c->text.data);
            const bool metadata = !strcmp(c->text.data, "__metadata__");
            if (!(metadata ? read_metadata(c) : read_entry(c, c->text.data))) return false;
        } while (take(c, ','));
        if (!take(c, '}')) return expected(c, "',' or '}'");
    }
    skip_space(c);
    return c->p == c->end || expected(c, "nothing but spaces after the last '}'");
}

bool safetensors_read_header(struct safetensors *st, const char *text, size_t size,
                             struct error *err)
{
    const unsigned char *start = (const unsigned char *)text;
    struct cursor c = {.st = st, .start = start, .p = start, .end = start + size, .err = err};
    const bool ok = read_header(&c);
    buf_free(&c.text);
    return ok;
}
