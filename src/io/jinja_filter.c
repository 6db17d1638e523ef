// io/jinja_filter.c - filters of one value: texts and numbers. Those of sequences are in
// jinja_filter_list.c.
#include "io/jinja_parts.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct jvalue filter_upper(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)a;
    return j_case(r, j_str(r, v), CASE_UPPER);
}

static struct jvalue filter_lower(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)a;
    return j_case(r, j_str(r, v), CASE_LOWER);
}

static struct jvalue filter_capitalize(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)a;
    return j_case(r, j_str(r, v), CASE_CAPITAL);
}

// Words begin behind white space and -([{<, unlike str.title's.
static struct jvalue filter_title(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const struct jtext *t = j_str(r, v);
    struct jout o = {0};
    size_t start = 0;
    int32_t c;
    (void)a;
    for (size_t at = 0, next; at <= t->size; at = next) {
        next = at < t->size ? j_next(t, at, &c) : at + 1;
        const bool splits =
            at == t->size || j_is_space(c) || (c > 0 && c < 0x80 && strchr("-({[<", (int)c));
        if (!splits) continue;
        const struct jtext *word = j_part(r, t, start, at).text;
        // The first character by upper(), which is no titlecase.
        const size_t first = j_offset(word, 1);
        j_write_text(r, &o, j_case(r, j_part(r, word, 0, first).text, CASE_UPPER).text);
        j_write_text(r, &o, j_case(r, j_part(r, word, first, word->size).text, CASE_LOWER).text);
        if (at < t->size) j_write_part(r, &o, t, at, next);
        start = next;
    }
    return j_written(r, &o);
}

static struct jvalue filter_trim(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const struct jvalue set = j_arg(a, 0, "chars", j_none());
    if (set.type != J_NONE && set.type != J_TEXT)
        j_fail(r, "trim: chars of type '%s'", j_type_name(set));
    return j_strip(r, j_str(r, v), set.type == J_TEXT ? set.text : NULL, true, true);
}

static struct jvalue filter_string(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)a;
    return j_part(r, j_str(r, v), 0, j_str(r, v)->size);
}

static struct jvalue filter_length(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)a;
    if (v.type == J_TEXT) j_step(r, v.text->size);
    return j_int(j_length(r, v));
}

static struct jvalue filter_default(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const bool any = j_truth(j_arg(a, 1, "boolean", j_bool(false)));
    if (v.type != J_UNDEFINED && !(any && !j_truth(v))) return v;
    return j_arg(a, 0, "default_value", j_literal(r, ""));
}

static struct jvalue filter_replace(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const struct jvalue none =
        j_undefined(r, "old", NULL, "replace: expected the old and the new text");
    const struct jvalue old = j_arg(a, 0, "old", none), new = j_arg(a, 1, "new", none);
    if (!j_has_arg(a, 0, "old") || !j_has_arg(a, 1, "new")) j_fail_undefined(r, none);
    const struct jvalue pair[] = {{.type = J_TEXT, .text = j_str(r, old)},
                                  {.type = J_TEXT, .text = j_str(r, new)},
                                  j_arg(a, 2, "count", j_int(-1))};
    const struct jargs b = {pair, 3, NULL};
    const struct jvalue text = {.type = J_TEXT, .text = j_str(r, v)};
    return j_call(r, j_method(r, text, "replace"), &b);
}

