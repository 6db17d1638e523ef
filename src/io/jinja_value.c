// io/jinja_value.c - values: making them, comparing them, and what of Python's rules depends on the type.
#include "io/jinja_parts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct jvalue j_none(void)
{
    return (struct jvalue){.type = J_NONE};
}

struct jvalue j_bool(bool truth)
{
    return (struct jvalue){.type = J_BOOL, .truth = truth};
}

struct jvalue j_int(int64_t integer)
{
    return (struct jvalue){.type = J_INT, .integer = integer};
}

struct jvalue j_float(double real)
{
    return (struct jvalue){.type = J_FLOAT, .real = real};
}

struct jvalue j_text(struct jrun *r, const char *bytes, size_t size, uint16_t from)
{
    struct jtext *t = j_alloc(r, sizeof *t);
    *t = (struct jtext){.bytes = bytes, .size = size, .from = from};
    return (struct jvalue){.type = J_TEXT, .text = t};
}

struct jvalue j_literal(struct jrun *r, const char *text)
{
    return j_text(r, text, strlen(text), 0);
}

struct jvalue j_list(struct jrun *r, enum jlist_kind kind)
{
    struct jlist *list = j_alloc(r, sizeof *list);
    list->kind = kind;
    return (struct jvalue){.type = J_LIST, .list = list};
}

void j_push(struct jrun *r, struct jvalue list, struct jvalue item)
{
    struct jlist *l = list.list;
    l->item = j_grow(r, l->item, l->count, &l->capacity, sizeof *l->item);
    l->item[l->count++] = item;
}

struct jvalue j_pair(struct jrun *r, struct jvalue a, struct jvalue b)
{
    const struct jvalue pair = j_list(r, LIST_TUPLE);
    j_push(r, pair, a);
    j_push(r, pair, b);
    return pair;
}

struct jvalue j_dict(struct jrun *r)
{
    return (struct jvalue){.type = J_DICT, .dict = j_alloc(r, sizeof(struct jdict))};
}

static void check_key(struct jrun *r, struct jvalue key)
{
    const bool list = key.type == J_LIST && key.list->kind != LIST_TUPLE;
    if (list || key.type == J_DICT) j_fail(r, "unhashable type: '%s'", j_type_name(key));
}

const struct jvalue *j_find(struct jrun *r, const struct jdict *d, struct jvalue key)
{
    check_key(r, key);
    j_step(r, (size_t)d->count * 8);
    for (int64_t i = 0; i < d->count; i++) {
        if (j_equal(r, d->pair[i].key, key)) return &d->pair[i].value;
    }
    return NULL;
}

const struct jvalue *j_find_name(const struct jdict *d, const char *name)
{
    const size_t size = strlen(name);
    for (int64_t i = 0; i < d->count; i++) {
        const struct jvalue *key = &d->pair[i].key;
        if (key->type == J_TEXT && key->text->size == size &&
            memcmp(key->text->bytes, name, size) == 0) {
            return &d->pair[i].value;
        }
    }
    return NULL;
}

void j_put(struct jrun *r, struct jdict *d, struct jvalue key, struct jvalue value)
{
    struct jvalue *old = (struct jvalue *)j_find(r, d, key);
    if (old) {
        *old = value;
        return;
    }
    d->pair = j_grow(r, d->pair, d->count, &d->capacity, sizeof *d->pair);
    d->pair[d->count++] = (struct jpair){key, value};
}

struct jvalue j_undefined(struct jrun *r, const char *name, const char *owner, const char *message)
{
    struct jhint *hint = j_alloc(r, sizeof *hint);
    *hint = (struct jhint){name, owner, message};
    return (struct jvalue){.type = J_UNDEFINED, .hint = hint};
}

struct jvalue j_function(struct jrun *r, const char *name, jcall call, struct jvalue self)
{
    struct jfunction *f = j_alloc(r, sizeof *f);
    f->name = name;
    f->call = call;
    f->self = self;
    return (struct jvalue){.type = J_FUNCTION, .function = f};
}

const char *j_type_name(struct jvalue v)
{
    static const char *const lists[] = {"list",       "tuple", "dict_keys", "dict_values",
                                        "dict_items", "range", "generator"};
    switch (v.type) {
    case J_UNDEFINED:
        return "Undefined";
    case J_NONE:
        return "NoneType";
    case J_BOOL:
        return "bool";
    case J_INT:
        return "int";
    case J_FLOAT:
        return "float";
    case J_TEXT:
        return "str";
    case J_LIST:
        return lists[v.list->kind];
    case J_DICT:
        return v.dict->namespace ? "Namespace" : "dict";
    case J_FUNCTION:
        return v.function->call ? "function" : "Macro";
    case J_LOOP:
        return "LoopContext";
    }
    return "value";
}

