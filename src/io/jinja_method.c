// io/jinja_method.c - methods of dicts and lists, and which methods a value has. The sandbox is immutable:
// what would change a value is refused when it is called. Methods of texts are in jinja_method_text.c.
#include "io/jinja_parts.h"

#include <stdio.h>
#include <string.h>

static struct jvalue dict_view(struct jrun *r, const struct jdict *d, enum jlist_kind kind)
{
    const struct jvalue out = j_list(r, kind);
    for (int64_t i = 0; i < d->count; i++) {
        const struct jpair *p = &d->pair[i];
        j_push(r, out,
               kind == LIST_KEYS     ? p->key
               : kind == LIST_VALUES ? p->value
                                     : j_pair(r, p->key, p->value));
    }
    return out;
}

static struct jvalue dict_items(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)a;
    return dict_view(r, v.dict, LIST_ITEMS);
}

static struct jvalue dict_keys(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)a;
    return dict_view(r, v.dict, LIST_KEYS);
}

static struct jvalue dict_values(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)a;
    return dict_view(r, v.dict, LIST_VALUES);
}

static struct jvalue dict_get(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    if (!a->count) j_fail(r, "get expected at least 1 argument, got 0");
    const struct jvalue *value = j_find(r, v.dict, a->item[0]);
    return value ? *value : a->count > 1 ? a->item[1] : j_none();
}

static struct jvalue dict_copy(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const struct jvalue out = j_dict(r);
    (void)a;
    for (int64_t i = 0; i < v.dict->count; i++) {
        j_put(r, out.dict, v.dict->pair[i].key, v.dict->pair[i].value);
    }
    return out;
}

static struct jvalue list_copy(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const struct jvalue out = j_list(r, LIST_PLAIN);
    (void)a;
    for (int64_t i = 0; i < v.list->count; i++) {
        j_push(r, out, v.list->item[i]);
    }
    return out;
}

static struct jvalue list_count(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    int64_t n = 0;
    if (a->count != 1) j_fail(r, "count() takes exactly one argument");
    for (int64_t i = 0; i < v.list->count; i++) {
        n += j_equal(r, v.list->item[i], a->item[0]);
    }
    return j_int(n);
}

static struct jvalue list_index(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    if (a->count != 1) j_fail(r, "index: expected one argument");
    for (int64_t i = 0; i < v.list->count; i++) {
        if (j_equal(r, v.list->item[i], a->item[0])) return j_int(i);
    }
    j_fail(r, "the value is not in the list");
}

static struct jvalue loop_cycle(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    if (!a->count) j_fail(r, "no items for cycling given");
    return a->item[v.loop->index % a->count];
}

static struct jvalue loop_changed(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const struct jvalue now = j_list(r, LIST_TUPLE), before = v.loop->last_changed;
    for (int64_t i = 0; i < a->count; i++) {
        j_push(r, now, a->item[i]);
    }
    v.loop->last_changed = now;
    return j_bool(before.type != J_LIST || !j_equal(r, before, now));
}

static const struct jnamed dict_methods[] = {{"copy", dict_copy, 0},     {"get", dict_get, 2},
                                             {"items", dict_items, 0},   {"keys", dict_keys, 0},
                                             {"values", dict_values, 0}, {NULL, NULL, 0}};
static const struct jnamed list_methods[] = {
    {"copy", list_copy, 0}, {"count", list_count, 1}, {"index", list_index, 1}, {NULL, NULL, 0}};
static const struct jnamed loop_methods[] = {
    {"changed", loop_changed, 100}, {"cycle", loop_cycle, 100}, {NULL, NULL, 0}};
static const char *const dict_changes[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
static const char *const list_changes[] = {"append", "clear",   "extend", "insert", "pop",
                                           "remove", "reverse", "sort",   NULL};

// What of a type can be called, and what cannot because it would change the value.
static const struct jnamed *methods_of(struct jvalue v, const char *const **changes)
{
    static const char *const none[] = {NULL};
    *changes = none;
    if (v.type == J_TEXT) return j_text_methods;
    if (v.type == J_LOOP) return loop_methods;
    if (v.type == J_DICT && !v.dict->namespace) {
        *changes = dict_changes;
        return dict_methods;
    }
    if (v.type != J_LIST || v.list->kind > LIST_TUPLE) return NULL;
    if (v.list->kind == LIST_TUPLE) return list_methods + 1; // all but copy
    *changes = list_changes;
    return list_methods;
}

struct jvalue j_method(struct jrun *r, struct jvalue v, const char *name)
{
    char text[160];
    const char *const *changes;
    const struct jnamed *m = methods_of(v, &changes);
    for (; m && m->name; m++) {
        if (strcmp(m->name, name) == 0) return j_function(r, m->name, m->call, v);
    }
    for (; *changes; changes++) {
        if (strcmp(*changes, name) != 0) continue;
        snprintf(text, sizeof text, "access to attribute '%s' of '%s' object is unsafe.", name,
                 j_type_name(v));
        return j_undefined(r, name, NULL, j_copy(r, text, strlen(text)));
    }
    return j_undefined(r, name, v.type == J_NONE ? "None" : j_type_name(v), NULL);
}
