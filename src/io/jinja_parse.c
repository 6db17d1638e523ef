// io/jinja_parse.c - statements: tokens into nodes. Expressions are in jinja_parse_expr.c.
#include "io/jinja_parts.h"

#include <string.h>

struct jnode *j_node(struct jparser *p, enum jnode_kind kind)
{
    struct jnode *n = j_alloc(p->r, sizeof *n);
    n->kind = kind;
    n->line = p->at->line;
    return n;
}

bool j_at(const struct jparser *p, enum jtoken_kind kind, const char *text)
{
    return p->at->kind == kind && (!text || strcmp(p->at->text, text) == 0);
}

bool j_accept(struct jparser *p, enum jtoken_kind kind, const char *text)
{
    if (!j_at(p, kind, text)) return false;
    p->at++;
    return true;
}

_Noreturn void j_unexpected(struct jparser *p, const char *expected)
{
    static const char *const names[] = {
        "the template's end", "text", "{{", "}}", "{%", "%}", NULL, "a text", NULL, NULL, NULL};
    const char *found = names[p->at->kind];
    p->r->line = p->at->line;
    if (found) j_fail(p->r, "found %s, expected %s", found, expected);
    j_fail(p->r, "found '%.60s', expected %s", p->at->text, expected);
}

void j_expect(struct jparser *p, enum jtoken_kind kind, const char *text, const char *what)
{
    if (!j_accept(p, kind, text)) j_unexpected(p, what);
}

const char *j_name(struct jparser *p, const char *what)
{
    if (!j_at(p, T_NAME, NULL)) j_unexpected(p, what);
    return p->at++->text;
}

static void end_block(struct jparser *p)
{
    j_expect(p, T_BLOCK_END, NULL, "%}");
}

// The body up to one of `ends`, whose name has then been read.
static struct jnode *body(struct jparser *p, const char *const *ends)
{
    struct jnode *first = j_parse_statements(p, ends);
    p->at += 2; // {% and the name
    return first;
}

static struct jnode *closed_body(struct jparser *p, const char *end)
{
    const char *const ends[] = {end, NULL};
    end_block(p);
    struct jnode *first = body(p, ends);
    end_block(p);
    return first;
}

// a: the condition; list: the body; other: what stands under elif and else.
static struct jnode *parse_if(struct jparser *p)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL}, *const last[] = {"endif",
                                                                                        NULL};
    struct jnode *first = NULL;
    struct jnode **link = &first;
    p->soft++;
    for (;;) {
        struct jnode *n = j_node(p, N_IF);
        *link = n;
        n->a = j_parse_tuple(p, false, NULL);
        end_block(p);
        n->list = body(p, ends);
        const char *end = p->at[-1].text;
        link = &n->other;
        if (strcmp(end, "elif") == 0) continue;
        if (strcmp(end, "else") == 0) {
            end_block(p);
            *link = body(p, last);
        }
        end_block(p);
        p->soft--;
        return first;
    }
}

// A name, a.b, or a tuple of these.
static struct jnode *parse_target(struct jparser *p, bool member)
{
    struct jnode *first = NULL, **link = &first;
    const int line = p->at->line;
    bool tuple = false;
    for (;;) {
        struct jnode *one;
        if (j_accept(p, T_OPERATOR, "(")) {
            one = parse_target(p, false);
            j_expect(p, T_OPERATOR, ")", "')'");
        } else {
            one = j_node(p, N_NAME);
            one->name = j_name(p, "a name to assign to");
            if (member && j_accept(p, T_OPERATOR, ".")) {
                one->kind = N_MEMBER;
                one->value = j_literal(p->r, j_name(p, "an attribute's name"));
            }
        }
        *link = one;
        link = &one->next;
        if (!j_accept(p, T_OPERATOR, ",")) break;
        tuple = true;
        if (!j_at(p, T_NAME, NULL) && !j_at(p, T_OPERATOR, "(")) break;
        if (j_at(p, T_NAME, "in")) break;
    }
    if (!tuple) return first;
    struct jnode *all = j_node(p, N_TUPLE);
    all->line = line;
    all->list = first;
    return all;
}

