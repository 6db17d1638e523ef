// io/jinja_test.c - the tests behind `is`, and in select, reject and their like.
#include "io/jinja_parts.h"

#include <math.h>
#include <string.h>

static struct jvalue is_type(struct jvalue v, enum jtype type)
{
    return j_bool(v.type == type);
}

static struct jvalue test_defined(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)r, (void)a;
    return j_bool(v.type != J_UNDEFINED);
}

static struct jvalue test_undefined(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)r, (void)a;
    return is_type(v, J_UNDEFINED);
}

static struct jvalue test_none(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)r, (void)a;
    return is_type(v, J_NONE);
}

static struct jvalue test_boolean(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)r, (void)a;
    return is_type(v, J_BOOL);
}

static struct jvalue test_true(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)r, (void)a;
    return j_bool(v.type == J_BOOL && v.truth);
}

static struct jvalue test_false(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)r, (void)a;
    return j_bool(v.type == J_BOOL && !v.truth);
}

static struct jvalue test_integer(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)r, (void)a;
    return is_type(v, J_INT);
}

static struct jvalue test_float(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)r, (void)a;
    return is_type(v, J_FLOAT);
}

static struct jvalue test_number(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)r, (void)a;
    return j_bool(j_number(v));
}

static struct jvalue test_string(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)r, (void)a;
    return is_type(v, J_TEXT);
}

static struct jvalue test_mapping(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)r, (void)a;
    return j_bool(v.type == J_DICT && !v.dict->namespace);
}

static struct jvalue test_iterable(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)r, (void)a;
    const bool dict = v.type == J_DICT && !v.dict->namespace;
    return j_bool(dict || v.type == J_TEXT || v.type == J_LIST || v.type == J_UNDEFINED ||
                  v.type == J_LOOP);
}

static struct jvalue test_sequence(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)r, (void)a;
    if (v.type == J_LIST) return j_bool(v.list->kind <= LIST_TUPLE || v.list->kind == LIST_RANGE);
    return j_bool(v.type == J_TEXT || v.type == J_UNDEFINED ||
                  (v.type == J_DICT && !v.dict->namespace));
}

static struct jvalue test_callable(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)r, (void)a;
    return j_bool(v.type == J_FUNCTION || v.type == J_UNDEFINED || v.type == J_LOOP);
}

static struct jvalue remainder_is(struct jrun *r, struct jvalue v, struct jvalue by, int64_t rest)
{
    return j_bool(j_equal(r, j_binary(r, OP_MOD, v, by), j_int(rest)));
}

static struct jvalue test_odd(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)a;
    return remainder_is(r, v, j_int(2), 1);
}

static struct jvalue test_even(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)a;
    return remainder_is(r, v, j_int(2), 0);
}

static struct jvalue other(struct jrun *r, const struct jargs *a)
{
    if (!a->count) j_fail(r, "a test that compares lacks what to compare with");
    return a->item[0];
}

static struct jvalue test_divisibleby(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    return remainder_is(r, v, other(r, a), 0);
}

static struct jvalue test_eq(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    return j_binary(r, OP_EQ, v, other(r, a));
}

static struct jvalue test_ne(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    return j_binary(r, OP_NE, v, other(r, a));
}

static struct jvalue test_lt(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    return j_binary(r, OP_LT, v, other(r, a));
}

static struct jvalue test_le(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    return j_binary(r, OP_LE, v, other(r, a));
}

static struct jvalue test_gt(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    return j_binary(r, OP_GT, v, other(r, a));
}

static struct jvalue test_ge(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    return j_binary(r, OP_GE, v, other(r, a));
}

static struct jvalue test_in(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    return j_binary(r, OP_IN, v, other(r, a));
}

// Python's `is`: the same object. Of numbers and texts the same value, which is what a template sees.
static struct jvalue test_sameas(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    const struct jvalue w = other(r, a);
    if (v.type != w.type) return j_bool(false);
    if (v.type == J_LIST) return j_bool(v.list == w.list);
    if (v.type == J_DICT) return j_bool(v.dict == w.dict);
    return j_bool(j_equal(r, v, w));
}

static struct jvalue has_case(struct jrun *r, struct jvalue v, const char *method)
{
    const struct jvalue text = {.type = J_TEXT, .text = j_str(r, v)};
    const struct jargs none = {0};
    return j_call(r, j_method(r, text, method), &none);
}

static struct jvalue test_lower(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)a;
    return has_case(r, v, "islower");
}

static struct jvalue test_upper(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)a;
    return has_case(r, v, "isupper");
}

static const char *name_of(struct jrun *r, struct jvalue v)
{
    return v.type == J_TEXT ? j_copy(r, v.text->bytes, v.text->size) : "";
}

static struct jvalue test_filter(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)a;
    return j_bool(j_find_filter(name_of(r, v)) != NULL);
}

static struct jvalue test_test(struct jrun *r, struct jvalue v, const struct jargs *a)
{
    (void)a;
    return j_bool(j_find_test(name_of(r, v)) != NULL);
}

const struct jnamed j_tests[] = {
    {"!=", test_ne, 1},
    {"<", test_lt, 1},
    {"<=", test_le, 1},
    {"==", test_eq, 1},
    {">", test_gt, 1},
    {">=", test_ge, 1},
    {"boolean", test_boolean, 0},
    {"callable", test_callable, 0},
    {"defined", test_defined, 0},
    {"divisibleby", test_divisibleby, 1},
    {"eq", test_eq, 1},
    {"equalto", test_eq, 1},
    {"even", test_even, 0},
    {"false", test_false, 0},
    {"filter", test_filter, 0},
    {"float", test_float, 0},
    {"ge", test_ge, 1},
    {"greaterthan", test_gt, 1},
    {"gt", test_gt, 1},
    {"in", test_in, 1},
    {"integer", test_integer, 0},
    {"iterable", test_iterable, 0},
    {"le", test_le, 1},
    {"lessthan", test_lt, 1},
    {"lower", test_lower, 0},
    {"lt", test_lt, 1},
    {"mapping", test_mapping, 0},
    {"ne", test_ne, 1},
    {"none", test_none, 0},
    {"number", test_number, 0},
    {"odd", test_odd, 0},
    {"sameas", test_sameas, 1},
    {"sequence", test_sequence, 0},
    {"string", test_string, 0},
    {"test", test_test, 0},
    {"true", test_true, 0},
    {"undefined", test_undefined, 0},
    {"upper", test_upper, 0},
    {NULL, NULL, 0},
};
