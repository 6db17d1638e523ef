// io/jinja_exec.c - statements: text, conditions, loops, assignments and blocks, with jinja2's scopes. A
// loop's body, a macro and a block have scopes of their own; what is set there is gone behind them.
#include "io/jinja_parts.h"

#include <inttypes.h>
#include <string.h>

struct jscope *j_scope(struct jrun *r, struct jscope *parent)
{
    struct jscope *s = j_alloc(r, sizeof *s);
    s->parent = parent;
    return s;
}

void j_bind(struct jrun *r, const char *name, struct jvalue value)
{
    for (struct jbinding *b = r->scope->first; b; b = b->next) {
        if (strcmp(b->name, name) != 0) continue;
        b->value = value;
        return;
    }
    struct jbinding *b = j_alloc(r, sizeof *b);
    *b = (struct jbinding){name, value, r->scope->first};
    r->scope->first = b;
}

static void assign_member(struct jrun *r, const struct jnode *target, struct jvalue value)
{
    const struct jvalue owner = j_lookup(r, target->name);
    const struct jvalue key = target->value;
    if (owner.type != J_DICT || !owner.dict->namespace)
        j_fail(r, "cannot assign attribute on non-namespace object");
    if (key.text->size && *key.text->bytes == '_')
        j_fail(r, "a namespace takes no name that starts with _");
    j_put(r, owner.dict, key, value);
}

void j_assign(struct jrun *r, const struct jnode *target, struct jvalue value)
{
    r->line = target->line;
    if (target->kind == N_NAME) {
        j_bind(r, target->name, value);
    } else if (target->kind == N_MEMBER) {
        assign_member(r, target, value);
    } else {
        const struct jlist *items = j_iterate(r, value);
        int64_t n = 0, i = 0;
        for (const struct jnode *t = target->list; t; t = t->next) {
            n++;
        }
        if (items->count != n) {
            j_fail(r, "cannot unpack %" PRId64 " values into %" PRId64 " names", items->count, n);
        }
        for (const struct jnode *t = target->list; t; t = t->next) {
            j_assign(r, t, items->item[i++]);
        }
    }
}

struct jvalue j_capture(struct jrun *r, const struct jnode *body)
{
    struct jout o = {0}, *outer = r->out;
    struct jscope *scope = r->scope;
    r->out = &o;
    r->scope = j_scope(r, scope);
    j_exec(r, body);
    r->scope = scope;
    r->out = outer;
    return j_written(r, &o);
}

// The items for which the loop's condition holds.
static const struct jlist *filtered(struct jrun *r, const struct jnode *n,
                                    const struct jlist *items)
{
    if (!n->c) return items;
    struct jscope *outer = r->scope;
    const struct jvalue kept = j_list(r, LIST_PLAIN);
    for (int64_t i = 0; i < items->count; i++) {
        r->scope = j_scope(r, outer);
        j_assign(r, n->a, items->item[i]);
        if (j_truth(j_eval(r, n->c))) j_push(r, kept, items->item[i]);
    }
    r->scope = outer;
    return kept.list;
}

static struct jvalue loop_value(struct jrun *r, const struct jnode *n, const struct jlist *items,
                                int64_t level)
{
    struct jloop *l = j_alloc(r, sizeof *l);
    l->items = items;
    l->level = level;
    if (n->recursive) {
        l->call = j_function(r, "loop", NULL, j_none());
        l->call.function->node = n;
        l->call.function->scope = r->scope;
        l->call.function->level = level;
    }
    return (struct jvalue){.type = J_LOOP, .loop = l};
}

static enum jflow run_for(struct jrun *r, const struct jnode *n, struct jvalue over, int64_t level)
{
    const struct jlist *items = filtered(r, n, j_iterate(r, over));
    struct jscope *outer = r->scope;
    const struct jvalue loop = loop_value(r, n, items, level);
    enum jflow flow = FLOW_NEXT;
    for (int64_t i = 0; i < items->count && flow != FLOW_BREAK; i++) {
        j_step(r, 0);
        loop.loop->index = i;
        r->scope = j_scope(r, outer);
        j_bind(r, "loop", loop);
        j_assign(r, n->a, items->item[i]);
        flow = j_exec(r, n->list);
    }
    if (!items->count && n->other) {
        r->scope = j_scope(r, outer);
        flow = j_exec(r, n->other);
        r->scope = outer;
        return flow; // an else belongs to the loop around it
    }
    r->scope = outer;
    return FLOW_NEXT;
}

struct jvalue j_run_loop(struct jrun *r, const struct jnode *n, struct jvalue items, int64_t level)
{
    struct jout o = {0}, *outer = r->out;
    r->out = &o;
    run_for(r, n, items, level);
    r->out = outer;
    return j_written(r, &o);
}

