// io/jinja_parts.h - what the interpreter's files share; nobody else includes it. All values, nodes and
// texts of one parse or render lie in that run's arena and are let go together, so a failure may leave
// from anywhere (longjmp, in this module only): no function below returns an error.
#pragma once
#include "base/error.h"
#include "io/jinja.h"

#include <setjmp.h>

enum jtype {
    J_UNDEFINED,
    J_NONE,
    J_BOOL,
    J_INT,
    J_FLOAT,
    J_TEXT,
    J_LIST, // tuples, views and iterators, too
    J_DICT, // namespaces, too
    J_FUNCTION,
    J_LOOP
};

// Texts are UTF-8 and immutable; parts of one share its bytes.
struct jtext {
    const char *bytes;
    size_t size;
    const uint16_t *origin; // of each byte; NULL: all are `from`
    uint16_t from;
};

struct jvalue {
    enum jtype type;
    union {
        bool truth;
        int64_t integer;
        double real;
        const struct jtext *text;
        struct jlist *list;
        struct jdict *dict;
        struct jfunction *function;
        struct jloop *loop;
        const struct jhint *hint; // J_UNDEFINED
    };
};

// What an error says when an undefined value is used.
struct jhint {
    const char *name, *owner; // owner NULL: a variable
    const char *message;      // instead of both
};

enum jlist_kind {
    LIST_PLAIN,
    LIST_TUPLE,
    LIST_KEYS,
    LIST_VALUES,
    LIST_ITEMS,
    LIST_RANGE,
    LIST_ITERATOR
};
struct jlist {
    enum jlist_kind kind;
    struct jvalue *item;
    int64_t count, capacity;
};

struct jpair {
    struct jvalue key, value;
};
struct jdict {
    struct jpair *pair; // in the order of insertion
    int64_t count, capacity;
    bool namespace;
};

struct jargs {
    const struct jvalue *item;
    int64_t count;
    const struct jdict *named; // NULL: none
};

struct jrun;
typedef struct jvalue (*jcall)(struct jrun *r, struct jvalue self, const struct jargs *a);

struct jfunction {
    const char *name;
    jcall call;               // NULL: a macro, or `loop` of a recursive loop
    struct jvalue self;       // of a method
    const struct jnode *node; // macro, call block, recursive loop
    struct jscope *scope;     // in which it was defined
    struct jvalue caller;     // of a macro under {% call %}
    int64_t level;            // recursive loop: of the loop that called
};

struct jloop {
    const struct jlist *items;
    int64_t index, level;
    struct jvalue last_changed;
    struct jvalue call; // recursive: the function
};

// ---- the run: jinja.c

struct jbinding {
    const char *name;
    struct jvalue value;
    struct jbinding *next;
};
struct jscope {
    struct jscope *parent;
    struct jbinding *first;
};

// A text being written. The origin of each byte is kept from the moment two differ.
struct jout {
    char *bytes;
    uint16_t *origin;
    uint16_t from;
    size_t size, capacity;
};

struct jrun {
    struct jchunk *chunk;
    size_t memory; // bytes taken
    bool no_memory;
    struct jinja_limits limits;
    int64_t steps, depth;
    const char *name;
    int line;
    int64_t now;
    struct error *err;
    jmp_buf fail;
    struct jout *out, root; // out: where text goes now
    struct jscope *scope, *globals;
    struct jinja_range *generated;
    int64_t n_generated, generated_capacity;
};

