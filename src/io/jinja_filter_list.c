// io/jinja_filter_list.c - filters of sequences. What jinja2 makes lazily is made at once here, but keeps
// a generator's ways: it is always true, has no length, and is empty once it was looked at.
#include "io/jinja_parts.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

// item.a.b.0, as make_attrgetter; `fallback` (may be NULL) where a part is missing.
static struct jvalue get_path(struct jrun *r, struct jvalue item, struct jvalue path,
                              const struct jvalue *fallback)
{
    if (path.type == J_NONE) return item;
    if (path.type == J_INT) return j_item(r, item, path);
    if (path.type != J_TEXT) j_fail(r, "an attribute of type '%s'", j_type_name(path));
    const struct jtext *t = path.text;
    for (size_t start = 0; start <= t->size;) {
        size_t end = start, digits = 0;
        for (; end < t->size && t->bytes[end] != '.'; end++) {
            digits += t->bytes[end] >= '0' && t->bytes[end] <= '9';
        }
        struct jvalue key = j_part(r, t, start, end);
        if (end > start && digits == end - start && digits < 18) {
            key = j_int(strtoll(j_copy(r, t->bytes + start, digits), NULL, 10));
        }
        item = j_item(r, item, key);
        if (fallback && item.type == J_UNDEFINED) item = *fallback;
        start = end + 1;
    }
    return item;
}

static struct jvalue iterator(struct jrun *r)
{
    return j_list(r, LIST_ITERATOR);
}

static struct jvalue filter_list(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const struct jlist *items = j_iterate(r, v);
    const struct jvalue out = j_list(r, LIST_PLAIN);
    (void)a;
    for (int64_t i = 0; i < items->count; i++) {
        j_push(r, out, items->item[i]);
    }
    return out;
}

static struct jvalue filter_items(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const struct jvalue out = iterator(r);
    (void)a;
    if (v.type == J_UNDEFINED) return out;
    if (v.type != J_DICT || v.dict->namespace) j_fail(r, "Can only get item pairs from a mapping.");
    for (int64_t i = 0; i < v.dict->count; i++) {
        j_push(r, out, j_pair(r, v.dict->pair[i].key, v.dict->pair[i].value));
    }
    return out;
}

static struct jvalue filter_first(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)a;
    if (v.type == J_LIST && v.list->kind == LIST_ITERATOR && v.list->count) { // takes one
        v.list->count--;
        return *v.list->item++;
    }
    const struct jlist *items = j_iterate(r, v);
    return items->count ? items->item[0]
                        : j_undefined(r, "first", NULL, "No first item, sequence was empty.");
}

static struct jvalue filter_last(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)a;
    if (v.type == J_LIST && v.list->kind == LIST_ITERATOR)
        j_fail(r, "'generator' object is not reversible");
    const struct jlist *items = j_iterate(r, v);
    return items->count ? items->item[items->count - 1]
                        : j_undefined(r, "last", NULL, "No last item, sequence was empty.");
}

static struct jvalue filter_reverse(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    struct jout o = {0};
    (void)a;
    const struct jlist *items = j_iterate(r, v);
    const struct jvalue out = iterator(r);
    for (int64_t i = items->count - 1; i >= 0; i--) {
        if (v.type == J_TEXT) j_write_text(r, &o, items->item[i].text);
        if (v.type != J_TEXT) j_push(r, out, items->item[i]);
    }
    return v.type == J_TEXT ? j_written(r, &o) : out;
}

static struct jvalue filter_join(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const struct jtext *between = j_str(r, j_arg(a, 0, "d", j_literal(r, "")));
    const struct jvalue path = j_arg(a, 1, "attribute", j_none());
    const struct jlist *items = j_iterate(r, v);
    struct jout o = {0};
    for (int64_t i = 0; i < items->count; i++) {
        if (i) j_write_text(r, &o, between);
        j_print(r, &o, get_path(r, items->item[i], path, NULL));
    }
    return j_written(r, &o);
}

static struct jvalue filter_sum(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const struct jvalue path = j_arg(a, 0, "attribute", j_none());
    struct jvalue total = j_arg(a, 1, "start", j_int(0));
    const struct jlist *items = j_iterate(r, v);
    if (total.type == J_TEXT) j_fail(r, "sum() can't sum strings [use ''.join(seq) instead]");
    for (int64_t i = 0; i < items->count; i++) {
        total = j_binary(r, OP_ADD, total, get_path(r, items->item[i], path, NULL));
    }
    return total;
}

// ---- order

static struct jvalue folded(struct jrun *r, struct jvalue v, bool case_sensitive)
{
    return v.type == J_TEXT && !case_sensitive ? j_case(r, v.text, CASE_LOWER) : v;
}

