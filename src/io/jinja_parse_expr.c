// io/jinja_parse_expr.c - expressions: jinja2's own grammar and precedence, level by level.
#include "io/jinja_parts.h"

#include <string.h>

static struct jnode *parse_condition_free(struct jparser *p); // `or` and what binds tighter

static struct jnode *binary(struct jparser *p, enum jnode_kind kind, enum jop op, struct jnode *a,
                            int line)
{
    struct jnode *n = j_node(p, kind);
    n->line = line;
    n->op = op;
    n->a = a;
    return n;
}

// The operator here, among those of a level; false: none.
struct level {
    const char *text;
    enum jop op;
};
static bool take(struct jparser *p, const struct level *level, enum jop *op)
{
    for (; level->text; level++) {
        if (!j_accept(p, T_OPERATOR, level->text)) continue;
        *op = level->op;
        return true;
    }
    return false;
}

static struct jnode *parse_power(struct jparser *p)
{
    static const struct level level[] = {{"**", OP_POW}, {NULL, OP_POW}};
    struct jnode *n = j_parse_unary(p, true);
    enum jop op;
    for (int line = p->at->line; take(p, level, &op); line = p->at->line) {
        n = binary(p, N_BINARY, op, n, line);
        n->b = j_parse_unary(p, true);
    }
    return n;
}

static struct jnode *parse_product(struct jparser *p)
{
    static const struct level level[] = {
        {"*", OP_MUL}, {"//", OP_FLOORDIV}, {"/", OP_DIV}, {"%", OP_MOD}, {NULL, OP_MUL}};
    struct jnode *n = parse_power(p);
    enum jop op;
    for (int line = p->at->line; take(p, level, &op); line = p->at->line) {
        n = binary(p, N_BINARY, op, n, line);
        n->b = parse_power(p);
    }
    return n;
}

// list: what ~ joins.
static struct jnode *parse_concat(struct jparser *p)
{
    struct jnode *first = parse_product(p);
    if (!j_at(p, T_OPERATOR, "~")) return first;
    struct jnode *n = j_node(p, N_CONCAT), **link = &first->next;
    n->list = first;
    while (j_accept(p, T_OPERATOR, "~")) {
        *link = parse_product(p);
        link = &(*link)->next;
    }
    return n;
}

static struct jnode *parse_sum(struct jparser *p)
{
    static const struct level level[] = {{"+", OP_ADD}, {"-", OP_SUB}, {NULL, OP_ADD}};
    struct jnode *n = parse_concat(p);
    enum jop op;
    for (int line = p->at->line; take(p, level, &op); line = p->at->line) {
        n = binary(p, N_BINARY, op, n, line);
        n->b = parse_concat(p);
    }
    return n;
}

static bool take_comparison(struct jparser *p, enum jop *op)
{
    static const struct level level[] = {{"==", OP_EQ}, {"!=", OP_NE}, {"<=", OP_LE}, {">=", OP_GE},
                                         {"<", OP_LT},  {">", OP_GT},  {NULL, OP_EQ}};
    if (take(p, level, op)) return true;
    *op = OP_IN;
    if (j_accept(p, T_NAME, "in")) return true;
    *op = OP_NOT_IN;
    if (!j_at(p, T_NAME, "not") || p->at[1].kind != T_NAME || strcmp(p->at[1].text, "in") != 0)
        return false;
    p->at += 2;
    return true;
}

// a: the first operand; list: the others, each with its operator in a node of its own (operand in a).
static struct jnode *parse_comparison(struct jparser *p)
{
    struct jnode *first = parse_sum(p);
    struct jnode *n = NULL, **link = NULL;
    enum jop op;
    for (int line = p->at->line; take_comparison(p, &op); line = p->at->line) {
        if (!n) {
            n = binary(p, N_COMPARE, op, first, line);
            link = &n->list;
        }
        *link = binary(p, N_COMPARE, op, parse_sum(p), line);
        link = &(*link)->next;
    }
    return n ? n : first;
}

static struct jnode *parse_not(struct jparser *p)
{
    if (!j_at(p, T_NAME, "not")) return parse_comparison(p);
    struct jnode *n = j_node(p, N_NOT);
    p->at++;
    j_enter(p->r);
    n->a = parse_not(p);
    j_leave(p->r);
    return n;
}

