// io/jinja_method_text.c - methods of texts, as Python's str has them.
#include "io/jinja_parts.h"

#include <inttypes.h>
#include <string.h>
#include <utf8proc.h>

static const struct jtext *text_arg(struct jrun *r, const struct jargs *a, int64_t i,
                                    const char *name)
{
    const struct jvalue v = j_arg(a, i, name, j_none());
    j_defined(r, v);
    if (v.type != J_TEXT)
        j_fail(r, "expected a text as argument %" PRId64 ", found '%s'", i + 1, j_type_name(v));
    return v.text;
}

static struct jvalue strip_by(struct jrun *r, struct jvalue v, const struct jargs *a, bool left,
                              bool right)
{
    const struct jvalue set = j_arg(a, 0, "chars", j_none());
    return j_strip(r, v.text, set.type == J_NONE ? NULL : text_arg(r, a, 0, "chars"), left, right);
}

static struct jvalue text_strip(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    return strip_by(r, v, a, true, true);
}

static struct jvalue text_lstrip(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    return strip_by(r, v, a, true, false);
}

static struct jvalue text_rstrip(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    return strip_by(r, v, a, false, true);
}

// At white space, runs of it as one.
static struct jvalue split_spaces(struct jrun *r, const struct jtext *t, int64_t most)
{
    const struct jvalue out = j_list(r, LIST_PLAIN);
    int32_t c;
    for (size_t at = 0, next; at < t->size;) {
        j_step(r, 0);
        for (; at < t->size; at = next) {
            next = j_next(t, at, &c);
            if (!j_is_space(c)) break;
        }
        if (at >= t->size) break;
        if (most >= 0 && out.list->count == most) {
            j_push(r, out, j_part(r, t, at, t->size));
            break;
        }
        const size_t start = at;
        for (; at < t->size; at = next) {
            next = j_next(t, at, &c);
            if (j_is_space(c)) break;
        }
        j_push(r, out, j_part(r, t, start, at));
    }
    return out;
}

static struct jvalue text_split(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const int64_t most = j_int_arg(r, a, 1, "maxsplit", -1);
    const struct jvalue by = j_arg(a, 0, "sep", j_none());
    if (by.type == J_NONE) return split_spaces(r, v.text, most);
    const struct jtext *between = text_arg(r, a, 0, "sep");
    if (!between->size) j_fail(r, "empty separator");
    const struct jvalue out = j_list(r, LIST_PLAIN);
    size_t start = 0;
    while (most < 0 || out.list->count < most) {
        const size_t found = j_search(r, v.text, between, start);
        if (found == SIZE_MAX) break;
        j_push(r, out, j_part(r, v.text, start, found));
        start = found + between->size;
    }
    j_push(r, out, j_part(r, v.text, start, v.text->size));
    return out;
}

// Where the last `what` ends at or before `end` begins; SIZE_MAX: nowhere.
static size_t search_back(struct jrun *r, const struct jtext *t, const struct jtext *what,
                          size_t end)
{
    j_step(r, end * (what->size < 64 ? 1 : what->size / 64));
    for (size_t at = end + 1; at-- > 0;) {
        if (what->size > end - at) continue;
        if (!what->size || memcmp(t->bytes + at, what->bytes, what->size) == 0) return at;
    }
    return SIZE_MAX;
}

static struct jvalue text_rsplit(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const int64_t most = j_int_arg(r, a, 1, "maxsplit", -1);
    if (most < 0) return text_split(r, v, a);
    const struct jtext *between = text_arg(r, a, 0, "sep");
    if (!between->size) j_fail(r, "empty separator");
    const struct jvalue parts = j_list(r, LIST_PLAIN), out = j_list(r, LIST_PLAIN);
    size_t end = v.text->size;
    while (parts.list->count < most) {
        const size_t found = search_back(r, v.text, between, end);
        if (found == SIZE_MAX) break;
        j_push(r, parts, j_part(r, v.text, found + between->size, end));
        end = found;
    }
    j_push(r, out, j_part(r, v.text, 0, end));
    for (int64_t i = parts.list->count - 1; i >= 0; i--) {
        j_push(r, out, parts.list->item[i]);
    }
    return out;
}