_Noreturn void j_fail_undefined(struct jrun *r, struct jvalue v)
{
    const struct jhint *h = v.hint;
    if (h->message) j_fail(r, "%.300s", h->message);
    if (!h->owner) j_fail(r, "'%.100s' is undefined", h->name);
    j_fail(r, "'%s object' has no attribute '%.100s'", h->owner, h->name);
}

void j_defined(struct jrun *r, struct jvalue v)
{
    if (v.type == J_UNDEFINED) j_fail_undefined(r, v);
}

bool j_truth(struct jvalue v)
{
    switch (v.type) {
    case J_UNDEFINED:
    case J_NONE:
        return false;
    case J_BOOL:
        return v.truth;
    case J_INT:
        return v.integer != 0;
    case J_FLOAT:
        return v.real != 0;
    case J_TEXT:
        return v.text->size > 0;
    case J_LIST: // an iterator is true, whatever is left in it
        return v.list->kind == LIST_ITERATOR || v.list->count > 0;
    case J_DICT:
        return v.dict->namespace || v.dict->count > 0;
    case J_FUNCTION:
    case J_LOOP:
        return true;
    }
    return false;
}

bool j_is(struct jvalue v, const char *text)
{
    return v.type == J_TEXT && v.text->size == strlen(text) &&
           memcmp(v.text->bytes, text, v.text->size) == 0;
}

bool j_number(struct jvalue v)
{
    return v.type == J_BOOL || v.type == J_INT || v.type == J_FLOAT;
}

double j_real(struct jvalue v)
{
    return v.type == J_FLOAT ? v.real : v.type == J_INT ? (double)v.integer : (double)v.truth;
}

static int64_t whole(struct jvalue v)
{
    return v.type == J_BOOL ? v.truth : v.integer;
}

static bool text_equal(const struct jtext *a, const struct jtext *b)
{
    return a->size == b->size && (a->size == 0 || memcmp(a->bytes, b->bytes, a->size) == 0);
}

static bool list_equal(struct jrun *r, const struct jlist *a, const struct jlist *b)
{
    if (a == b) return true;
    if (a->kind != b->kind || a->count != b->count || a->kind > LIST_TUPLE) return false;
    for (int64_t i = 0; i < a->count; i++) {
        if (!j_equal(r, a->item[i], b->item[i])) return false;
    }
    return true;
}

static bool dict_equal(struct jrun *r, const struct jdict *a, const struct jdict *b)
{
    if (a == b) return true;
    if (a->namespace || b->namespace || a->count != b->count) return false;
    for (int64_t i = 0; i < a->count; i++) {
        const struct jvalue *other = j_find(r, b, a->pair[i].key);
        if (!other || !j_equal(r, a->pair[i].value, *other)) return false;
    }
    return true;
}

bool j_equal(struct jrun *r, struct jvalue a, struct jvalue b)
{
    if (j_number(a) && j_number(b)) {
        if (a.type != J_FLOAT && b.type != J_FLOAT) return whole(a) == whole(b);
        return !(j_real(a) < j_real(b)) && !(j_real(a) > j_real(b)) && !isnan(j_real(a)) &&
               !isnan(j_real(b));
    }
    if (a.type != b.type) return false;
    bool equal = true; // undefined, none
    j_enter(r);
    if (a.type == J_TEXT) {
        j_step(r, a.text->size == b.text->size ? a.text->size : 0);
        equal = text_equal(a.text, b.text);
    } else if (a.type == J_LIST) {
        j_step(r, 0);
        equal = list_equal(r, a.list, b.list);
    } else if (a.type == J_DICT) {
        j_step(r, 0);
        equal = dict_equal(r, a.dict, b.dict);
    } else if (a.type == J_FUNCTION) {
        equal = a.function == b.function;
    } else if (a.type == J_LOOP) {
        equal = a.loop == b.loop;
    }
    j_leave(r);
    return equal;
}

static int compare_lists(struct jrun *r, const struct jlist *a, const struct jlist *b,
                         const char *op)
{
    for (int64_t i = 0; i < a->count && i < b->count; i++) {
        if (j_equal(r, a->item[i], b->item[i])) continue;
        return j_compare(r, a->item[i], b->item[i], op);
    }
    return (a->count > b->count) - (a->count < b->count);
}

