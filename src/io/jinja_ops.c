// io/jinja_ops.c - operators, attributes, indices and slices, as Python and jinja2's sandbox define them.
#include "io/jinja_parts.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const symbols[] = {
    "+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};

_Noreturn static void unsupported(struct jrun *r, enum jop op, struct jvalue a, struct jvalue b)
{
    j_fail(r, "unsupported operand types for %s: '%s' and '%s'", symbols[op], j_type_name(a),
           j_type_name(b));
}

static int64_t integer(struct jvalue v)
{
    return v.type == J_BOOL ? v.truth : v.integer;
}

static int64_t floor_divide(int64_t a, int64_t b)
{
    const int64_t q = a / b;
    return q - (a % b != 0 && (a < 0) != (b < 0));
}

// Of the sign of b, as in Python.
static int64_t floor_rest(int64_t a, int64_t b)
{
    const int64_t rest = a % b;
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

static struct jvalue integer_power(struct jrun *r, int64_t a, int64_t b)
{
    int64_t out = 1;
    if (b < 0) {
        if (!a) j_fail(r, "0 cannot be raised to a negative power");
        return j_float(pow((double)a, (double)b));
    }
    if (a == 0 || a == 1) return j_int(b ? a : 1);
    if (a == -1) return j_int(b % 2 ? -1 : 1);
    for (; b > 0; b--) {
        if (__builtin_mul_overflow(out, a, &out)) j_fail(r, "a whole number beyond 64 bits");
    }
    return j_int(out);
}

static struct jvalue integers(struct jrun *r, enum jop op, int64_t a, int64_t b)
{
    int64_t out = 0;
    bool over = false;
    if ((op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD) && !b) j_fail(r, "division by zero");
    switch (op) {
    case OP_ADD:
        over = __builtin_add_overflow(a, b, &out);
        break;
    case OP_SUB:
        over = __builtin_sub_overflow(a, b, &out);
        break;
    case OP_MUL:
        over = __builtin_mul_overflow(a, b, &out);
        break;
    case OP_DIV:
        return j_float((double)a / (double)b);
    case OP_POW:
        return integer_power(r, a, b);
    default: // // and %
        over = a == INT64_MIN && b == -1;
        if (over && op == OP_MOD) return j_int(0);
        if (!over) out = op == OP_FLOORDIV ? floor_divide(a, b) : floor_rest(a, b);
    }
    if (over) j_fail(r, "a whole number beyond 64 bits");
    return j_int(out);
}

static struct jvalue reals(struct jrun *r, enum jop op, double a, double b)
{
    if ((op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD) && b == 0)
        j_fail(r, "division by zero");
    switch (op) {
    case OP_ADD:
        return j_float(a + b);
    case OP_SUB:
        return j_float(a - b);
    case OP_MUL:
        return j_float(a * b);
    case OP_DIV:
        return j_float(a / b);
    case OP_POW:
        if (a == 0 && b < 0) j_fail(r, "0.0 cannot be raised to a negative power");
        if (a < 0 && b != floor(b)) j_fail(r, "a power that is a complex number");
        if (isinf(pow(a, b)) && !isinf(a) && !isinf(b))
            j_fail(r, "a power beyond the range of numbers");
        return j_float(pow(a, b));
    default:
        break;
    }
    double rest = fmod(a, b);
    if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
    if (op == OP_MOD) return j_float(rest == 0 ? copysign(0, b) : rest);
    return j_float(floor((a - rest) / b + 0.5));
}

static struct jvalue joined(struct jrun *r, struct jvalue a, struct jvalue b)
{
    const struct jvalue out = j_list(r, a.list->kind);
    for (int64_t i = 0; i < a.list->count; i++) {
        j_push(r, out, a.list->item[i]);
    }
    for (int64_t i = 0; i < b.list->count; i++) {
        j_push(r, out, b.list->item[i]);
    }
    return out;
}

static struct jvalue repeated(struct jrun *r, struct jvalue what, int64_t n)
{
    struct jout o = {0};
    if (what.type == J_TEXT) {
        if (!what.text->size) return what;
        for (int64_t i = 0; i < n; i++) {
            j_write_text(r, &o, what.text);
        }
        return j_written(r, &o);
    }
    const struct jvalue out = j_list(r, what.list->kind);
    for (int64_t i = 0; i < n && what.list->count; i++) {
        j_step(r, (size_t)what.list->count * sizeof(struct jvalue));
        for (int64_t k = 0; k < what.list->count; k++) {
            j_push(r, out, what.list->item[k]);
        }
    }
    return out;
}

static bool plain_list(struct jvalue v)
{
    return v.type == J_LIST && v.list->kind <= LIST_TUPLE;
}

static bool whole(struct jvalue v)
{
    return v.type == J_INT || v.type == J_BOOL;
}

static struct jvalue compared(struct jrun *r, enum jop op, struct jvalue a, struct jvalue b)
{
    if (op == OP_EQ) return j_bool(j_equal(r, a, b));
    if (op == OP_NE) return j_bool(!j_equal(r, a, b));
    if (op == OP_IN) return j_bool(j_contains(r, b, a));
    if (op == OP_NOT_IN) return j_bool(!j_contains(r, b, a));
    const int order = j_compare(r, a, b, symbols[op]);
    if (order == 2) return j_bool(false);
    return j_bool(op == OP_LT   ? order < 0
                  : op == OP_LE ? order <= 0
                  : op == OP_GT ? order > 0
                                : order >= 0);
}

struct jvalue j_binary(struct jrun *r, enum jop op, struct jvalue a, struct jvalue b)
{
    if (op >= OP_EQ) return compared(r, op, a, b);
    j_defined(r, a);
    j_defined(r, b);
    if (j_number(a) && j_number(b)) {
        return whole(a) && whole(b) ? integers(r, op, integer(a), integer(b))
                                    : reals(r, op, j_real(a), j_real(b));
    }
    if (op == OP_ADD && a.type == J_TEXT && b.type == J_TEXT) {
        struct jout o = {0};
        j_write_text(r, &o, a.text);
        j_write_text(r, &o, b.text);
        return j_written(r, &o);
    }
    if (op == OP_ADD && a.type == J_TEXT) {
        j_fail(r, "can only concatenate str (not \"%s\") to str", j_type_name(b));
    }
    if (op == OP_ADD && plain_list(a) && plain_list(b) && a.list->kind == b.list->kind)
        return joined(r, a, b);
    if (op == OP_MUL && (a.type == J_TEXT || plain_list(a)) && whole(b))
        return repeated(r, a, integer(b));
    if (op == OP_MUL && (b.type == J_TEXT || plain_list(b)) && whole(a))
        return repeated(r, b, integer(a));
    if (op == OP_MOD && a.type == J_TEXT) {
        const bool tuple = b.type == J_LIST && b.list->kind == LIST_TUPLE;
        return tuple ? j_format_percent(r, a.text, b.list->item, b.list->count)
                     : j_format_percent(r, a.text, &b, 1);
    }
    unsupported(r, op, a, b);
}

// ---- attributes and items

static struct jvalue loop_attribute(struct jrun *r, const struct jloop *l, const char *name)
{
    const int64_t n = l->items->count;
    const struct {
        const char *name;
        struct jvalue value;
    } known[] = {{"index", j_int(l->index + 1)},
                 {"index0", j_int(l->index)},
                 {"revindex", j_int(n - l->index)},
                 {"revindex0", j_int(n - l->index - 1)},
                 {"first", j_bool(l->index == 0)},
                 {"last", j_bool(l->index + 1 == n)},
                 {"length", j_int(n)},
                 {"depth", j_int(l->level + 1)},
                 {"depth0", j_int(l->level)}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(name, known[i].name) == 0) return known[i].value;
    }
    if (strcmp(name, "previtem") == 0 && l->index > 0) return l->items->item[l->index - 1];
    if (strcmp(name, "nextitem") == 0 && l->index + 1 < n) return l->items->item[l->index + 1];
    if (strcmp(name, "previtem") == 0)
        return j_undefined(r, name, NULL, "there is no previous item");
    if (strcmp(name, "nextitem") == 0) return j_undefined(r, name, NULL, "there is no next item");
    return j_undefined(r, name, "LoopContext", NULL);
}

