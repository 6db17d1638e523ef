// io/jinja_eval.c - expressions to values, one small function a kind of node.
#include "io/jinja_parts.h"

#include <stdio.h>
#include <string.h>

struct jvalue j_lookup(struct jrun *r, const char *name)
{
    for (const struct jscope *s = r->scope; s; s = s->parent) {
        for (const struct jbinding *b = s->first; b; b = b->next) {
            if (b->name == name || strcmp(b->name, name) == 0) return b->value;
        }
    }
    return j_undefined(r, name, NULL, NULL);
}

static struct jvalue eval_list(struct jrun *r, const struct jnode *n, enum jlist_kind kind)
{
    const struct jvalue out = j_list(r, kind);
    for (const struct jnode *item = n->list; item; item = item->next) {
        j_push(r, out, j_eval(r, item));
    }
    return out;
}

static struct jvalue eval_dict(struct jrun *r, const struct jnode *n)
{
    const struct jvalue out = j_dict(r);
    for (const struct jnode *pair = n->list; pair; pair = pair->next) {
        const struct jvalue key = j_eval(r, pair->a);
        j_put(r, out.dict, key, j_eval(r, pair->b));
    }
    return out;
}

static struct jvalue eval_item(struct jrun *r, const struct jnode *n)
{
    const struct jvalue v = j_eval(r, n->a);
    if (n->b->kind != N_SLICE) return j_item(r, v, j_eval(r, n->b));
    const struct jnode *s = n->b;
    const struct jvalue start = s->a ? j_eval(r, s->a) : j_none(),
                        stop = s->b ? j_eval(r, s->b) : j_none();
    return j_slice(r, v, start, stop, s->c ? j_eval(r, s->c) : j_none());
}

static struct jvalue eval_unary(struct jrun *r, const struct jnode *n)
{
    const struct jvalue v = j_eval(r, n->a);
    j_defined(r, v);
    if (!j_number(v))
        j_fail(r, "bad operand type for unary %c: '%s'", n->op == OP_SUB ? '-' : '+',
               j_type_name(v));
    if (v.type == J_FLOAT) return j_float(n->op == OP_SUB ? -v.real : v.real);
    return j_binary(r, n->op, j_int(0), v);
}

static struct jvalue eval_compare(struct jrun *r, const struct jnode *n)
{
    struct jvalue left = j_eval(r, n->a), result = j_bool(true);
    for (const struct jnode *next = n->list; next && j_truth(result); next = next->next) {
        const struct jvalue right = j_eval(r, next->a);
        result = j_binary(r, next->op, left, right);
        left = right;
    }
    return result;
}

static struct jvalue eval_concat(struct jrun *r, const struct jnode *n)
{
    struct jout o = {0};
    for (const struct jnode *part = n->list; part; part = part->next) {
        j_print(r, &o, j_eval(r, part));
    }
    return j_written(r, &o);
}

static struct jvalue eval_condition(struct jrun *r, const struct jnode *n)
{
    if (j_truth(j_eval(r, n->b))) return j_eval(r, n->a);
    if (n->c) return j_eval(r, n->c);
    return j_undefined(r, "if", NULL, "an inline if without else was false");
}

static struct jvalue eval_named(struct jrun *r, const struct jnode *n)
{
    const bool filter = n->kind == N_FILTER;
    const struct jnamed *f = filter ? j_find_filter(n->name) : j_find_test(n->name);
    const struct jvalue in = j_eval(r, n->a);
    const struct jargs a = j_arguments(r, n->list);
    r->line = n->line;
    if (!f) j_fail(r, "no %s named '%.60s'", filter ? "filter" : "test", n->name);
    return j_apply(r, f, filter ? "filter" : "test", in, &a);
}

static struct jvalue eval_call(struct jrun *r, const struct jnode *n)
{
    const struct jvalue f = j_eval(r, n->a);
    const struct jargs a = j_arguments(r, n->list);
    r->line = n->line;
    return j_call(r, f, &a);
}

static struct jvalue eval_logic(struct jrun *r, const struct jnode *n)
{
    if (n->kind == N_NOT) return j_bool(!j_truth(j_eval(r, n->a)));
    const struct jvalue left = j_eval(r, n->a);
    return j_truth(left) == (n->kind == N_AND) ? j_eval(r, n->b) : left;
}

static struct jvalue eval(struct jrun *r, const struct jnode *n)
{
    switch (n->kind) {
    case N_CONSTANT:
        return n->value;
    case N_NAME:
        return j_lookup(r, n->name);
    case N_ATTRIBUTE:
        return j_attribute(r, j_eval(r, n->a), n->name);
    case N_ITEM:
        return eval_item(r, n);
    case N_LIST:
        return eval_list(r, n, LIST_PLAIN);
    case N_TUPLE:
        return eval_list(r, n, LIST_TUPLE);
    case N_DICT:
        return eval_dict(r, n);
    case N_CALL:
        return eval_call(r, n);
    case N_FILTER:
    case N_TEST:
        return eval_named(r, n);
    case N_UNARY:
        return eval_unary(r, n);
    case N_BINARY: {
        const struct jvalue a = j_eval(r, n->a);
        return j_binary(r, n->op, a, j_eval(r, n->b));
    }
    case N_COMPARE:
        return eval_compare(r, n);
    case N_AND:
    case N_OR:
    case N_NOT:
        return eval_logic(r, n);
    case N_CONDITION:
        return eval_condition(r, n);
    case N_CONCAT:
        return eval_concat(r, n);
    default:
        j_fail(r, "a slice in a place where none can be");
    }
}

struct jvalue j_eval(struct jrun *r, const struct jnode *n)
{
    j_enter(r);
    j_step(r, 0);
    r->line = n->line;
    const struct jvalue v = eval(r, n);
    r->line = n->line;
    j_leave(r);
    return v;
}
