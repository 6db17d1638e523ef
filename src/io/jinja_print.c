// io/jinja_print.c - values as text: Python's str() and repr(), JSON, and the % operator of texts.
#include "io/jinja_parts.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

// The shortest digits that read back as the same number, laid out as Python does.
void j_float_text(char out[40], double x)
{
    if (isnan(x) || isinf(x)) {
        snprintf(out, 40, "%s", isnan(x) ? "nan" : x < 0 ? "-inf" : "inf");
        return;
    }
    char digits[40];
    int precision = 0;
    do {
        snprintf(digits, sizeof digits, "%.*e", precision, x);
    } while (strtod(digits, NULL) != x && ++precision < 17);
    const int power = atoi(strchr(digits, 'e') + 1);
    if (power < -4 || power >= 16) {
        memcpy(out, digits, sizeof digits); // "1e+16", "1.5e-07": Python's form is C's
        return;
    }
    const int decimals = precision - power > 1 ? precision - power : 1;
    snprintf(out, 40, "%.*f", decimals, x);
}

// May it stand in a repr as it is?
static bool printable(int32_t c)
{
    if (c == ' ') return true;
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
        return false;
    default:
        return true;
    }
}

static void repr_text(struct jrun *r, struct jout *o, const struct jtext *t)
{
    const bool single = memchr(t->bytes, '\'', t->size) != NULL,
               both = single && memchr(t->bytes, '"', t->size);
    const char quote = single && !both ? '"' : '\'';
    const char mark[2] = {quote, 0};
    int32_t c;
    j_puts(r, o, mark);
    for (size_t at = 0, next; at < t->size; at = next) {
        char text[16];
        next = j_next(t, at, &c);
        if (c == '\\' || c == quote) {
            snprintf(text, sizeof text, "\\%c", (char)c);
        } else if (c == '\n' || c == '\r' || c == '\t') {
            snprintf(text, sizeof text, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        } else if (printable(c)) {
            j_write_part(r, o, t, at, next);
            continue;
        } else {
            snprintf(text, sizeof text,
                     c < 0x100     ? "\\x%02x"
                     : c < 0x10000 ? "\\u%04x"
                                   : "\\U%08x",
                     (unsigned)c);
        }
        j_write(r, o, text, strlen(text), j_origin(t, at));
    }
    j_puts(r, o, mark);
}

static void repr_list(struct jrun *r, struct jout *o, const struct jlist *list)
{
    static const char *const open[] = {"[", "(", "dict_keys([", "dict_values([", "dict_items(["};
    static const char *const close[] = {"]", ")", "])", "])", "])"};
    if (list->kind == LIST_ITERATOR) {
        j_puts(r, o, "<generator object>");
        return;
    }
    const enum jlist_kind kind = list->kind == LIST_RANGE ? LIST_PLAIN : list->kind;
    j_puts(r, o, open[kind]);
    for (int64_t i = 0; i < list->count; i++) {
        if (i) j_puts(r, o, ", ");
        j_repr(r, o, list->item[i]);
    }
    if (kind == LIST_TUPLE && list->count == 1) j_puts(r, o, ",");
    j_puts(r, o, close[kind]);
}

static void repr_dict(struct jrun *r, struct jout *o, const struct jdict *d)
{
    j_puts(r, o, d->namespace ? "<Namespace {" : "{");
    for (int64_t i = 0; i < d->count; i++) {
        if (i) j_puts(r, o, ", ");
        j_repr(r, o, d->pair[i].key);
        j_puts(r, o, ": ");
        j_repr(r, o, d->pair[i].value);
    }
    j_puts(r, o, d->namespace ? "}>" : "}");
}

void j_repr(struct jrun *r, struct jout *o, struct jvalue v)
{
    char text[80];
    j_enter(r);
    j_step(r, 0);
    switch (v.type) {
    case J_UNDEFINED:
        j_puts(r, o, "Undefined");
        break;
    case J_NONE:
        j_puts(r, o, "None");
        break;
    case J_BOOL:
        j_puts(r, o, v.truth ? "True" : "False");
        break;
    case J_INT:
        snprintf(text, sizeof text, "%" PRId64, v.integer);
        j_puts(r, o, text);
        break;
    case J_FLOAT:
        j_float_text(text, v.real);
        j_puts(r, o, text);
        break;
    case J_TEXT:
        repr_text(r, o, v.text);
        break;
    case J_LIST:
        repr_list(r, o, v.list);
        break;
    case J_DICT:
        repr_dict(r, o, v.dict);
        break;
    case J_FUNCTION:
        snprintf(text, sizeof text, "<%s '%.40s'>", j_type_name(v), v.function->name);
        j_puts(r, o, text);
        break;
    case J_LOOP:
        snprintf(text, sizeof text, "<LoopContext %" PRId64 "/%" PRId64 ">", v.loop->index + 1,
                 v.loop->items->count);
        j_puts(r, o, text);
        break;
    }
    j_leave(r);
}

void j_print(struct jrun *r, struct jout *o, struct jvalue v)
{
    if (v.type == J_TEXT) {
        j_write_text(r, o, v.text);
    } else if (v.type != J_UNDEFINED) { // which prints as nothing
        j_repr(r, o, v);
    }
}

const struct jtext *j_str(struct jrun *r, struct jvalue v)
{
    if (v.type == J_TEXT) return v.text;
    struct jout o = {0};
    j_print(r, &o, v);
    return j_written(r, &o).text;
}

// ---- JSON, as json.dumps

struct json_style {
    const char *indent;             // NULL: on one line
    const struct jtext *item, *key; // separators
    bool ascii, sorted;
};

static void json_text(struct jrun *r, struct jout *o, const struct jtext *t, bool ascii)
{
    static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
    int32_t c;
    j_puts(r, o, "\"");
    for (size_t at = 0, next; at < t->size; at = next) {
        char text[16];
        next = j_next(t, at, &c);
        const char *simple = c > 0 && c < 0x80 ? strchr(from, (int)c) : NULL;
        if (simple) {
            snprintf(text, sizeof text, "\\%c", to[simple - from]);
        } else if (c >= 0x20 && (!ascii || c < 0x7F)) {
            j_write_part(r, o, t, at, next);
            continue;
        } else if (c >= 0x10000) {
            const unsigned v = (unsigned)c - 0x10000;
            snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xD800 + (v >> 10), 0xDC00 + (v & 0x3FF));
        } else {
            snprintf(text, sizeof text, "\\u%04x", (unsigned)c);
        }
        j_write(r, o, text, strlen(text), j_origin(t, at));
    }
    j_puts(r, o, "\"");
}