// Not a number compares as 2: none of <, <=, >, >= holds.
int j_compare(struct jrun *r, struct jvalue a, struct jvalue b, const char *op)
{
    j_defined(r, a);
    j_defined(r, b);
    if (j_number(a) && j_number(b)) {
        if (a.type != J_FLOAT && b.type != J_FLOAT)
            return (whole(a) > whole(b)) - (whole(a) < whole(b));
        if (isnan(j_real(a)) || isnan(j_real(b))) return 2;
        return (j_real(a) > j_real(b)) - (j_real(a) < j_real(b));
    }
    if (a.type == J_TEXT && b.type == J_TEXT) {
        const size_t n = a.text->size < b.text->size ? a.text->size : b.text->size;
        j_step(r, n);
        const int order = n ? memcmp(a.text->bytes, b.text->bytes, n) : 0;
        if (order) return order < 0 ? -1 : 1;
        return (a.text->size > b.text->size) - (a.text->size < b.text->size);
    }
    if (a.type == J_LIST && b.type == J_LIST && a.list->kind == b.list->kind &&
        a.list->kind <= LIST_TUPLE) {
        j_enter(r);
        j_step(r, 0);
        const int order = compare_lists(r, a.list, b.list, op);
        j_leave(r);
        return order;
    }
    j_fail(r, "'%s' not supported between instances of '%s' and '%s'", op, j_type_name(a),
           j_type_name(b));
}

static const struct jlist *characters(struct jrun *r, const struct jtext *t)
{
    const struct jvalue list = j_list(r, LIST_PLAIN);
    int32_t c;
    for (size_t at = 0, next; at < t->size; at = next) {
        j_step(r, 0);
        next = j_next(t, at, &c);
        j_push(r, list, j_part(r, t, at, next));
    }
    return list.list;
}

const struct jlist *j_iterate(struct jrun *r, struct jvalue v)
{
    static const struct jlist empty = {0};
    if (v.type == J_UNDEFINED) return &empty;
    if (v.type == J_TEXT) return characters(r, v.text);
    if (v.type == J_DICT && !v.dict->namespace) {
        const struct jvalue keys = j_list(r, LIST_PLAIN);
        for (int64_t i = 0; i < v.dict->count; i++) {
            j_push(r, keys, v.dict->pair[i].key);
        }
        return keys.list;
    }
    if (v.type != J_LIST) j_fail(r, "'%s' object is not iterable", j_type_name(v));
    if (v.list->kind != LIST_ITERATOR) return v.list;
    struct jlist *taken = j_alloc(r, sizeof *taken);
    *taken = *v.list;
    v.list->item = NULL;
    v.list->count = v.list->capacity = 0;
    return taken;
}

int64_t j_length(struct jrun *r, struct jvalue v)
{
    if (v.type == J_UNDEFINED) return 0;
    if (v.type == J_TEXT) return j_characters(v.text);
    if (v.type == J_LIST && v.list->kind != LIST_ITERATOR) return v.list->count;
    if (v.type == J_DICT && !v.dict->namespace) return v.dict->count;
    if (v.type == J_LOOP) return v.loop->items->count;
    j_fail(r, "object of type '%s' has no len()", j_type_name(v));
}

bool j_contains(struct jrun *r, struct jvalue container, struct jvalue item)
{
    if (container.type == J_TEXT) {
        if (item.type != J_TEXT) {
            j_fail(r, "'in <string>' requires string as left operand, not %s", j_type_name(item));
        }
        return j_search(r, container.text, item.text, 0) != SIZE_MAX;
    }
    if (container.type == J_DICT && !container.dict->namespace)
        return j_find(r, container.dict, item) != NULL;
    if (container.type != J_LIST && container.type != J_UNDEFINED) {
        j_fail(r, "argument of type '%s' is not iterable", j_type_name(container));
    }
    const struct jlist *list = j_iterate(r, container);
    for (int64_t i = 0; i < list->count; i++) {
        j_step(r, 0);
        if (j_equal(r, list->item[i], item)) return true;
    }
    return false;
}

// ---- arguments

bool j_has_arg(const struct jargs *a, int64_t i, const char *name)
{
    return i < a->count || (a->named && j_find_name(a->named, name));
}

struct jvalue j_arg(const struct jargs *a, int64_t i, const char *name, struct jvalue fallback)
{
    if (i < a->count) return a->item[i];
    const struct jvalue *named = a->named ? j_find_name(a->named, name) : NULL;
    return named ? *named : fallback;
}

int64_t j_int_arg(struct jrun *r, const struct jargs *a, int64_t i, const char *name,
                  int64_t fallback)
{
    const struct jvalue v = j_arg(a, i, name, j_int(fallback));
    if (v.type == J_NONE) return fallback;
    j_defined(r, v);
    if (v.type != J_INT && v.type != J_BOOL)
        j_fail(r, "'%s' object cannot be interpreted as an integer", j_type_name(v));
    return whole(v);
}
