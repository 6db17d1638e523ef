// io/jinja_text.c - texts: writing them piece by piece, each byte with where it comes from, and what
// Python's str does by characters. Bytes are valid UTF-8 throughout.
#include "io/jinja_parts.h"

#include <inttypes.h>
#include <string.h>
#include <utf8proc.h>

static void reserve(struct jrun *r, struct jout *o, size_t extra)
{
    if (extra > r->limits.output || o->size > r->limits.output - extra) {
        j_fail(r, "more than %zu bytes of text, the limit", r->limits.output);
    }
    if (o->size + extra <= o->capacity) return;
    size_t wanted = o->capacity ? o->capacity * 2 : 64;
    if (wanted < o->size + extra) wanted = o->size + extra;
    char *bytes = j_alloc(r, wanted);
    if (o->size) memcpy(bytes, o->bytes, o->size);
    o->bytes = bytes;
    if (o->origin) {
        uint16_t *origin = j_alloc(r, wanted * sizeof *origin);
        memcpy(origin, o->origin, o->size * sizeof *origin);
        o->origin = origin;
    }
    o->capacity = wanted;
}

static void split_origins(struct jrun *r, struct jout *o)
{
    o->origin = j_alloc(r, o->capacity * sizeof *o->origin);
    for (size_t i = 0; i < o->size; i++) {
        o->origin[i] = o->from;
    }
}

void j_write(struct jrun *r, struct jout *o, const char *bytes, size_t size, uint16_t from)
{
    if (!size) return;
    j_step(r, size);
    reserve(r, o, size);
    if (!o->size) o->from = from;
    if (!o->origin && o->from != from) split_origins(r, o);
    memcpy(o->bytes + o->size, bytes, size);
    for (size_t i = 0; o->origin && i < size; i++) {
        o->origin[o->size + i] = from;
    }
    o->size += size;
}

void j_write_part(struct jrun *r, struct jout *o, const struct jtext *t, size_t start, size_t end)
{
    if (start >= end) return;
    if (!t->origin) {
        j_write(r, o, t->bytes + start, end - start, t->from);
        return;
    }
    j_step(r, end - start);
    reserve(r, o, end - start);
    if (!o->origin) split_origins(r, o);
    memcpy(o->bytes + o->size, t->bytes + start, end - start);
    memcpy(o->origin + o->size, t->origin + start, (end - start) * sizeof *o->origin);
    o->size += end - start;
}

void j_write_text(struct jrun *r, struct jout *o, const struct jtext *t)
{
    j_write_part(r, o, t, 0, t->size);
}

void j_puts(struct jrun *r, struct jout *o, const char *text)
{
    j_write(r, o, text, strlen(text), 0);
}

struct jvalue j_written(struct jrun *r, const struct jout *o)
{
    struct jtext *t = j_alloc(r, sizeof *t);
    *t = (struct jtext){
        .bytes = o->size ? o->bytes : "", .size = o->size, .origin = o->origin, .from = o->from};
    return (struct jvalue){.type = J_TEXT, .text = t};
}

struct jvalue j_part(struct jrun *r, const struct jtext *t, size_t start, size_t end)
{
    struct jtext *part = j_alloc(r, sizeof *part);
    *part = *t;
    part->bytes = t->bytes + start;
    part->size = end > start ? end - start : 0;
    if (t->origin) part->origin = t->origin + start;
    return (struct jvalue){.type = J_TEXT, .text = part};
}

uint16_t j_origin(const struct jtext *t, size_t at)
{
    if (at >= t->size) return 0;
    return t->origin ? t->origin[at] : t->from;
}

size_t j_next(const struct jtext *t, size_t at, int32_t *c)
{
    utf8proc_int32_t point;
    const utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)t->bytes + at,
                                                (utf8proc_ssize_t)(t->size - at), &point);
    *c = n > 0 ? point : 0xFFFD;
    return at + (n > 0 ? (size_t)n : 1);
}

static bool continues(const struct jtext *t, size_t at)
{
    return at < t->size && ((unsigned char)t->bytes[at] & 0xC0) == 0x80;
}

int64_t j_characters(const struct jtext *t)
{
    int64_t n = 0;
    for (size_t i = 0; i < t->size; i++) {
        n += !continues(t, i);
    }
    return n;
}

size_t j_offset(const struct jtext *t, int64_t characters)
{
    size_t at = 0;
    for (; characters > 0 && at < t->size; characters--) {
        at++;
        while (continues(t, at)) {
            at++;
        }
    }
    return at;
}