// Runs body; false where it failed, with the reason in r->err.
bool j_guard(struct jrun *r, void (*body)(struct jrun *r, void *user), void *user);
void j_close(struct jrun *r); // the arena
_Noreturn void j_fail(struct jrun *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void *j_alloc(struct jrun *r, size_t bytes); // zeroed
// Room for one more element; the array may move.
void *j_grow(struct jrun *r, void *array, int64_t count, int64_t *capacity, size_t size);
char *j_copy(struct jrun *r, const char *bytes, size_t size); // NUL-terminated
void j_step(struct jrun *r, size_t bytes); // one step, and those of so many bytes
void j_enter(struct jrun *r);
void j_leave(struct jrun *r);

// ---- values: jinja_value.c

struct jvalue j_none(void);
struct jvalue j_bool(bool truth);
struct jvalue j_int(int64_t integer);
struct jvalue j_float(double real);
struct jvalue j_text(struct jrun *r, const char *bytes, size_t size, uint16_t from);
struct jvalue j_literal(struct jrun *r, const char *text); // NUL-terminated, of the template
struct jvalue j_list(struct jrun *r, enum jlist_kind kind);
struct jvalue j_pair(struct jrun *r, struct jvalue a, struct jvalue b); // a tuple
void j_push(struct jrun *r, struct jvalue list, struct jvalue item);
struct jvalue j_dict(struct jrun *r);
void j_put(struct jrun *r, struct jdict *d, struct jvalue key, struct jvalue value);
const struct jvalue *j_find(struct jrun *r, const struct jdict *d, struct jvalue key); // NULL: none
const struct jvalue *j_find_name(const struct jdict *d, const char *name);
struct jvalue j_undefined(struct jrun *r, const char *name, const char *owner, const char *message);
struct jvalue j_function(struct jrun *r, const char *name, jcall call, struct jvalue self);
const char *j_type_name(struct jvalue v); // as Python names it
_Noreturn void j_fail_undefined(struct jrun *r, struct jvalue v);
void j_defined(struct jrun *r, struct jvalue v); // fails where it is not
bool j_truth(struct jvalue v);
bool j_is(struct jvalue v, const char *text);
bool j_number(struct jvalue v); // bool, int or float
double j_real(struct jvalue v); // of a number
bool j_equal(struct jrun *r, struct jvalue a, struct jvalue b);
int j_compare(struct jrun *r, struct jvalue a, struct jvalue b, const char *op);
// The elements of anything that can be iterated over; an iterator is empty afterwards.
const struct jlist *j_iterate(struct jrun *r, struct jvalue v);
int64_t j_length(struct jrun *r, struct jvalue v);
bool j_contains(struct jrun *r, struct jvalue container, struct jvalue item);
struct jvalue j_from_json(struct jrun *r, const json_t *v, uint16_t from);
struct jvalue j_messages(struct jrun *r, const json_t *v);

// Arguments by place or name; `fallback` where neither is given.
struct jvalue j_arg(const struct jargs *a, int64_t i, const char *name, struct jvalue fallback);
bool j_has_arg(const struct jargs *a, int64_t i, const char *name);
int64_t j_int_arg(struct jrun *r, const struct jargs *a, int64_t i, const char *name,
                  int64_t fallback);

// ---- text: jinja_text.c, jinja_print.c

void j_write(struct jrun *r, struct jout *o, const char *bytes, size_t size, uint16_t from);
void j_write_text(struct jrun *r, struct jout *o, const struct jtext *t);
void j_write_part(struct jrun *r, struct jout *o, const struct jtext *t, size_t start, size_t end);
void j_puts(struct jrun *r, struct jout *o, const char *text);
struct jvalue j_written(struct jrun *r, const struct jout *o);
struct jvalue j_part(struct jrun *r, const struct jtext *t, size_t start, size_t end);
uint16_t j_origin(const struct jtext *t, size_t at); // 0 beyond the end
int64_t j_characters(const struct jtext *t);
size_t j_offset(const struct jtext *t, int64_t characters);  // in bytes; at most the size
size_t j_next(const struct jtext *t, size_t at, int32_t *c); // where the next character begins
bool j_is_space(int32_t c);                                  // as str.isspace
struct jvalue j_strip(struct jrun *r, const struct jtext *t, const struct jtext *set, bool left,
                      bool right);
// Where `what` stands in t at or after `at`; SIZE_MAX: nowhere.
size_t j_search(struct jrun *r, const struct jtext *t, const struct jtext *what, size_t at);
enum jcase { CASE_UPPER, CASE_LOWER, CASE_CAPITAL, CASE_TITLE, CASE_SWAP };
struct jvalue j_case(struct jrun *r, const struct jtext *t, enum jcase what);

const struct jtext *j_str(struct jrun *r, struct jvalue v);    // str(v)
void j_print(struct jrun *r, struct jout *o, struct jvalue v); // its str()
void j_repr(struct jrun *r, struct jout *o, struct jvalue v);
void j_float_text(char out[40], double x); // repr of a float
struct jvalue j_tojson(struct jrun *r, struct jvalue v, const struct jargs *a);
struct jvalue j_format_percent(struct jrun *r, const struct jtext *t, const struct jvalue *arg,
                               int64_t n);

// ---- tokens and nodes: jinja_lex.c, jinja_parse.c, jinja_parse_expr.c

enum jtoken_kind {
    T_END,
    T_DATA,
    T_PRINT_BEGIN,
    T_PRINT_END,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_NAME,
    T_TEXT,
    T_INT,
    T_FLOAT,
    T_OPERATOR
};
struct jtoken {
    enum jtoken_kind kind;
    int line;
    const char *text; // NUL-terminated: a name, an operator
    struct jvalue value;
};
struct jtoken *j_lex(struct jrun *r, const char *source, size_t size); // ends in T_END

enum jnode_kind {
    N_DATA, // statements
    N_PRINT,
    N_IF,
    N_FOR,
    N_SET,
    N_SET_BLOCK,
    N_MACRO,
    N_CALL_BLOCK,
    N_FILTER_BLOCK,
    N_WITH,
    N_BLOCK,
    N_GENERATION,
    N_BREAK,
    N_CONTINUE,
    N_CONSTANT, // expressions
    N_NAME,
    N_MEMBER, // of a tuple that is assigned to: a.b
    N_ATTRIBUTE,
    N_ITEM,
    N_SLICE,
    N_LIST,
    N_TUPLE,
    N_DICT,
    N_CALL,
    N_FILTER,
    N_TEST,
    N_UNARY,
    N_BINARY,
    N_COMPARE,
    N_AND,
    N_OR,
    N_NOT,
    N_CONDITION,
    N_CONCAT,
    N_ARGUMENT // of a call: name and value; name "*" and "**" unpack
};
enum jop {
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOORDIV,
    OP_MOD,
    OP_POW,
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_IN,
    OP_NOT_IN
};

// What a, b, c and the lists are is said where a kind is made (jinja_parse*.c).
struct jnode {
    enum jnode_kind kind;
    enum jop op;
    int line;
    const char *name;
    struct jvalue value;
    struct jnode *a, *b, *c;
    struct jnode *list, *other; // first of each; the rest through `next`
    struct jnode *next;
    bool recursive, varargs, kwargs, caller;
};

struct jparser {
    struct jrun *r;
    struct jtoken *at;
    int soft; // under a condition: unknown filters and tests fail when they run, as in jinja2
    const struct jnode *unknown; // a filter or test that is none, and not under a condition
    int loops;                   // around the statement
    struct jnode *macro;         // innermost
    bool generation;             // seen
};
struct jnode *j_node(struct jparser *p, enum jnode_kind kind);
bool j_at(const struct jparser *p, enum jtoken_kind kind, const char *text); // text NULL: any
bool j_accept(struct jparser *p, enum jtoken_kind kind, const char *text);
void j_expect(struct jparser *p, enum jtoken_kind kind, const char *text, const char *what);
_Noreturn void j_unexpected(struct jparser *p, const char *expected);
const char *j_name(struct jparser *p, const char *what);
struct jnode *j_parse_expression(struct jparser *p,
                                 bool condition); // condition: a if b else c, too
struct jnode *j_parse_tuple(struct jparser *p, bool condition, const char *end);
struct jnode *j_parse_unary(struct jparser *p, bool filters);
void j_parse_arguments(struct jparser *p, struct jnode *into); // to its `list`, behind "("
struct jnode *j_parse_filter(struct jparser *p, struct jnode *in);
struct jnode *j_parse_statements(struct jparser *p, const char *const *ends); // up to {% END

// ---- evaluation: jinja_eval.c, jinja_exec.c, jinja_ops.c, jinja_call.c

enum jflow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE };
struct jvalue j_eval(struct jrun *r, const struct jnode *n);
enum jflow j_exec(struct jrun *r, const struct jnode *n); // n and all after it
struct jvalue j_lookup(struct jrun *r, const char *name);
void j_bind(struct jrun *r, const char *name, struct jvalue value); // in the innermost scope
struct jscope *j_scope(struct jrun *r, struct jscope *parent);
struct jvalue j_capture(struct jrun *r, const struct jnode *body); // what it writes
struct jvalue j_run_loop(struct jrun *r, const struct jnode *n, struct jvalue items, int64_t level);
void j_assign(struct jrun *r, const struct jnode *target, struct jvalue value);