static void json_value(struct jrun *r, struct jout *o, struct jvalue v, const struct json_style *s,
                       int level);

static void line(struct jrun *r, struct jout *o, const struct json_style *s, int level)
{
    if (!s->indent) return;
    j_puts(r, o, "\n");
    for (int i = 0; i < level; i++) {
        j_puts(r, o, s->indent);
    }
}

static void json_list(struct jrun *r, struct jout *o, const struct jlist *list,
                      const struct json_style *s, int level)
{
    j_puts(r, o, "[");
    for (int64_t i = 0; i < list->count; i++) {
        if (i) j_write_text(r, o, s->item);
        line(r, o, s, level + 1);
        json_value(r, o, list->item[i], s, level + 1);
    }
    if (list->count) line(r, o, s, level);
    j_puts(r, o, "]");
}

static void json_key(struct jrun *r, struct jout *o, struct jvalue key, const struct json_style *s)
{
    if (key.type == J_TEXT) {
        json_text(r, o, key.text, s->ascii);
        return;
    }
    if (!j_number(key) && key.type != J_NONE) {
        j_fail(r, "keys must be str, int, float, bool or None, not %s", j_type_name(key));
    }
    j_puts(r, o, "\"");
    json_value(r, o, key, s, 0);
    j_puts(r, o, "\"");
}