static void define_macro(struct jrun *r, const struct jnode *n)
{
    const struct jvalue macro = j_function(r, n->name, NULL, j_none());
    macro.function->node = n;
    macro.function->scope = r->scope;
    j_bind(r, n->name, macro);
}

static void call_block(struct jrun *r, const struct jnode *n)
{
    const struct jvalue caller = j_function(r, "caller", NULL, j_none());
    caller.function->node = n->b;
    caller.function->scope = r->scope;
    const struct jvalue f = j_eval(r, n->a->a);
    struct jargs a = j_arguments(r, n->a->list);
    const struct jvalue named = j_dict(r);
    for (int64_t i = 0; a.named && i < a.named->count; i++) {
        j_put(r, named.dict, a.named->pair[i].key, a.named->pair[i].value);
    }
    j_put(r, named.dict, j_literal(r, "caller"), caller);
    a.named = named.dict;
    j_print(r, r->out, j_call(r, f, &a));
}

// The body's text as the constant that the filters begin with. The nodes are shared by all renders, so
// the filters are run over a copy of the chain.
static struct jvalue through_filters(struct jrun *r, const struct jnode *n,
                                     const struct jnode *start, struct jvalue text)
{
    struct jnode copy = *n;
    struct jnode constant = *start;
    if (n == start) return text;
    constant.value = n->a == start ? text : through_filters(r, n->a, start, text);
    constant.next = NULL;
    copy.a = &constant;
    return j_eval(r, &copy);
}

// A block's text is where root's text ends now: as `transformers` finds it.
static void generation(struct jrun *r, const struct jnode *n)
{
    const struct jvalue text = j_capture(r, n->list);
    const size_t start = r->root.size;
    r->generated =
        j_grow(r, r->generated, r->n_generated, &r->generated_capacity, sizeof *r->generated);
    r->generated[r->n_generated++] = (struct jinja_range){start, start + text.text->size};
    j_write_text(r, r->out, text.text);
}

static enum jflow exec_if(struct jrun *r, const struct jnode *n)
{
    // elif is an if in the place of else
    return j_exec(r, j_truth(j_eval(r, n->a)) ? n->list : n->other);
}

static void exec_with(struct jrun *r, const struct jnode *n)
{
    struct jscope *outer = r->scope, *inner = j_scope(r, outer);
    for (const struct jnode *one = n->other; one; one = one->next) {
        r->scope = outer; // values do not see each other
        const struct jvalue v = j_eval(r, one->b);
        r->scope = inner;
        j_assign(r, one->a, v);
    }
    r->scope = inner;
}

static enum jflow exec_scoped(struct jrun *r, const struct jnode *n)
{
    struct jscope *outer = r->scope;
    if (n->kind == N_WITH) {
        exec_with(r, n);
    } else {
        r->scope = j_scope(r, outer);
    }
    const enum jflow flow = j_exec(r, n->list);
    r->scope = outer;
    return flow;
}

static enum jflow exec(struct jrun *r, const struct jnode *n)
{
    switch (n->kind) {
    case N_DATA:
        j_write_text(r, r->out, n->value.text);
        break;
    case N_PRINT:
        j_print(r, r->out, j_eval(r, n->a));
        break;
    case N_IF:
        return exec_if(r, n);
    case N_FOR:
        return run_for(r, n, j_eval(r, n->b), 0);
    case N_SET:
        j_assign(r, n->a, j_eval(r, n->b));
        break;
    case N_SET_BLOCK:
        j_assign(r, n->a, through_filters(r, n->c, n->b, j_capture(r, n->list)));
        break;
    case N_FILTER_BLOCK:
        j_print(r, r->out, through_filters(r, n->c, n->b, j_capture(r, n->list)));
        break;
    case N_MACRO:
        define_macro(r, n);
        break;
    case N_CALL_BLOCK:
        call_block(r, n);
        break;
    case N_WITH:
    case N_BLOCK:
        return exec_scoped(r, n);
    case N_GENERATION:
        generation(r, n);
        break;
    case N_BREAK:
        return FLOW_BREAK;
    case N_CONTINUE:
        return FLOW_CONTINUE;
    default:
        j_fail(r, "an expression in the place of a statement");
    }
    return FLOW_NEXT;
}

enum jflow j_exec(struct jrun *r, const struct jnode *n)
{
    enum jflow flow = FLOW_NEXT;
    j_enter(r);
    for (; n && flow == FLOW_NEXT; n = n->next) {
        j_step(r, 0);
        r->line = n->line;
        flow = exec(r, n);
    }
    j_leave(r);
    return flow;
}