static bool is_base_digit(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// Digits with single underscores between, a sign before, white space around; false: something else.
static bool read_integer(struct jrun *r, const struct jtext *t, int64_t base, int64_t *out)
{
    char *text = j_copy(r, t->bytes, t->size), *end;
    size_t n = 0;
    for (size_t i = 0; i < t->size; i++) {
        const bool between = i > 0 && i + 1 < t->size && is_base_digit(t->bytes[i - 1]) &&
                             is_base_digit(t->bytes[i + 1]);
        if (t->bytes[i] != '_' || !between) text[n++] = t->bytes[i];
    }
    text[n] = 0;
    const char *first = text + (*text == '-' || *text == '+');
    const bool prefix = base == 16 && first[0] == '0' && (first[1] == 'x' || first[1] == 'X');
    if (!*first || strchr("-+ \t\n\v\f\r", *first) || memchr(text, 0, n) || (prefix && base != 16))
        return false;
    *out = strtoll(text, &end, (int)base);
    if (*end || end == text) return false;
    if (*out == INT64_MAX || *out == INT64_MIN) j_fail(r, "a whole number beyond 64 bits");
    return true;
}

static bool read_real(struct jrun *r, const struct jtext *t, double *out)
{
    char *text = j_copy(r, t->bytes, t->size), *end;
    const char *first = text + (*text == '-' || *text == '+');
    if (!*first || strpbrk(text, "xXpP( \t\n\v\f\r") || memchr(text, 0, t->size)) return false;
    *out = strtod(text, &end);
    return !*end && end != text;
}

static struct jvalue filter_int(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const struct jvalue fallback = j_arg(a, 0, "default", j_int(0));
    const int64_t base = j_int_arg(r, a, 1, "base", 10);
    int64_t n;
    double x = j_number(v) ? j_real(v) : 0;
    j_defined(r, v);
    if (base < 2 || base > 36) return fallback;
    if (v.type == J_INT || v.type == J_BOOL) return j_int(v.type == J_INT ? v.integer : v.truth);
    if (v.type == J_TEXT) {
        const struct jtext *t = j_strip(r, v.text, NULL, true, true).text;
        if (read_integer(r, t, base, &n)) return j_int(n);
        if (!read_real(r, t, &x)) return fallback;
    } else if (v.type != J_FLOAT) {
        return fallback;
    }
    if (isnan(x) || isinf(x)) return fallback;
    if (!(x > -9.2e18 && x < 9.2e18)) j_fail(r, "a whole number beyond 64 bits");
    return j_int((int64_t)x);
}

static struct jvalue filter_float(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const struct jvalue fallback = j_arg(a, 0, "default", j_float(0));
    double x;
    j_defined(r, v);
    if (j_number(v)) return j_float(j_real(v));
    if (v.type != J_TEXT || !read_real(r, j_strip(r, v.text, NULL, true, true).text, &x))
        return fallback;
    return j_float(x);
}

static struct jvalue filter_abs(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)a;
    j_defined(r, v);
    if (!j_number(v)) j_fail(r, "bad operand type for abs(): '%s'", j_type_name(v));
    if (v.type == J_FLOAT) return j_float(fabs(v.real));
    return v.type == J_INT && v.integer < 0 ? j_binary(r, OP_SUB, j_int(0), v)
                                            : j_binary(r, OP_ADD, j_int(0), v);
}

static struct jvalue filter_round(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    char text[400];
    const int64_t precision = j_int_arg(r, a, 0, "precision", 0);
    const struct jvalue method = j_arg(a, 1, "method", j_literal(r, "common"));
    j_defined(r, v);
    if (!j_number(v)) j_fail(r, "type %s doesn't define __round__ method", j_type_name(v));
    if (precision < 0 || precision > 40)
        j_fail(r, "round: precision %" PRId64 ", expected 0 to 40", precision);
    if (j_is(method, "common")) {
        if (v.type != J_FLOAT) return j_binary(r, OP_ADD, j_int(0), v);
        if (!isfinite(v.real)) return v;
        snprintf(text, sizeof text, "%.*f", (int)precision, v.real); // rounds half to even, exactly
        return j_float(strtod(text, NULL));
    }
    if (!j_is(method, "ceil") && !j_is(method, "floor"))
        j_fail(r, "method must be common, ceil or floor");
    const double scale = pow(10, (double)precision), x = j_real(v) * scale;
    return j_float((j_is(method, "ceil") ? ceil(x) : floor(x)) / scale);
}