static struct jnode *parse_and(struct jparser *p)
{
    struct jnode *n = parse_not(p);
    for (int line = p->at->line; j_accept(p, T_NAME, "and"); line = p->at->line) {
        n = binary(p, N_AND, OP_EQ, n, line);
        n->b = parse_not(p);
    }
    return n;
}

static struct jnode *parse_condition_free(struct jparser *p)
{
    struct jnode *n = parse_and(p);
    for (int line = p->at->line; j_accept(p, T_NAME, "or"); line = p->at->line) {
        n = binary(p, N_OR, OP_EQ, n, line);
        n->b = parse_and(p);
    }
    return n;
}

struct jnode *j_parse_expression(struct jparser *p, bool condition)
{
    j_enter(p->r);
    j_step(p->r, 0);
    const struct jnode *unknown = p->unknown;
    struct jnode *n = parse_condition_free(p);
    while (condition && j_at(p, T_NAME, "if")) {
        struct jnode *whole = j_node(p, N_CONDITION); // a if b else c
        p->at++;
        p->unknown = unknown; // fails when it is run, as in jinja2
        p->soft++;
        whole->a = n;
        whole->b = parse_condition_free(p);
        if (j_accept(p, T_NAME, "else")) whole->c = j_parse_expression(p, true);
        p->soft--;
        n = whole;
    }
    j_leave(p->r);
    return n;
}

static bool ends_tuple(const struct jparser *p, const char *end)
{
    return p->at->kind == T_PRINT_END || p->at->kind == T_BLOCK_END || j_at(p, T_OPERATOR, ")") ||
           (end && j_at(p, T_NAME, end));
}

struct jnode *j_parse_tuple(struct jparser *p, bool condition, const char *end)
{
    struct jnode *first = NULL, **link = &first;
    const int line = p->at->line;
    bool tuple = false;
    while (!ends_tuple(p, end)) {
        *link = j_parse_expression(p, condition);
        link = &(*link)->next;
        if (!j_accept(p, T_OPERATOR, ",")) break;
        tuple = true;
    }
    if (!first) j_unexpected(p, "an expression");
    if (!tuple) return first;
    struct jnode *n = j_node(p, N_TUPLE);
    n->line = line;
    n->list = first;
    return n;
}

static struct jnode *constant(struct jparser *p, struct jvalue v)
{
    struct jnode *n = j_node(p, N_CONSTANT);
    n->value = v;
    return n;
}

static struct jnode *parse_name(struct jparser *p)
{
    static const struct {
        const char *name;
        enum jtype type;
        bool truth;
    } constants[] = {{"true", J_BOOL, true}, {"false", J_BOOL, false}, {"none", J_NONE, false},
                     {"True", J_BOOL, true}, {"False", J_BOOL, false}, {"None", J_NONE, false}};
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
        if (strcmp(p->at->text, constants[i].name) != 0) continue;
        struct jnode *n =
            constant(p, constants[i].type == J_NONE ? j_none() : j_bool(constants[i].truth));
        p->at++;
        return n;
    }
    struct jnode *n = j_node(p, N_NAME);
    n->name = p->at++->text;
    if (p->macro && strcmp(n->name, "varargs") == 0) p->macro->varargs = true;
    if (p->macro && strcmp(n->name, "kwargs") == 0) p->macro->kwargs = true;
    if (p->macro && strcmp(n->name, "caller") == 0) p->macro->caller = true;
    return n;
}

// Texts side by side are one.
static struct jnode *parse_text(struct jparser *p)
{
    struct jnode *n = constant(p, p->at++->value);
    if (!j_at(p, T_TEXT, NULL)) return n;
    struct jout o = {0};
    j_write_text(p->r, &o, n->value.text);
    while (j_at(p, T_TEXT, NULL)) {
        j_write_text(p->r, &o, p->at++->value.text);
    }
    n->value = j_written(p->r, &o);
    return n;
}

// list: the elements; of a dict each an N_ARGUMENT with key in a and value in b.
static struct jnode *parse_display(struct jparser *p, enum jnode_kind kind, const char *close)
{
    struct jnode *n = j_node(p, kind), **link = &n->list;
    p->at++;
    while (!j_accept(p, T_OPERATOR, close)) {
        if (n->list) j_expect(p, T_OPERATOR, ",", "','");
        if (n->list && j_accept(p, T_OPERATOR, close)) break;
        struct jnode *item = j_parse_expression(p, true);
        if (kind == N_DICT) {
            struct jnode *pair = j_node(p, N_ARGUMENT);
            pair->a = item;
            j_expect(p, T_OPERATOR, ":", "':'");
            pair->b = j_parse_expression(p, true);
            item = pair;
        }
        *link = item;
        link = &item->next;
    }
    return n;
}