// a: the target; b: what is iterated over; c: the condition; list: the body; other: the else.
static struct jnode *parse_for(struct jparser *p)
{
    static const char *const ends[] = {"else", "endfor", NULL}, *const last[] = {"endfor", NULL};
    struct jnode *n = j_node(p, N_FOR);
    n->a = parse_target(p, false);
    j_expect(p, T_NAME, "in", "in");
    n->b = j_parse_tuple(p, false, "recursive");
    if (j_accept(p, T_NAME, "if")) n->c = j_parse_expression(p, true);
    n->recursive = j_accept(p, T_NAME, "recursive");
    end_block(p);
    p->loops++;
    n->list = body(p, ends);
    p->loops--;
    if (strcmp(p->at[-1].text, "else") == 0) {
        end_block(p);
        n->other = body(p, last);
    }
    end_block(p);
    return n;
}

// a: the target; b: the value, or list: the body, through the filters of `other`.
static struct jnode *parse_set(struct jparser *p)
{
    struct jnode *n = j_node(p, N_SET);
    n->a = parse_target(p, true);
    if (j_accept(p, T_OPERATOR, "=")) {
        n->b = j_parse_tuple(p, true, NULL);
        end_block(p);
        return n;
    }
    n->kind = N_SET_BLOCK;
    n->b = j_node(p, N_CONSTANT); // takes the value of the body
    struct jnode *value = n->b;
    while (j_at(p, T_OPERATOR, "|")) {
        value = j_parse_filter(p, value);
    }
    n->c = value;
    const int loops = p->loops;
    p->loops = 0; // a loop around it cannot be left from within
    n->list = closed_body(p, "endset");
    p->loops = loops;
    return n;
}

// (a, b=1): names in `other`, each with its default in a.
static struct jnode *parse_parameters(struct jparser *p)
{
    struct jnode *first = NULL, **link = &first;
    bool defaults = false;
    j_expect(p, T_OPERATOR, "(", "'('");
    while (!j_accept(p, T_OPERATOR, ")")) {
        if (first) j_expect(p, T_OPERATOR, ",", "',' or ')'");
        if (first && j_accept(p, T_OPERATOR, ")")) break;
        struct jnode *n = j_node(p, N_NAME);
        n->name = j_name(p, "a parameter's name");
        if (j_accept(p, T_OPERATOR, "=")) {
            n->a = j_parse_expression(p, true);
            defaults = true;
        } else if (defaults) {
            j_fail(p->r, "parameter %.60s has no default, but one before it has", n->name);
        }
        *link = n;
        link = &n->next;
    }
    return first;
}

// A body that runs on its own: no loop around it can be left from within.
static void parse_macro_body(struct jparser *p, struct jnode *n, const char *end)
{
    struct jnode *outer = p->macro;
    const int loops = p->loops;
    p->macro = n;
    p->loops = 0;
    n->list = closed_body(p, end);
    p->macro = outer;
    p->loops = loops;
}

static struct jnode *parse_macro(struct jparser *p)
{
    struct jnode *n = j_node(p, N_MACRO);
    n->name = j_name(p, "the macro's name");
    n->other = parse_parameters(p);
    parse_macro_body(p, n, "endmacro");
    return n;
}

// a: the call; b: the macro `caller`.
static struct jnode *parse_call_block(struct jparser *p)
{
    struct jnode *n = j_node(p, N_CALL_BLOCK);
    n->b = j_node(p, N_MACRO);
    n->b->name = "caller";
    if (j_at(p, T_OPERATOR, "(")) n->b->other = parse_parameters(p);
    n->a = j_parse_expression(p, true);
    if (n->a->kind != N_CALL) j_fail(p->r, "call: expected a call of a macro");
    parse_macro_body(p, n->b, "endcall");
    return n;
}

static struct jnode *parse_filter_block(struct jparser *p)
{
    struct jnode *n = j_node(p, N_FILTER_BLOCK);
    n->b = j_node(p, N_CONSTANT); // takes the value of the body
    p->at--;                      // so that "filter" is read in the place of "|"
    n->c = j_parse_filter(p, n->b);
    while (j_at(p, T_OPERATOR, "|")) {
        n->c = j_parse_filter(p, n->c);
    }
    const int loops = p->loops;
    p->loops = 0;
    n->list = closed_body(p, "endfilter");
    p->loops = loops;
    return n;
}