struct jvalue j_binary(struct jrun *r, enum jop op, struct jvalue a, struct jvalue b);
struct jvalue j_attribute(struct jrun *r, struct jvalue v, const char *name);
struct jvalue j_item(struct jrun *r, struct jvalue v, struct jvalue key);
struct jvalue j_slice(struct jrun *r, struct jvalue v, struct jvalue start, struct jvalue stop,
                      struct jvalue step);

struct jargs j_arguments(struct jrun *r, const struct jnode *list);
struct jvalue j_call(struct jrun *r, struct jvalue f, const struct jargs *a);
struct jvalue j_call_macro(struct jrun *r, const struct jfunction *f, const struct jargs *a);
void j_open_globals(struct jrun *r);

// ---- the tables: jinja_filter.c, jinja_filter_list.c, jinja_test.c, jinja_method.c

struct jnamed {
    const char *name;
    jcall call;
    int most; // arguments
};
extern const struct jnamed j_filters[], j_list_filters[], j_tests[],
    j_text_methods[];                                 // name NULL ends
const struct jnamed *j_find_filter(const char *name); // NULL: none
const struct jnamed *j_find_test(const char *name);
struct jvalue j_apply(struct jrun *r, const struct jnamed *f, const char *kind, struct jvalue in,
                      const struct jargs *a);
struct jvalue j_method(struct jrun *r, struct jvalue v, const char *name); // J_UNDEFINED: none such