// Line ends as str.splitlines knows them; bytes of the one at `at`, 0: none.
static size_t line_end(const struct jtext *t, size_t at)
{
    int32_t c;
    const size_t next = j_next(t, at, &c);
    if (c == '\r' && next < t->size && t->bytes[next] == '\n') return next + 1 - at;
    const bool end =
        (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    return end ? next - at : 0;
}

static struct jvalue text_splitlines(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const bool keep = j_truth(j_arg(a, 0, "keepends", j_bool(false)));
    const struct jvalue out = j_list(r, LIST_PLAIN);
    const struct jtext *t = v.text;
    size_t start = 0;
    j_step(r, t->size);
    for (size_t at = 0; at < t->size;) {
        int32_t c;
        const size_t n = line_end(t, at);
        if (!n) {
            at = j_next(t, at, &c);
            continue;
        }
        j_push(r, out, j_part(r, t, start, keep ? at + n : at));
        start = at += n;
    }
    if (start < t->size) j_push(r, out, j_part(r, t, start, t->size));
    return out;
}

static struct jvalue has_end(struct jrun *r, struct jvalue v, const struct jargs *a, bool front)
{
    if (!a->count) j_fail(r, "expected a text as argument 1");
    const bool tuple = a->item[0].type == J_LIST && a->item[0].list->kind == LIST_TUPLE;
    const int64_t n = tuple ? a->item[0].list->count : 1;
    for (int64_t i = 0; i < n; i++) {
        const struct jargs one = {tuple ? &a->item[0].list->item[i] : a->item, 1, NULL};
        const struct jtext *end = text_arg(r, &one, 0, "");
        if (end->size > v.text->size) continue;
        const char *at = front ? v.text->bytes : v.text->bytes + v.text->size - end->size;
        if (!end->size || memcmp(at, end->bytes, end->size) == 0) return j_bool(true);
    }
    return j_bool(false);
}

static struct jvalue text_startswith(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    return has_end(r, v, a, true);
}

static struct jvalue text_endswith(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    return has_end(r, v, a, false);
}

static struct jvalue text_removeprefix(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const bool has = text_startswith(r, v, a).truth;
    return j_part(r, v.text, has ? text_arg(r, a, 0, "prefix")->size : 0, v.text->size);
}

static struct jvalue text_removesuffix(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const bool has = text_endswith(r, v, a).truth;
    return j_part(r, v.text, 0, v.text->size - (has ? text_arg(r, a, 0, "suffix")->size : 0));
}

static struct jvalue text_replace(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const struct jtext *old = text_arg(r, a, 0, "old"), *new = text_arg(r, a, 1, "new"),
                       *t = v.text;
    int64_t left = j_int_arg(r, a, 2, "count", -1);
    struct jout o = {0};
    size_t at = 0;
    while (left != 0) {
        const size_t found = j_search(r, t, old, at);
        if (found == SIZE_MAX) break;
        j_write_part(r, &o, t, at, found);
        j_write_text(r, &o, new);
        at = found + old->size;
        left -= left > 0;
        if (old->size) continue;
        if (found == t->size) return j_written(r, &o); // an empty one stands between all characters
        int32_t c;
        at = j_next(t, found, &c);
        j_write_part(r, &o, t, found, at);
    }
    j_write_part(r, &o, t, at, t->size);
    return j_written(r, &o);
}

static int64_t found_at(const struct jtext *t, size_t at)
{
    const struct jtext before = {.bytes = t->bytes, .size = at};
    return at == SIZE_MAX ? -1 : j_characters(&before);
}

static struct jvalue text_find(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    if (a->count > 1) j_fail(r, "find: a start is not implemented");
    return j_int(found_at(v.text, j_search(r, v.text, text_arg(r, a, 0, ""), 0)));
}

static struct jvalue text_rfind(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    if (a->count > 1) j_fail(r, "rfind: a start is not implemented");
    return j_int(found_at(v.text, search_back(r, v.text, text_arg(r, a, 0, ""), v.text->size)));
}

static struct jvalue text_index(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const struct jvalue at = text_find(r, v, a);
    if (at.integer < 0) j_fail(r, "substring not found");
    return at;
}

static struct jvalue text_count(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const struct jtext *what = text_arg(r, a, 0, "");
    int64_t n = 0;
    if (!what->size) return j_int(j_characters(v.text) + 1);
    for (size_t at = 0; (at = j_search(r, v.text, what, at)) != SIZE_MAX; at += what->size) {
        n++;
    }
    return j_int(n);
}

static struct jvalue text_join(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    struct jout o = {0};
    if (!a->count) j_fail(r, "join() takes exactly one argument (0 given)");
    const struct jlist *items = j_iterate(r, a->item[0]);
    for (int64_t i = 0; i < items->count; i++) {
        if (items->item[i].type != J_TEXT) {
            j_fail(r, "sequence item %" PRId64 ": expected str instance, %s found", i,
                   j_type_name(items->item[i]));
        }
        if (i) j_write_text(r, &o, v.text);
        j_write_text(r, &o, items->item[i].text);
    }
    return j_written(r, &o);
}

// "{}", "{0}", "{name}", "{{" and "}}".
static struct jvalue text_format(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const struct jtext *t = v.text;
    struct jout o = {0};
    int64_t next = 0;
    for (size_t at = 0; at < t->size;) {
        const char c = t->bytes[at];
        if ((c == '{' || c == '}') && at + 1 < t->size && t->bytes[at + 1] == c) {
            j_write_part(r, &o, t, at, at + 1);
            at += 2;
            continue;
        }
        if (c == '}') j_fail(r, "Single '}' encountered in format string");
        if (c != '{') {
            j_write_part(r, &o, t, at, at + 1);
            at++;
            continue;
        }
        const char *close = memchr(t->bytes + at, '}', t->size - at);
        if (!close) j_fail(r, "expected '}' before end of string");
        const char *name = j_copy(r, t->bytes + at + 1, (size_t)(close - t->bytes) - at - 1);
        const size_t digits = strspn(name, "0123456789");
        if (strpbrk(name, "!:.[") || digits > 3)
            j_fail(r, "format: '{%.40s}' is not implemented", name);
        int64_t i = next;
        for (size_t k = 0; k < digits; k++) {
            i = (k ? i * 10 : 0) + (name[k] - '0');
        }
        next += !*name;
        const bool place = !*name || (digits && !name[digits]);
        if (!j_has_arg(a, place ? i : INT64_MAX, place ? "" : name))
            j_fail(r, "format: no value for '{%.40s}'", name);
        j_print(r, &o, j_arg(a, place ? i : INT64_MAX, name, j_none()));
        at = (size_t)(close - t->bytes) + 1;
    }
    return j_written(r, &o);
}

static struct jvalue text_upper(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)a;
    return j_case(r, v.text, CASE_UPPER);
}