static struct jnode *parse_primary(struct jparser *p)
{
    p->r->line = p->at->line;
    if (j_at(p, T_NAME, NULL)) return parse_name(p);
    if (j_at(p, T_TEXT, NULL)) return parse_text(p);
    if (j_at(p, T_INT, NULL) || j_at(p, T_FLOAT, NULL)) return constant(p, p->at++->value);
    if (j_at(p, T_OPERATOR, "[")) return parse_display(p, N_LIST, "]");
    if (j_at(p, T_OPERATOR, "{")) return parse_display(p, N_DICT, "}");
    if (!j_accept(p, T_OPERATOR, "(")) j_unexpected(p, "an expression");
    if (j_accept(p, T_OPERATOR, ")")) return j_node(p, N_TUPLE);
    struct jnode *n = j_parse_tuple(p, true, NULL);
    j_expect(p, T_OPERATOR, ")", "')'");
    return n;
}

// One index, or a:b:c (absent parts NULL).
static struct jnode *parse_subscript(struct jparser *p)
{
    struct jnode *part[3] = {NULL};
    int n = 0;
    const int line = p->at->line;
    if (!j_at(p, T_OPERATOR, ":")) part[0] = j_parse_expression(p, true);
    if (!j_at(p, T_OPERATOR, ":")) return part[0];
    while (n < 2 && j_accept(p, T_OPERATOR, ":")) {
        n++;
        if (!j_at(p, T_OPERATOR, ":") && !j_at(p, T_OPERATOR, "]") && !j_at(p, T_OPERATOR, ",")) {
            part[n] = j_parse_expression(p, true);
        }
    }
    struct jnode *slice = j_node(p, N_SLICE);
    slice->line = line;
    slice->a = part[0];
    slice->b = part[1];
    slice->c = part[2];
    return slice;
}

// a: the value; b: the index or slice.
static struct jnode *parse_brackets(struct jparser *p, struct jnode *a)
{
    struct jnode *n = j_node(p, N_ITEM), *first = NULL, **link = &first;
    bool tuple = false;
    p->at++;
    n->a = a;
    while (!j_accept(p, T_OPERATOR, "]")) {
        if (first) j_expect(p, T_OPERATOR, ",", "']'");
        tuple = first != NULL;
        *link = parse_subscript(p);
        link = &(*link)->next;
    }
    if (!first) j_unexpected(p, "an index");
    n->b = first;
    if (!tuple) return n;
    n->b = j_node(p, N_TUPLE);
    n->b->list = first;
    return n;
}

// a: the value; name.
static struct jnode *parse_dot(struct jparser *p, struct jnode *a)
{
    struct jnode *n = j_node(p, N_ATTRIBUTE);
    p->at++;
    n->a = a;
    if (j_at(p, T_INT, NULL)) {
        n->kind = N_ITEM;
        n->b = constant(p, p->at++->value);
    } else {
        n->name = j_name(p, "an attribute's name");
    }
    return n;
}

void j_parse_arguments(struct jparser *p, struct jnode *into)
{
    struct jnode **link = &into->list;
    bool named = false;
    p->at++;
    while (!j_accept(p, T_OPERATOR, ")")) {
        if (into->list) j_expect(p, T_OPERATOR, ",", "',' or ')'");
        if (into->list && j_accept(p, T_OPERATOR, ")")) break;
        struct jnode *n = j_node(p, N_ARGUMENT);
        if (j_accept(p, T_OPERATOR, "*")) {
            n->name = "*";
        } else if (j_accept(p, T_OPERATOR, "**")) {
            n->name = "**";
        } else if (j_at(p, T_NAME, NULL) && p->at[1].kind == T_OPERATOR &&
                   strcmp(p->at[1].text, "=") == 0) {
            n->name = p->at->text;
            p->at += 2;
        }
        if (!n->name && named) j_fail(p->r, "an argument without a name behind one with a name");
        named = named || (n->name && *n->name != '*');
        n->a = j_parse_expression(p, true);
        *link = n;
        link = &n->next;
    }
}

