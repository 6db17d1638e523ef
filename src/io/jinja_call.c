// io/jinja_call.c - calls: arguments, macros, and the functions that every template has.
#include "io/jinja_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static void unpack_named(struct jrun *r, struct jvalue named, struct jvalue from)
{
    if (from.type != J_DICT || from.dict->namespace)
        j_fail(r, "** expects a dict, found '%s'", j_type_name(from));
    for (int64_t i = 0; i < from.dict->count; i++) {
        const struct jpair *p = &from.dict->pair[i];
        if (p->key.type != J_TEXT) j_fail(r, "keywords must be strings");
        j_put(r, named.dict, p->key, p->value);
    }
}

struct jargs j_arguments(struct jrun *r, const struct jnode *list)
{
    struct jargs a = {0};
    if (!list) return a;
    const struct jvalue items = j_list(r, LIST_PLAIN);
    struct jvalue named = {0};
    for (const struct jnode *n = list; n; n = n->next) {
        const struct jvalue v = j_eval(r, n->a);
        if (!n->name) {
            j_push(r, items, v);
            continue;
        }
        if (strcmp(n->name, "*") == 0) {
            const struct jlist *more = j_iterate(r, v);
            for (int64_t i = 0; i < more->count; i++) {
                j_push(r, items, more->item[i]);
            }
            continue;
        }
        if (!named.dict) named = j_dict(r);
        if (strcmp(n->name, "**") == 0) {
            unpack_named(r, named, v);
        } else {
            j_put(r, named.dict, j_literal(r, n->name), v);
        }
    }
    a.item = items.list->item;
    a.count = items.list->count;
    a.named = named.dict;
    return a;
}

static void bind_parameters(struct jrun *r, const struct jfunction *f, const struct jargs *a,
                            bool *used)
{
    int64_t i = 0;
    for (const struct jnode *p = f->node->other; p; p = p->next, i++) {
        const struct jvalue *named = NULL;
        for (int64_t k = 0; a->named && k < a->named->count; k++) {
            if (!j_is(a->named->pair[k].key, p->name)) continue;
            named = &a->named->pair[k].value;
            used[k] = true;
        }
        if (named && i < a->count)
            j_fail(r, "macro '%.60s' got two values for '%.60s'", f->name, p->name);
        if (i < a->count) {
            j_bind(r, p->name, a->item[i]);
        } else if (named) {
            j_bind(r, p->name, *named);
        } else if (p->a) {
            j_bind(r, p->name, j_eval(r, p->a));
        } else {
            j_bind(r, p->name, j_undefined(r, p->name, NULL, NULL));
        }
    }
    if (i < a->count && !f->node->varargs) {
        j_fail(r, "macro '%.60s' takes not more than %" PRId64 " argument(s)", f->name, i);
    }
    const struct jvalue rest = j_list(r, LIST_TUPLE);
    for (; i < a->count; i++) {
        j_push(r, rest, a->item[i]);
    }
    if (f->node->varargs) j_bind(r, "varargs", rest);
}

static void bind_rest(struct jrun *r, const struct jfunction *f, const struct jargs *a,
                      const bool *used)
{
    const struct jvalue rest = j_dict(r);
    bool caller = false;
    for (int64_t k = 0; a->named && k < a->named->count; k++) {
        const struct jpair *p = &a->named->pair[k];
        if (used[k]) continue;
        if (j_is(p->key, "caller") && f->node->caller) {
            j_bind(r, "caller", p->value);
            caller = true;
        } else if (f->node->kwargs) {
            j_put(r, rest.dict, p->key, p->value);
        } else {
            j_fail(r, "macro '%.60s' takes no keyword argument '%.*s'", f->name,
                   (int)(p->key.text->size < 60 ? p->key.text->size : 60), p->key.text->bytes);
        }
    }
    if (f->node->kwargs) j_bind(r, "kwargs", rest);
    if (f->node->caller && !caller)
        j_bind(r, "caller", j_undefined(r, "caller", NULL, "No caller defined"));
}

struct jvalue j_call_macro(struct jrun *r, const struct jfunction *f, const struct jargs *a)
{
    struct jscope *scope = r->scope;
    struct jout o = {0}, *outer = r->out;
    bool *used = j_alloc(r, a->named ? (size_t)a->named->count : 1);
    r->scope = j_scope(r, f->scope);
    bind_parameters(r, f, a, used);
    bind_rest(r, f, a, used);
    r->out = &o;
    j_exec(r, f->node->list);
    r->out = outer;
    r->scope = scope;
    return j_written(r, &o);
}

static struct jvalue call_loop(struct jrun *r, const struct jfunction *f, const struct jargs *a)
{
    struct jscope *scope = r->scope;
    if (a->count != 1) j_fail(r, "loop: expected one argument, found %" PRId64, a->count);
    r->scope = f->scope;
    const struct jvalue text = j_run_loop(r, f->node, a->item[0], f->level + 1);
    r->scope = scope;
    return text;
}