static struct jvalue text_lower(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)a;
    return j_case(r, v.text, CASE_LOWER);
}

static struct jvalue text_title(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)a;
    return j_case(r, v.text, CASE_TITLE);
}

static struct jvalue text_capitalize(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)a;
    return j_case(r, v.text, CASE_CAPITAL);
}

static struct jvalue text_swapcase(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)a;
    return j_case(r, v.text, CASE_SWAP);
}

// Fills up to a width: all of it left of the text, right of it, or half each.
static struct jvalue fill(struct jrun *r, struct jvalue v, const struct jargs *a, int left,
                          int right)
{
    enum { WIDEST = 100000 };
    const int64_t width = j_int_arg(r, a, 0, "width", 0), missing = width - j_characters(v.text);
    const struct jvalue by = j_arg(a, 1, "fillchar", j_literal(r, " "));
    struct jout o = {0};
    if (width > WIDEST) j_fail(r, "a width of %" PRId64 ", expected at most %d", width, WIDEST);
    if (by.type != J_TEXT || j_characters(by.text) != 1)
        j_fail(r, "The fill character must be exactly one character long");
    if (missing <= 0) return v;
    // str.center's own way with an odd number
    const int64_t before = !right ? missing : !left ? 0 : missing / 2 + (missing & width & 1);
    for (int64_t i = 0; i <= missing; i++) {
        j_write_text(r, &o, i == before ? v.text : by.text);
    }
    return j_written(r, &o);
}