// other: names with their values in a.
static struct jnode *parse_with(struct jparser *p)
{
    struct jnode *n = j_node(p, N_WITH), **link = &n->other;
    while (!j_at(p, T_BLOCK_END, NULL)) {
        if (n->other) j_expect(p, T_OPERATOR, ",", "','");
        struct jnode *one = parse_target(p, false), *holder = j_node(p, N_SET);
        j_expect(p, T_OPERATOR, "=", "'='");
        holder->a = one;
        holder->b = j_parse_expression(p, true);
        *link = holder;
        link = &holder->next;
    }
    n->list = closed_body(p, "endwith");
    return n;
}

static struct jnode *parse_generation(struct jparser *p)
{
    struct jnode *n = j_node(p, N_GENERATION);
    const int loops = p->loops;
    p->generation = true;
    p->loops = 0;
    n->list = closed_body(p, "endgeneration");
    p->loops = loops;
    return n;
}

static struct jnode *parse_block(struct jparser *p)
{
    static const char *const ends[] = {"endblock", NULL};
    struct jnode *n = j_node(p, N_BLOCK);
    n->name = j_name(p, "the block's name");
    end_block(p);
    n->list = body(p, ends);
    j_accept(p, T_NAME, n->name);
    end_block(p);
    return n;
}

static struct jnode *parse_jump(struct jparser *p, enum jnode_kind kind)
{
    struct jnode *n = j_node(p, kind);
    if (!p->loops) j_fail(p->r, "%s outside of a loop", kind == N_BREAK ? "break" : "continue");
    end_block(p);
    return n;
}

static struct jnode *parse_statement(struct jparser *p)
{
    static const struct {
        const char *name;
        struct jnode *(*parse)(struct jparser *p);
    } known[] = {
        {"if", parse_if},       {"for", parse_for},         {"set", parse_set},
        {"macro", parse_macro}, {"call", parse_call_block}, {"filter", parse_filter_block},
        {"with", parse_with},   {"block", parse_block},     {"generation", parse_generation}};
    p->r->line = p->at->line;
    const char *name = j_name(p, "a statement's name");
    if (strcmp(name, "break") == 0) return parse_jump(p, N_BREAK);
    if (strcmp(name, "continue") == 0) return parse_jump(p, N_CONTINUE);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(name, known[i].name) == 0) return known[i].parse(p);
    }
    j_fail(p->r, "unknown statement '%.60s'", name);
}

static bool at_end(const struct jparser *p, const char *const *ends)
{
    for (size_t i = 0; ends[i]; i++) {
        if (p->at[1].kind == T_NAME && strcmp(p->at[1].text, ends[i]) == 0) return true;
    }
    return false;
}

// {{ a, b }}: in a.
static struct jnode *parse_print(struct jparser *p)
{
    struct jnode *n = j_node(p, N_PRINT);
    p->at++;
    n->a = j_parse_tuple(p, true, NULL);
    j_expect(p, T_PRINT_END, NULL, "}}");
    return n;
}

struct jnode *j_parse_statements(struct jparser *p, const char *const *ends)
{
    struct jnode *first = NULL, **link = &first;
    j_enter(p->r);
    for (;;) {
        j_step(p->r, 0);
        struct jnode *n = NULL;
        p->r->line = p->at->line;
        if (j_at(p, T_DATA, NULL)) {
            n = j_node(p, N_DATA);
            n->value = p->at++->value;
        } else if (j_at(p, T_PRINT_BEGIN, NULL)) {
            n = parse_print(p);
        } else if (j_at(p, T_BLOCK_BEGIN, NULL)) {
            if (at_end(p, ends)) break;
            p->at++;
            n = parse_statement(p);
        } else if (!ends[0] && j_at(p, T_END, NULL)) {
            break;
        } else {
            j_unexpected(p, ends[0] ? ends[0] : "a tag");
        }
        if (p->unknown) {
            p->r->line = p->unknown->line;
            j_fail(p->r, "no %s named '%.60s'", p->unknown->kind == N_FILTER ? "filter" : "test",
                   p->unknown->name);
        }
        *link = n;
        link = &n->next;
    }
    j_leave(p->r);
    return first;
}