// Merges by keys, stable; of equal ones the first stays in front, in either direction.
static void sort_pairs(struct jrun *r, struct jpair *p, struct jpair *spare, int64_t n,
                       bool reverse)
{
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t start = 0; start < n; start += 2 * width) {
            const int64_t middle = start + width < n ? start + width : n;
            const int64_t end = start + 2 * width < n ? start + 2 * width : n;
            int64_t left = start, right = middle;
            for (int64_t i = start; i < end; i++) {
                bool take_left = left < middle;
                if (take_left && right < end) {
                    const int order = j_compare(r, p[right].key, p[left].key, "<");
                    take_left = reverse ? order == 2 || order <= 0 : order == 2 || order >= 0;
                }
                spare[i] = take_left ? p[left++] : p[right++];
            }
        }
        memcpy(p, spare, (size_t)n * sizeof *p);
    }
}

// Always a list, as jinja2 makes it: attributes that are missing are equal there, and not compared.
static struct jvalue sort_key(struct jrun *r, struct jvalue item, struct jvalue path,
                              bool sensitive)
{
    const struct jtext comma = {.bytes = ",", .size = 1};
    const struct jvalue key = j_list(r, LIST_PLAIN);
    if (path.type != J_TEXT) {
        j_push(r, key, folded(r, get_path(r, item, path, NULL), sensitive));
        return key;
    }
    for (size_t start = 0; start <= path.text->size;) {
        const size_t found = j_search(r, path.text, &comma, start);
        const size_t end = found == SIZE_MAX ? path.text->size : found;
        const struct jvalue part = j_part(r, path.text, start, end);
        j_push(r, key, folded(r, get_path(r, item, part, NULL), sensitive));
        start = end + 1;
    }
    return key;
}

static struct jvalue sorted(struct jrun *r, const struct jlist *items, struct jvalue path,
                            bool sensitive, bool reverse)
{
    const size_t n = (size_t)items->count;
    struct jpair *pair = j_alloc(r, n * sizeof *pair), *spare = j_alloc(r, n * sizeof *spare);
    for (size_t i = 0; i < n; i++) {
        pair[i] = (struct jpair){sort_key(r, items->item[i], path, sensitive), items->item[i]};
    }
    sort_pairs(r, pair, spare, items->count, reverse);
    const struct jvalue out = j_list(r, LIST_PLAIN);
    for (size_t i = 0; i < n; i++) {
        j_push(r, out, pair[i].value);
    }
    return out;
}

static struct jvalue filter_sort(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const bool reverse = j_truth(j_arg(a, 0, "reverse", j_bool(false)));
    const bool sensitive = j_truth(j_arg(a, 1, "case_sensitive", j_bool(false)));
    return sorted(r, j_iterate(r, v), j_arg(a, 2, "attribute", j_none()), sensitive, reverse);
}

static struct jvalue filter_dictsort(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const bool sensitive = j_truth(j_arg(a, 0, "case_sensitive", j_bool(false)));
    const struct jvalue by = j_arg(a, 1, "by", j_literal(r, "key"));
    const bool reverse = j_truth(j_arg(a, 2, "reverse", j_bool(false)));
    j_defined(r, v);
    if (v.type != J_DICT || v.dict->namespace)
        j_fail(r, "dictsort: expected a dict, found '%s'", j_type_name(v));
    if (!j_is(by, "key") && !j_is(by, "value"))
        j_fail(r, "You can only sort by either \"key\" or \"value\"");
    const struct jvalue pairs = j_list(r, LIST_PLAIN);
    for (int64_t i = 0; i < v.dict->count; i++) {
        j_push(r, pairs, j_pair(r, v.dict->pair[i].key, v.dict->pair[i].value));
    }
    return sorted(r, pairs.list, j_int(j_is(by, "value")), sensitive, reverse);
}

static struct jvalue extreme(struct jrun *r, struct jvalue v, const struct jargs *a, int sign)
{
    const bool sensitive = j_truth(j_arg(a, 0, "case_sensitive", j_bool(false)));
    const struct jvalue path = j_arg(a, 1, "attribute", j_none());
    const struct jlist *items = j_iterate(r, v);
    if (!items->count)
        return j_undefined(r, "item", NULL, "No aggregated item, sequence was empty.");
    int64_t best = 0;
    struct jvalue key = folded(r, get_path(r, items->item[0], path, NULL), sensitive);
    for (int64_t i = 1; i < items->count; i++) {
        const struct jvalue other = folded(r, get_path(r, items->item[i], path, NULL), sensitive);
        const int order = j_compare(r, other, key, sign < 0 ? "<" : ">");
        if (order == 2 || order * sign <= 0) continue;
        best = i;
        key = other;
    }
    return items->item[best];
}

static struct jvalue filter_min(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    return extreme(r, v, a, -1);
}

static struct jvalue filter_max(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    return extreme(r, v, a, 1);
}

static struct jvalue filter_unique(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const bool sensitive = j_truth(j_arg(a, 0, "case_sensitive", j_bool(false)));
    const struct jvalue path = j_arg(a, 1, "attribute", j_none());
    const struct jlist *items = j_iterate(r, v);
    const struct jvalue out = iterator(r), seen = j_dict(r);
    for (int64_t i = 0; i < items->count; i++) {
        const struct jvalue key = folded(r, get_path(r, items->item[i], path, NULL), sensitive);
        if (j_find(r, seen.dict, key)) continue;
        j_put(r, seen.dict, key, j_none());
        j_push(r, out, items->item[i]);
    }
    return out;
}

