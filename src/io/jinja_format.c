// io/jinja_format.c - the % operator of texts: %s, %r, %d, %i, %x, %f and %%, with width and precision.
#include "io/jinja_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { WIDEST = 1000 };

struct spec {
    bool left, zero, plus;
    int width, precision; // precision -1: none
    char kind;
};

static int small_number(struct jrun *r, const struct jtext *t, size_t *at)
{
    int n = 0;
    for (; *at < t->size && t->bytes[*at] >= '0' && t->bytes[*at] <= '9'; (*at)++) {
        n = n * 10 + (t->bytes[*at] - '0');
        if (n > WIDEST) j_fail(r, "a format's width is beyond %d", WIDEST);
    }
    return n;
}

static struct spec read_spec(struct jrun *r, const struct jtext *t, size_t *at)
{
    struct spec s = {.precision = -1};
    for (; *at < t->size && strchr("-0+", t->bytes[*at]) && t->bytes[*at]; (*at)++) {
        s.left = s.left || t->bytes[*at] == '-';
        s.zero = s.zero || t->bytes[*at] == '0';
        s.plus = s.plus || t->bytes[*at] == '+';
    }
    s.width = small_number(r, t, at);
    if (*at < t->size && t->bytes[*at] == '.') {
        (*at)++;
        s.precision = small_number(r, t, at);
    }
    if (*at >= t->size) j_fail(r, "incomplete format");
    s.kind = t->bytes[(*at)++];
    return s;
}

static void pad(struct jrun *r, struct jout *o, const struct jtext *t, const struct spec *s)
{
    const int64_t n = s->width - j_characters(t);
    const bool sign = s->zero && !s->left && t->size && (*t->bytes == '-' || *t->bytes == '+');
    if (sign) j_write_part(r, o, t, 0, 1);
    if (s->left) j_write_text(r, o, t);
    for (int64_t i = 0; i < n; i++) {
        j_puts(r, o, s->zero && !s->left ? "0" : " ");
    }
    if (!s->left) j_write_part(r, o, t, sign, t->size);
}

static void write_number(struct jrun *r, struct jout *o, struct jvalue v, struct spec *s)
{
    char text[1400];
    j_defined(r, v);
    if (!j_number(v))
        j_fail(r, "%%%c format: a number is required, not %s", s->kind, j_type_name(v));
    if (s->kind == 'x' && v.type == J_FLOAT)
        j_fail(r, "%%x format: an integer is required, not float");
    if (s->kind == 'f') {
        snprintf(text, sizeof text, s->plus ? "%+.*f" : "%.*f", s->precision < 0 ? 6 : s->precision,
                 j_real(v));
    } else {
        if (v.type == J_FLOAT && !(v.real > -9e18 && v.real < 9e18))
            j_fail(r, "a whole number beyond 64 bits");
        const int64_t n = v.type == J_FLOAT  ? (int64_t)v.real
                          : v.type == J_BOOL ? v.truth
                                             : v.integer;
        if (s->kind == 'x') {
            snprintf(text, sizeof text, "%s%" PRIx64, n < 0 ? "-" : "",
                     n < 0 ? 0 - (uint64_t)n : (uint64_t)n);
        } else {
            snprintf(text, sizeof text, s->plus ? "%+" PRId64 : "%" PRId64, n);
        }
    }
    const struct jtext t = {.bytes = text, .size = strlen(text)};
    pad(r, o, &t, s);
}

static void write_one(struct jrun *r, struct jout *o, struct jvalue v, struct spec *s)
{
    struct jout written = {0};
    switch (s->kind) {
    case 's':
    case 'r':
        if (s->kind == 's') {
            j_print(r, &written, v);
        } else {
            j_repr(r, &written, v);
        }
        s->zero = false;
        const struct jtext *t = j_written(r, &written).text;
        if (s->precision >= 0) t = j_part(r, t, 0, j_offset(t, s->precision)).text;
        pad(r, o, t, s);
        break;
    case 'd':
    case 'i':
    case 'x':
    case 'f':
        write_number(r, o, v, s);
        break;
    default:
        j_fail(r, "a format of kind '%c' is not implemented",
               s->kind >= 0x20 && s->kind < 0x7F ? s->kind : '?');
    }
}

struct jvalue j_format_percent(struct jrun *r, const struct jtext *t, const struct jvalue *arg,
                               int64_t n)
{
    struct jout o = {0};
    int64_t used = 0;
    for (size_t at = 0; at < t->size;) {
        const char *mark = memchr(t->bytes + at, '%', t->size - at);
        const size_t next = mark ? (size_t)(mark - t->bytes) : t->size;
        j_write_part(r, &o, t, at, next);
        at = next;
        if (at == t->size) break;
        at++;
        struct spec s = read_spec(r, t, &at);
        if (s.kind == '%') {
            j_puts(r, &o, "%");
            continue;
        }
        if (used == n) j_fail(r, "not enough arguments for format string");
        write_one(r, &o, arg[used++], &s);
    }
    const bool mapping =
        n == 1 && (arg[0].type == J_DICT || arg[0].type == J_LIST); // as Python asks
    if (used < n && !mapping) j_fail(r, "not all arguments converted during string formatting");
    return j_written(r, &o);
}