struct jvalue j_call(struct jrun *r, struct jvalue f, const struct jargs *a)
{
    j_defined(r, f);
    if (f.type == J_LOOP) {
        if (f.loop->call.type != J_FUNCTION) j_fail(r, "the loop is not marked as recursive");
        f = f.loop->call;
    }
    if (f.type != J_FUNCTION) j_fail(r, "'%s' object is not callable", j_type_name(f));
    j_enter(r);
    j_step(r, 0);
    struct jvalue v;
    if (f.function->call) {
        v = f.function->call(r, f.function->self, a);
    } else if (f.function->node->kind == N_FOR) {
        v = call_loop(r, f.function, a);
    } else {
        v = j_call_macro(r, f.function, a);
    }
    j_leave(r);
    return v;
}

// ---- functions

static struct jvalue raise_exception(struct jrun *r, struct jvalue self, const struct jargs *a)
{
    (void)self;
    const struct jtext *t = j_str(r, j_arg(a, 0, "message", j_literal(r, "")));
    j_fail(r, "%.*s", (int)(t->size < 600 ? t->size : 600), t->bytes);
}

static struct jvalue range(struct jrun *r, struct jvalue self, const struct jargs *a)
{
    enum { LONGEST = 100000 }; // the sandbox's own limit
    (void)self;
    if (a->count < 1 || a->count > 3)
        j_fail(r, "range: expected 1 to 3 arguments, found %" PRId64, a->count);
    const int64_t first = a->count > 1 ? j_int_arg(r, a, 0, "", 0) : 0;
    const int64_t end = j_int_arg(r, a, a->count > 1 ? 1 : 0, "", 0),
                  by = j_int_arg(r, a, 2, "", 1);
    if (!by) j_fail(r, "range() arg 3 must not be zero");
    const struct jvalue out = j_list(r, LIST_RANGE);
    for (int64_t i = first; by > 0 ? i < end : i > end;) {
        j_step(r, 0);
        j_push(r, out, j_int(i));
        if (out.list->count > LONGEST) j_fail(r, "range: more than %d numbers, the limit", LONGEST);
        if (__builtin_add_overflow(i, by, &i)) break;
    }
    return out;
}

static struct jvalue make_dict(struct jrun *r, struct jvalue self, const struct jargs *a)
{
    (void)self;
    const struct jvalue out = j_dict(r);
    if (a->count > 1) j_fail(r, "dict expected at most 1 argument, got %" PRId64, a->count);
    if (a->count && a->item[0].type == J_DICT) {
        const struct jdict *from = a->item[0].dict;
        for (int64_t i = 0; i < from->count; i++) {
            j_put(r, out.dict, from->pair[i].key, from->pair[i].value);
        }
    } else if (a->count) {
        const struct jlist *pairs = j_iterate(r, a->item[0]);
        for (int64_t i = 0; i < pairs->count; i++) {
            const struct jlist *pair = j_iterate(r, pairs->item[i]);
            if (pair->count != 2)
                j_fail(r, "dict: an element of length %" PRId64 ", expected 2", pair->count);
            j_put(r, out.dict, pair->item[0], pair->item[1]);
        }
    }
    if (a->named) {
        for (int64_t i = 0; i < a->named->count; i++) {
            j_put(r, out.dict, a->named->pair[i].key, a->named->pair[i].value);
        }
    }
    return out;
}

static struct jvalue make_namespace(struct jrun *r, struct jvalue self, const struct jargs *a)
{
    const struct jvalue out = make_dict(r, self, a);
    for (int64_t i = 0; i < out.dict->count; i++) {
        const struct jvalue key = out.dict->pair[i].key;
        if (key.type == J_TEXT && key.text->size && *key.text->bytes == '_') {
            j_fail(r, "a namespace takes no name that starts with _");
        }
    }
    out.dict->namespace = true;
    return out;
}

static struct jvalue strftime_now(struct jrun *r, struct jvalue self, const struct jargs *a)
{
    char text[1000];
    (void)self;
    const struct jvalue format = j_arg(a, 0, "format", j_none());
    if (format.type != J_TEXT)
        j_fail(r, "strftime_now: expected a text, found '%s'", j_type_name(format));
    const time_t now = (time_t)r->now;
    struct tm parts;
    const char *pattern = j_copy(r, format.text->bytes, format.text->size);
    if (!localtime_r(&now, &parts)) j_fail(r, "strftime_now: the time is out of range");
    // A text that fits comes with its length; an empty one cannot be told from one that does not fit.
    const size_t n = *pattern ? strftime(text, sizeof text, pattern, &parts) : 0;
    return j_text(r, j_copy(r, text, n), n, 0);
}

void j_open_globals(struct jrun *r)
{
    static const struct {
        const char *name;
        jcall call;
    } known[] = {{"raise_exception", raise_exception},
                 {"range", range},
                 {"dict", make_dict},
                 {"namespace", make_namespace},
                 {"strftime_now", strftime_now}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        j_bind(r, known[i].name, j_function(r, known[i].name, known[i].call, j_none()));
    }
}