static struct jvalue text_center(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    return fill(r, v, a, 1, 1);
}

static struct jvalue text_ljust(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    return fill(r, v, a, 0, 1);
}

static struct jvalue text_rjust(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    return fill(r, v, a, 1, 0);
}

// Is every character of a class (and is there one)?
static bool all_of(const struct jtext *t, bool (*is)(int32_t c))
{
    int32_t c;
    for (size_t at = 0; at < t->size;) {
        at = j_next(t, at, &c);
        if (!is(c)) return false;
    }
    return t->size > 0;
}

static bool is_letter(int32_t c)
{
    return utf8proc_category(c) >= UTF8PROC_CATEGORY_LU &&
           utf8proc_category(c) <= UTF8PROC_CATEGORY_LO;
}

static bool is_digit(int32_t c)
{
    return utf8proc_category(c) == UTF8PROC_CATEGORY_ND;
}

static bool is_alnum(int32_t c)
{
    return is_letter(c) || is_digit(c) || utf8proc_category(c) == UTF8PROC_CATEGORY_NL ||
           utf8proc_category(c) == UTF8PROC_CATEGORY_NO;
}

static struct jvalue text_isalpha(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)r, (void)a;
    return j_bool(all_of(v.text, is_letter));
}

static struct jvalue text_isdigit(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)r, (void)a;
    return j_bool(all_of(v.text, is_digit));
}

static struct jvalue text_isalnum(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)r, (void)a;
    return j_bool(all_of(v.text, is_alnum));
}

static struct jvalue text_isspace(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)r, (void)a;
    return j_bool(all_of(v.text, j_is_space));
}

// One cased character at least, and all of them of that case.
static struct jvalue of_case(const struct jtext *t, utf8proc_category_t wanted,
                             utf8proc_category_t other)
{
    bool any = false;
    int32_t c;
    for (size_t at = 0; at < t->size;) {
        at = j_next(t, at, &c);
        const utf8proc_category_t is = utf8proc_category(c);
        if (is == other || is == UTF8PROC_CATEGORY_LT) return j_bool(false);
        any = any || is == wanted;
    }
    return j_bool(any);
}

static struct jvalue text_isupper(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)r, (void)a;
    return of_case(v.text, UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LL);
}

static struct jvalue text_islower(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)r, (void)a;
    return of_case(v.text, UTF8PROC_CATEGORY_LL, UTF8PROC_CATEGORY_LU);
}

const struct jnamed j_text_methods[] = {
    {"capitalize", text_capitalize, 0},
    {"center", text_center, 2},
    {"count", text_count, 1},
    {"endswith", text_endswith, 1},
    {"find", text_find, 2},
    {"format", text_format, 100},
    {"index", text_index, 2},
    {"isalnum", text_isalnum, 0},
    {"isalpha", text_isalpha, 0},
    {"isdigit", text_isdigit, 0},
    {"islower", text_islower, 0},
    {"isspace", text_isspace, 0},
    {"isupper", text_isupper, 0},
    {"join", text_join, 1},
    {"ljust", text_ljust, 2},
    {"lower", text_lower, 0},
    {"lstrip", text_lstrip, 1},
    {"removeprefix", text_removeprefix, 1},
    {"removesuffix", text_removesuffix, 1},
    {"replace", text_replace, 3},
    {"rfind", text_rfind, 2},
    {"rjust", text_rjust, 2},
    {"rsplit", text_rsplit, 2},
    {"rstrip", text_rstrip, 1},
    {"split", text_split, 2},
    {"splitlines", text_splitlines, 1},
    {"startswith", text_startswith, 1},
    {"strip", text_strip, 1},
    {"swapcase", text_swapcase, 0},
    {"title", text_title, 0},
    {"upper", text_upper, 0},
    {NULL, NULL, 0},
};