static struct jvalue filter_indent(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    enum { WIDEST = 1000 };
    const struct jvalue width = j_arg(a, 0, "width", j_int(4));
    const bool first = j_truth(j_arg(a, 1, "first", j_bool(false))),
               blank = j_truth(j_arg(a, 2, "blank", j_bool(false)));
    struct jout by = {0}, o = {0};
    j_defined(r, v);
    if (v.type != J_TEXT) j_fail(r, "indent: expected a text, found '%s'", j_type_name(v));
    if (width.type == J_TEXT) {
        j_write_text(r, &by, width.text);
    } else {
        const int64_t n = j_int_arg(r, a, 0, "width", 4);
        if (n > WIDEST) j_fail(r, "indent: %" PRId64 ", expected at most %d", n, WIDEST);
        for (int64_t i = 0; i < n; i++) {
            j_puts(r, &by, " ");
        }
    }
    const struct jargs none = {0};
    // A line end is put behind the text before it is cut in lines: a last empty line counts.
    const struct jvalue all = j_binary(r, OP_ADD, v, j_literal(r, "\n"));
    const struct jlist *lines = j_call(r, j_method(r, all, "splitlines"), &none).list;
    for (int64_t i = 0; i < lines->count; i++) {
        const struct jtext *line = lines->item[i].text;
        if (i) j_puts(r, &o, "\n");
        if (i ? blank || line->size : first) j_write_text(r, &o, j_written(r, &by).text);
        j_write_text(r, &o, line);
    }
    return j_written(r, &o);
}

static struct jvalue filter_center(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const struct jvalue text = {.type = J_TEXT, .text = j_str(r, v)};
    const struct jvalue width = j_int(j_int_arg(r, a, 0, "width", 80));
    const struct jargs b = {&width, 1, NULL};
    return j_call(r, j_method(r, text, "center"), &b);
}

static struct jvalue filter_wordcount(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const struct jtext *t = j_str(r, v);
    int64_t n = 0;
    bool inside = false;
    int32_t c;
    (void)a;
    for (size_t at = 0; at < t->size;) {
        at = j_next(t, at, &c);
        const bool word = !j_is_space(c) && !(c < 0x80 && c != '_' && !(c >= '0' && c <= '9') &&
                                              !((c | 32) >= 'a' && (c | 32) <= 'z'));
        n += word && !inside;
        inside = word;
    }
    return j_int(n);
}

static struct jvalue filter_format(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    return j_format_percent(r, j_str(r, v), a->item, a->count);
}

static struct jvalue filter_attr(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const struct jvalue name = j_arg(a, 0, "name", j_none());
    if (name.type != J_TEXT) j_fail(r, "attr: expected a name");
    if (v.type == J_DICT && !v.dict->namespace) {
        const struct jvalue method = j_method(r, v, j_copy(r, name.text->bytes, name.text->size));
        return method; // of a dict's keys none is an attribute
    }
    return j_attribute(r, v, j_copy(r, name.text->bytes, name.text->size));
}

const struct jnamed j_filters[] = {
    {"abs", filter_abs, 0},
    {"attr", filter_attr, 1},
    {"capitalize", filter_capitalize, 0},
    {"center", filter_center, 1},
    {"count", filter_length, 0},
    {"d", filter_default, 2},
    {"default", filter_default, 2},
    {"float", filter_float, 1},
    {"format", filter_format, 100},
    {"indent", filter_indent, 3},
    {"int", filter_int, 2},
    {"length", filter_length, 0},
    {"lower", filter_lower, 0},
    {"replace", filter_replace, 3},
    {"round", filter_round, 2},
    {"safe", filter_string, 0},
    {"string", filter_string, 0},
    {"title", filter_title, 0},
    {"tojson", j_tojson, 4},
    {"trim", filter_trim, 1},
    {"upper", filter_upper, 0},
    {"wordcount", filter_wordcount, 0},
    {NULL, NULL, 0},
};

static const struct jnamed *find(const struct jnamed *table, const char *name)
{
    for (; table->name; table++) {
        if (strcmp(table->name, name) == 0) return table;
    }
    return NULL;
}

const struct jnamed *j_find_filter(const char *name)
{
    const struct jnamed *found = find(j_filters, name);
    return found ? found : find(j_list_filters, name);
}

const struct jnamed *j_find_test(const char *name)
{
    return find(j_tests, name);
}

struct jvalue j_apply(struct jrun *r, const struct jnamed *f, const char *kind, struct jvalue in,
                      const struct jargs *a)
{
    const int64_t n = a->count + (a->named ? a->named->count : 0);
    if (n > f->most)
        j_fail(r, "%s '%s': %" PRId64 " arguments, expected at most %d", kind, f->name, n, f->most);
    return f->call(r, in, a);
}