bool j_is_space(int32_t c)
{
    if ((c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680)
        return true;
    return (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

// Is the character in [at, next) of t one of the set (NULL: white space)?
static bool stripped(const struct jtext *t, size_t at, size_t next, int32_t c,
                     const struct jtext *set)
{
    if (!set) return j_is_space(c);
    int32_t other;
    for (size_t i = 0, end; i < set->size; i = end) {
        end = j_next(set, i, &other);
        if (end - i == next - at && memcmp(set->bytes + i, t->bytes + at, end - i) == 0)
            return true;
    }
    return false;
}

struct jvalue j_strip(struct jrun *r, const struct jtext *t, const struct jtext *set, bool left,
                      bool right)
{
    size_t start = 0, end = t->size;
    int32_t c;
    while (left && start < end) {
        const size_t next = j_next(t, start, &c);
        if (!stripped(t, start, next, c, set)) break;
        start = next;
    }
    while (right && end > start) {
        size_t before = end - 1;
        while (before > start && continues(t, before)) {
            before--;
        }
        j_next(t, before, &c);
        if (!stripped(t, before, end, c, set)) break;
        end = before;
    }
    j_step(r, (t->size - (end - start)) * (set ? set->size : 1));
    return j_part(r, t, start, end);
}

size_t j_search(struct jrun *r, const struct jtext *t, const struct jtext *what, size_t at)
{
    if (at > t->size) return SIZE_MAX;
    if (!what->size) return at;
    const char *found = memmem(t->bytes + at, t->size - at, what->bytes, what->size);
    j_step(r, found ? (size_t)(found - t->bytes) - at : t->size - at);
    return found ? (size_t)(found - t->bytes) : SIZE_MAX;
}

static bool is_cased(int32_t c)
{
    return utf8proc_tolower(c) != c || utf8proc_toupper(c) != c ||
           utf8proc_category(c) == UTF8PROC_CATEGORY_LL ||
           utf8proc_category(c) == UTF8PROC_CATEGORY_LU ||
           utf8proc_category(c) == UTF8PROC_CATEGORY_LT;
}

// Characters one by one; of those that become several in Python only U+00DF does here.
struct jvalue j_case(struct jrun *r, const struct jtext *t, enum jcase what)
{
    struct jout o = {0};
    bool inside = false; // a word, or not the first character
    int32_t c;
    for (size_t at = 0, next; at < t->size; at = next) {
        next = j_next(t, at, &c);
        bool upper = what == CASE_UPPER;
        if (what == CASE_CAPITAL || what == CASE_TITLE) upper = !inside;
        if (what == CASE_SWAP) upper = utf8proc_toupper(c) != c;
        const bool sharp_s = c == 0xDF && upper;
        const int32_t mapped = sharp_s || !upper                         ? utf8proc_tolower(c)
                               : what == CASE_UPPER || what == CASE_SWAP ? utf8proc_toupper(c)
                                                                         : utf8proc_totitle(c);
        utf8proc_uint8_t bytes[4];
        const utf8proc_ssize_t n = utf8proc_encode_char(mapped, bytes);
        if (sharp_s) {
            j_write(r, &o, what == CASE_CAPITAL || what == CASE_TITLE ? "Ss" : "SS", 2,
                    j_origin(t, at));
        } else {
            j_write(r, &o, (const char *)bytes, (size_t)n, j_origin(t, at));
        }
        inside = what == CASE_TITLE ? is_cased(c) : true;
    }
    return j_written(r, &o);
}

// ---- JSON into values

static struct jvalue from_text(struct jrun *r, const json_t *v, uint16_t from)
{
    return j_text(r, json_string_value(v), json_string_length(v), from);
}

struct jvalue j_from_json(struct jrun *r, const json_t *v, uint16_t from)
{
    struct jvalue out = j_none();
    if (!v || json_is_null(v)) return out;
    j_enter(r);
    j_step(r, 0);
    if (json_is_boolean(v)) out = j_bool(json_is_true(v));
    if (json_is_integer(v)) out = j_int(json_integer_value(v));
    if (json_is_real(v)) out = j_float(json_real_value(v));
    if (json_is_string(v)) out = from_text(r, v, from);
    if (json_is_array(v)) {
        out = j_list(r, LIST_PLAIN);
        for (size_t i = 0; i < json_array_size(v); i++) {
            j_push(r, out, j_from_json(r, json_array_get(v, i), from));
        }
    }
    if (json_is_object(v)) {
        const char *key;
        json_t *item;
        out = j_dict(r);
        json_object_foreach((json_t *)v, key, item)
        {
            struct jdict *d = out.dict; // keys are distinct: no search
            d->pair = j_grow(r, d->pair, d->count, &d->capacity, sizeof *d->pair);
            d->pair[d->count++] =
                (struct jpair){j_text(r, key, strlen(key), from), j_from_json(r, item, from)};
        }
    }
    j_leave(r);
    return out;
}

struct jvalue j_messages(struct jrun *r, const json_t *v)
{
    const struct jvalue list = j_list(r, LIST_PLAIN);
    if (json_array_size(v) >= JINJA_MESSAGES) {
        j_fail(r, "%zu messages, expected fewer than %d", json_array_size(v), JINJA_MESSAGES);
    }
    for (size_t i = 0; i < json_array_size(v); i++) {
        const struct jvalue m = j_from_json(r, json_array_get(v, i), (uint16_t)(i + 1));
        for (int64_t k = 0; m.type == J_DICT && k < m.dict->count; k++) {
            const struct jpair *p = &m.dict->pair[k];
            if (j_is(p->key, "role") && p->value.type == J_TEXT)
                ((struct jtext *)p->value.text)->from = 0;
        }
        j_push(r, list, m);
    }
    return list;
}