static struct jvalue macro_attribute(struct jrun *r, const struct jfunction *f, const char *name)
{
    if (strcmp(name, "name") == 0) return j_literal(r, f->name);
    if (strcmp(name, "arguments") != 0) return j_undefined(r, name, "Macro", NULL);
    const struct jvalue list = j_list(r, LIST_TUPLE);
    for (const struct jnode *p = f->node->other; p; p = p->next) {
        j_push(r, list, j_literal(r, p->name));
    }
    return list;
}

// An attribute proper, without looking at keys; J_UNDEFINED where there is none.
static struct jvalue own_attribute(struct jrun *r, struct jvalue v, const char *name)
{
    if (v.type == J_DICT && v.dict->namespace) {
        const struct jvalue *value = j_find_name(v.dict, name);
        return value ? *value : j_undefined(r, name, j_type_name(v), NULL);
    }
    const struct jvalue method = j_method(r, v, name);
    if (method.type != J_UNDEFINED || method.hint->message) return method;
    if (v.type == J_LOOP) return loop_attribute(r, v.loop, name);
    if (v.type == J_FUNCTION && !v.function->call) return macro_attribute(r, v.function, name);
    return method;
}

struct jvalue j_attribute(struct jrun *r, struct jvalue v, const char *name)
{
    j_defined(r, v);
    const struct jvalue own = own_attribute(r, v, name);
    if (own.type != J_UNDEFINED || own.hint->message || v.type != J_DICT) return own;
    const struct jvalue *value = j_find_name(v.dict, name);
    j_step(r, (size_t)v.dict->count * 8);
    return value ? *value : own;
}