// a: the function.
static struct jnode *parse_call(struct jparser *p, struct jnode *a)
{
    struct jnode *n = j_node(p, N_CALL);
    n->a = a;
    j_parse_arguments(p, n);
    return n;
}

// "a.b" names too, of which none is known.
static const char *dotted(struct jparser *p, const char *what)
{
    const char *name = j_name(p, what);
    if (j_at(p, T_OPERATOR, ".")) j_fail(p->r, "no %s named '%.60s.'", what, name);
    return name;
}

struct jnode *j_parse_filter(struct jparser *p, struct jnode *in)
{
    struct jnode *n = j_node(p, N_FILTER);
    p->at++;
    n->line = p->at->line;
    n->name = dotted(p, "filter");
    p->r->line = n->line;
    if (!p->soft && !p->unknown && !j_find_filter(n->name)) p->unknown = n;
    n->a = in;
    if (j_at(p, T_OPERATOR, "(")) j_parse_arguments(p, n);
    return n;
}

static bool starts_argument(const struct jparser *p)
{
    const enum jtoken_kind k = p->at->kind;
    if (k == T_TEXT || k == T_INT || k == T_FLOAT) return true;
    if (k == T_OPERATOR) return strcmp(p->at->text, "[") == 0 || strcmp(p->at->text, "{") == 0;
    return k == T_NAME && strcmp(p->at->text, "else") != 0 && strcmp(p->at->text, "or") != 0 &&
           strcmp(p->at->text, "and") != 0;
}

static struct jnode *parse_postfix(struct jparser *p, struct jnode *n)
{
    int64_t links = 0; // a chain is a nest: the value is evaluated within
    for (;; links++) {
        j_enter(p->r);
        if (j_at(p, T_OPERATOR, ".")) {
            n = parse_dot(p, n);
        } else if (j_at(p, T_OPERATOR, "[")) {
            n = parse_brackets(p, n);
        } else if (j_at(p, T_OPERATOR, "(")) {
            n = parse_call(p, n);
        } else {
            break;
        }
    }
    p->r->depth -= links + 1;
    return n;
}

static struct jnode *parse_test(struct jparser *p, struct jnode *in)
{
    struct jnode *n = j_node(p, N_TEST);
    p->at++;
    const bool negated = j_accept(p, T_NAME, "not");
    n->name = dotted(p, "test");
    p->r->line = n->line;
    if (!p->soft && !p->unknown && !j_find_test(n->name)) p->unknown = n;
    n->a = in;
    if (j_at(p, T_OPERATOR, "(")) {
        j_parse_arguments(p, n);
    } else if (starts_argument(p)) {
        if (j_at(p, T_NAME, "is")) j_fail(p->r, "tests cannot be chained with is");
        n->list = j_node(p, N_ARGUMENT);
        n->list->a = parse_postfix(p, parse_primary(p));
    }
    if (!negated) return n;
    struct jnode *negation = j_node(p, N_NOT);
    negation->a = n;
    return negation;
}

static struct jnode *parse_filters(struct jparser *p, struct jnode *n)
{
    int64_t links = 0;
    for (;; links++) {
        j_enter(p->r);
        if (j_at(p, T_OPERATOR, "|")) {
            n = j_parse_filter(p, n);
        } else if (j_at(p, T_NAME, "is")) {
            n = parse_test(p, n);
        } else if (j_at(p, T_OPERATOR, "(")) {
            n = parse_call(p, n);
        } else {
            break;
        }
    }
    p->r->depth -= links + 1;
    return n;
}

// op OP_SUB or OP_ADD; a: the operand.
struct jnode *j_parse_unary(struct jparser *p, bool filters)
{
    struct jnode *n;
    j_enter(p->r);
    p->r->line = p->at->line;
    if (j_at(p, T_OPERATOR, "-") || j_at(p, T_OPERATOR, "+")) {
        n = j_node(p, N_UNARY);
        n->op = j_at(p, T_OPERATOR, "-") ? OP_SUB : OP_ADD;
        p->at++;
        n->a = j_parse_unary(p, false);
    } else {
        n = parse_primary(p);
    }
    n = parse_postfix(p, n);
    if (filters) n = parse_filters(p, n);
    j_leave(p->r);
    return n;
}