static void json_dict(struct jrun *r, struct jout *o, const struct jdict *d,
                      const struct json_style *s, int level)
{
    int64_t *order = j_alloc(r, (size_t)d->count * sizeof *order);
    for (int64_t i = 0; i < d->count; i++) {
        int64_t k = i; // by insertion: dicts are short
        for (;
             s->sorted && k > 0 && j_compare(r, d->pair[i].key, d->pair[order[k - 1]].key, "<") < 0;
             k--) {
            order[k] = order[k - 1];
        }
        order[k] = i;
    }
    j_puts(r, o, "{");
    for (int64_t i = 0; i < d->count; i++) {
        if (i) j_write_text(r, o, s->item);
        line(r, o, s, level + 1);
        json_key(r, o, d->pair[order[i]].key, s);
        j_write_text(r, o, s->key);
        json_value(r, o, d->pair[order[i]].value, s, level + 1);
    }
    if (d->count) line(r, o, s, level);
    j_puts(r, o, "}");
}

static void json_value(struct jrun *r, struct jout *o, struct jvalue v, const struct json_style *s,
                       int level)
{
    j_enter(r);
    j_step(r, 0);
    if (v.type == J_NONE) {
        j_puts(r, o, "null");
    } else if (v.type == J_BOOL) {
        j_puts(r, o, v.truth ? "true" : "false");
    } else if (v.type == J_FLOAT && !isfinite(v.real)) {
        j_puts(r, o, isnan(v.real) ? "NaN" : v.real < 0 ? "-Infinity" : "Infinity");
    } else if (j_number(v)) {
        j_repr(r, o, v);
    } else if (v.type == J_TEXT) {
        json_text(r, o, v.text, s->ascii);
    } else if (v.type == J_LIST && v.list->kind <= LIST_TUPLE) {
        json_list(r, o, v.list, s, level);
    } else if (v.type == J_DICT && !v.dict->namespace) {
        json_dict(r, o, v.dict, s, level);
    } else {
        j_fail(r, "Object of type %s is not JSON serializable", j_type_name(v));
    }
    j_leave(r);
}

static const char *indent_text(struct jrun *r, struct jvalue v)
{
    enum { WIDEST = 1000 };
    if (v.type == J_NONE) return NULL;
    if (v.type == J_TEXT) return j_copy(r, v.text->bytes, v.text->size);
    if (v.type != J_INT && v.type != J_BOOL)
        j_fail(r, "tojson: indent of type '%s'", j_type_name(v));
    const int64_t n = v.type == J_BOOL ? v.truth : v.integer;
    if (n > WIDEST) j_fail(r, "tojson: indent %" PRId64 ", expected at most %d", n, WIDEST);
    char *spaces = j_alloc(r, n > 0 ? (size_t)n + 1 : 1);
    for (int64_t i = 0; i < n; i++) {
        spaces[i] = ' ';
    }
    return spaces;
}

struct jvalue j_tojson(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    struct json_style s = {.ascii = j_truth(j_arg(a, 0, "ensure_ascii", j_bool(false))),
                           .sorted = j_truth(j_arg(a, 3, "sort_keys", j_bool(false)))};
    s.indent = indent_text(r, j_arg(a, 1, "indent", j_none()));
    s.item = j_literal(r, s.indent ? "," : ", ").text;
    s.key = j_literal(r, ": ").text;
    const struct jvalue separators = j_arg(a, 2, "separators", j_none());
    if (separators.type != J_NONE) {
        const struct jlist *pair = j_iterate(r, separators);
        if (pair->count != 2 || pair->item[0].type != J_TEXT || pair->item[1].type != J_TEXT) {
            j_fail(r, "tojson: separators: expected two texts");
        }
        s.item = pair->item[0].text;
        s.key = pair->item[1].text;
    }
    struct jout o = {0};
    json_value(r, &o, v, &s, 0);
    return j_written(r, &o);
}