struct jvalue j_item(struct jrun *r, struct jvalue v, struct jvalue key)
{
    char number[32];
    j_defined(r, v);
    if (v.type == J_DICT && !v.dict->namespace) {
        const bool fits =
            key.type != J_DICT && !(key.type == J_LIST && key.list->kind != LIST_TUPLE);
        const struct jvalue *value = fits ? j_find(r, v.dict, key) : NULL;
        if (value) return *value;
    } else if (whole(key)) {
        const bool list =
            v.type == J_LIST && (v.list->kind <= LIST_TUPLE || v.list->kind == LIST_RANGE);
        const int64_t n = v.type == J_TEXT ? j_characters(v.text) : list ? v.list->count : 0;
        const int64_t i = integer(key) < 0 ? integer(key) + n : integer(key);
        if (i >= 0 && i < n && list) return v.list->item[i];
        if (i >= 0 && i < n) {
            j_step(r, v.text->size);
            const size_t start = j_offset(v.text, i);
            int32_t c;
            return j_part(r, v.text, start, j_next(v.text, start, &c));
        }
    }
    if (key.type == J_TEXT) return own_attribute(r, v, j_copy(r, key.text->bytes, key.text->size));
    snprintf(number, sizeof number, "%" PRId64, whole(key) ? integer(key) : 0);
    return j_undefined(r, whole(key) ? j_copy(r, number, strlen(number)) : j_type_name(key),
                       j_type_name(v), NULL);
}

// ---- slices

// As slice.indices(n).
static int64_t bound(int64_t at, int64_t n, int64_t low, int64_t high)
{
    if (at < 0) at = at < -n ? low : at + n;
    return at < low ? low : at > high ? high : at;
}

struct jvalue j_slice(struct jrun *r, struct jvalue v, struct jvalue start, struct jvalue stop,
                      struct jvalue step)
{
    const struct jvalue parts[] = {start, stop, step};
    bool fits = v.type == J_TEXT ||
                (v.type == J_LIST && (v.list->kind <= LIST_TUPLE || v.list->kind == LIST_RANGE));
    j_defined(r, v);
    for (int i = 0; i < 3; i++) {
        fits = fits && (whole(parts[i]) || parts[i].type == J_NONE);
    }
    if (!fits) j_fail(r, "'%s' object cannot be sliced so", j_type_name(v));
    const int64_t by = step.type == J_NONE ? 1 : integer(step);
    if (!by) j_fail(r, "slice step cannot be zero");
    const int64_t n = j_length(r, v), low = by < 0 ? -1 : 0, high = by < 0 ? n - 1 : n;
    const int64_t from =
        start.type == J_NONE ? (by < 0 ? high : low) : bound(integer(start), n, low, high);
    const int64_t to =
        stop.type == J_NONE ? (by < 0 ? low : high) : bound(integer(stop), n, low, high);
    if (v.type == J_TEXT && by == 1) {
        j_step(r, v.text->size);
        return j_part(r, v.text, j_offset(v.text, from), j_offset(v.text, to > from ? to : from));
    }
    const struct jlist *items = j_iterate(r, v);
    const struct jvalue out = j_list(r, v.type == J_TEXT ? LIST_PLAIN : v.list->kind);
    for (int64_t i = from; by > 0 ? i < to : i > to; i += by) {
        j_push(r, out, items->item[i]);
        if (by > 0 ? by > to - i : by < to - i) break; // no overflow at the end
    }
    if (v.type != J_TEXT) return out;
    struct jout o = {0};
    for (int64_t i = 0; i < out.list->count; i++) {
        j_write_text(r, &o, out.list->item[i].text);
    }
    return j_written(r, &o);
}