static struct jvalue filter_batch(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const int64_t width = j_int_arg(r, a, 0, "linecount", 0);
    const struct jvalue fill = j_arg(a, 1, "fill_with", j_none());
    const struct jlist *items = j_iterate(r, v);
    const struct jvalue out = iterator(r);
    if (width < 1 || width > 100000) j_fail(r, "batch: %" PRId64 ", expected 1 to 100000", width);
    struct jvalue row = {0};
    for (int64_t i = 0; i < items->count; i++) {
        if (i % width == 0) row = j_list(r, LIST_PLAIN);
        if (i % width == 0) j_push(r, out, row);
        j_push(r, row, items->item[i]);
    }
    while (row.list && fill.type != J_NONE && row.list->count < width) {
        j_push(r, row, fill);
    }
    return out;
}

// ---- map, select and their like

static struct jargs rest_of(const struct jargs *a, int64_t skip)
{
    struct jargs b = *a;
    b.item = a->count > skip ? a->item + skip : NULL;
    b.count = a->count > skip ? a->count - skip : 0;
    return b;
}

static const struct jnamed *named_by(struct jrun *r, const struct jargs *a, int64_t i, bool filter)
{
    const char *kind = filter ? "filter" : "test";
    if (a->item[i].type != J_TEXT)
        j_fail(r, "the name of a %s of type '%s'", kind, j_type_name(a->item[i]));
    const char *name = j_copy(r, a->item[i].text->bytes, a->item[i].text->size);
    const struct jnamed *f = filter ? j_find_filter(name) : j_find_test(name);
    if (!f) j_fail(r, "no %s named '%.60s'", kind, name);
    return f;
}

// What is false is empty, whether it can be iterated over or not: jinja2 asks first.
static const struct jlist *items_of(struct jrun *r, struct jvalue v)
{
    static const struct jlist empty = {0};
    return j_truth(v) ? j_iterate(r, v) : &empty;
}

static struct jvalue filter_map(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const struct jlist *items = items_of(r, v);
    const struct jvalue out = iterator(r);
    const bool attribute = !a->count && j_has_arg(a, 0, "attribute");
    if (!a->count && !attribute) j_fail(r, "map requires a filter argument");
    const struct jvalue path = attribute ? j_arg(a, 0, "attribute", j_none()) : j_none();
    const struct jvalue fallback = j_arg(a, 1, "default", j_none());
    const struct jnamed *f = attribute ? NULL : named_by(r, a, 0, true);
    const struct jargs rest = rest_of(a, 1);
    for (int64_t i = 0; i < items->count; i++) {
        j_step(r, 0);
        j_push(r, out,
               f ? j_apply(r, f, "filter", items->item[i], &rest)
                 : get_path(r, items->item[i], path, fallback.type == J_NONE ? NULL : &fallback));
    }
    return out;
}

static struct jvalue chosen(struct jrun *r, struct jvalue v, const struct jargs *a,
                            bool by_attribute, bool wanted)
{
    const struct jlist *items = items_of(r, v);
    const struct jvalue out = iterator(r);
    const int64_t skip = by_attribute;
    if (by_attribute && !a->count) j_fail(r, "Missing parameter for attribute name");
    const struct jnamed *test = a->count > skip ? named_by(r, a, skip, false) : NULL;
    const struct jargs rest = rest_of(a, skip + 1);
    for (int64_t i = 0; i < items->count; i++) {
        j_step(r, 0);
        struct jvalue item = items->item[i];
        if (by_attribute) item = get_path(r, item, a->item[0], NULL);
        if (j_truth(test ? j_apply(r, test, "test", item, &rest) : item) == wanted)
            j_push(r, out, items->item[i]);
    }
    return out;
}

static struct jvalue filter_select(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    return chosen(r, v, a, false, true);
}

static struct jvalue filter_reject(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    return chosen(r, v, a, false, false);
}

static struct jvalue filter_selectattr(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    return chosen(r, v, a, true, true);
}

static struct jvalue filter_rejectattr(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    return chosen(r, v, a, true, false);
}

const struct jnamed j_list_filters[] = {
    {"batch", filter_batch, 2},
    {"dictsort", filter_dictsort, 3},
    {"first", filter_first, 0},
    {"items", filter_items, 0},
    {"join", filter_join, 2},
    {"last", filter_last, 0},
    {"list", filter_list, 0},
    {"map", filter_map, 100},
    {"max", filter_max, 2},
    {"min", filter_min, 2},
    {"reject", filter_reject, 100},
    {"rejectattr", filter_rejectattr, 100},
    {"reverse", filter_reverse, 0},
    {"select", filter_select, 100},
    {"selectattr", filter_selectattr, 100},
    {"sort", filter_sort, 3},
    {"sum", filter_sum, 2},
    {"unique", filter_unique, 2},
    {NULL, NULL, 0},
};
