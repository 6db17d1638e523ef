// io/jinja.c - a run of the interpreter: its arena, its limits, the way out of a failure; and the public
// functions, which wrap a parse or a render in one run.
#include "io/jinja.h"

#include "base/mem.h"
#include "io/jinja_parts.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const struct jinja_limits jinja_limits = {
    .steps = 10000000, .depth = 400, .output = 64 << 20, .memory = 512 << 20};

struct jchunk {
    struct jchunk *next;
    size_t used, size;
    _Alignas(16) char bytes[];
};

struct jinja {
    char *name;
    struct jchunk *chunk; // of the nodes
    struct jnode *body;
    struct jinja_limits limits;
    bool generation;
};

_Noreturn void j_fail(struct jrun *r, const char *fmt, ...)
{
    char what[800];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    for (char *c = what; *c; c++) {
        if ((unsigned char)*c < 0x20) *c = ' '; // an error is one line
    }
    fail(r->err, "%s:%d: %s", r->name, r->line, what);
    longjmp(r->fail, 1);
}

bool j_guard(struct jrun *r, void (*body)(struct jrun *r, void *user), void *user)
{
    if (setjmp(r->fail)) return false;
    body(r, user);
    return true;
}

void j_close(struct jrun *r)
{
    while (r->chunk) {
        struct jchunk *next = r->chunk->next;
        mem_free(r->chunk);
        r->chunk = next;
    }
}

static void add_chunk(struct jrun *r, size_t bytes)
{
    enum { CHUNK = 64 << 10 };
    const size_t size = bytes > CHUNK / 4 ? bytes : CHUNK;
    struct jchunk *chunk = mem_alloc(sizeof *chunk + size);
    r->no_memory = !chunk;
    if (!chunk) j_fail(r, "out of memory");
    chunk->used = 0;
    chunk->size = size;
    // A large piece has a chunk to itself, behind the one that still has room.
    if (r->chunk && size == bytes) {
        chunk->next = r->chunk->next;
        r->chunk->next = chunk;
    } else {
        chunk->next = r->chunk;
        r->chunk = chunk;
    }
}

void *j_alloc(struct jrun *r, size_t bytes)
{
    if (bytes > r->limits.memory || r->memory > r->limits.memory - bytes) {
        j_fail(r, "more than %zu bytes of memory, the limit", r->limits.memory);
    }
    const size_t size = (bytes + 15) / 16 * 16;
    r->memory += size;
    j_step(r, size);
    struct jchunk *chunk = r->chunk;
    if (!chunk || chunk->size - chunk->used < size) {
        add_chunk(r, size);
        chunk = r->chunk->size - r->chunk->used >= size ? r->chunk : r->chunk->next;
    }
    void *p = chunk->bytes + chunk->used;
    chunk->used += size;
    return memset(p, 0, size);
}

void *j_grow(struct jrun *r, void *array, int64_t count, int64_t *capacity, size_t size)
{
    if (count < *capacity) return array;
    const int64_t wanted = *capacity ? *capacity * 2 : 4;
    void *grown = j_alloc(r, (size_t)wanted * size);
    if (count) memcpy(grown, array, (size_t)count * size);
    *capacity = wanted;
    return grown;
}

char *j_copy(struct jrun *r, const char *bytes, size_t size)
{
    char *copy = j_alloc(r, size + 1);
    if (size) memcpy(copy, bytes, size);
    return copy;
}

void j_step(struct jrun *r, size_t bytes)
{
    r->steps += 1 + (int64_t)(bytes / 64);
    if (r->steps <= r->limits.steps) return;
    j_fail(r, "more than %" PRId64 " steps, the limit: does it loop for ever?", r->limits.steps);
}

void j_enter(struct jrun *r)
{
    if (++r->depth > r->limits.depth) {
        j_fail(r, "nested more than %" PRId64 " deep, the limit", r->limits.depth);
    }
}

void j_leave(struct jrun *r)
{
    r->depth--;
}

// ---- parsing

struct parse {
    const char *source;
    size_t size;
    struct jnode *body;
    bool generation;
};

static void run_parse(struct jrun *r, void *user)
{
    static const char *const none[] = {NULL};
    struct parse *job = user;
    struct jparser p = {.r = r};
    p.at = j_lex(r, job->source, job->size);
    job->body = j_parse_statements(&p, none);
    job->generation = p.generation;
}

struct jinja *jinja_parse(const char *name, const char *source, size_t size,
                          const struct jinja_limits *limits, struct error *err)
{
    struct jinja *t = mem_zalloc(1, sizeof *t);
    if (t) t->name = mem_strdup(name);
    if (!t || !t->name) {
        fail(err, "%s: out of memory", name);
        jinja_free(t);
        return NULL;
    }
    t->limits = limits ? *limits : jinja_limits;
    struct jrun r = {.limits = t->limits, .name = name, .line = 1, .err = err};
    struct parse job = {source, size, NULL, false};
    const bool ok = j_guard(&r, run_parse, &job);
    t->chunk = r.chunk;
    t->body = job.body;
    t->generation = job.generation;
    if (ok) return t;
    jinja_free(t);
    return NULL;
}

void jinja_free(struct jinja *t)
{
    if (!t) return;
    struct jrun r = {.chunk = t->chunk};
    j_close(&r);
    mem_free(t->name);
    mem_free(t);
}

bool jinja_has_generation(const struct jinja *t)
{
    return t->generation;
}

// ---- rendering

struct render {
    const struct jinja *t;
    const struct jinja_variable *variable;
    int64_t n;
};

static void run_render(struct jrun *r, void *user)
{
    const struct render *job = user;
    r->globals = j_scope(r, NULL);
    r->scope = r->globals;
    j_open_globals(r);
    r->scope = j_scope(r, r->globals); // what the template sets shadows what it was given
    for (int64_t i = 0; i < job->n; i++) {
        const struct jinja_variable *v = &job->variable[i];
        const struct jvalue value = v->origin == JINJA_FROM_MESSAGES
                                        ? j_messages(r, v->value)
                                        : j_from_json(r, v->value, v->origin ? JINJA_DATA : 0);
        j_bind(r, v->name, value);
    }
    r->out = &r->root;
    j_exec(r, job->t->body);
}

void jinja_text_free(struct jinja_text *t)
{
    mem_free(t->bytes);
    mem_free(t->origin);
    mem_free(t->generated);
    *t = (struct jinja_text){0};
}

static bool copy_out(struct jinja_text *out, const struct jrun *r)
{
    const size_t size = r->root.size;
    out->bytes = mem_alloc(size + 1);
    out->origin = mem_zalloc(size, sizeof *out->origin);
    out->generated = mem_zalloc((size_t)r->n_generated, sizeof *out->generated);
    if (!out->bytes || !out->origin || !out->generated) return false;
    if (size) memcpy(out->bytes, r->root.bytes, size);
    out->bytes[size] = 0;
    out->size = size;
    for (size_t i = 0; i < size; i++) {
        out->origin[i] = r->root.origin ? r->root.origin[i] : r->root.from;
    }
    out->n_generated = r->n_generated;
    for (int64_t i = 0; i < r->n_generated; i++) {
        out->generated[i] = r->generated[i];
    }
    return true;
}

bool jinja_render(const struct jinja *t, struct jinja_text *out, const struct jinja_variable *v,
                  int64_t n, int64_t now, struct error *err)
{
    jinja_text_free(out);
    struct jrun r = {.limits = t->limits, .name = t->name, .line = 1, .err = err, .now = now};
    struct render job = {t, v, n};
    bool ok = j_guard(&r, run_render, &job);
    if (ok && !copy_out(out, &r)) {
        jinja_text_free(out);
        r.no_memory = true;
        ok = fail(err, "%s: out of memory", t->name);
    }
    out->steps = r.steps;
    out->memory = r.memory;
    out->no_memory = r.no_memory;
    j_close(&r);
    return ok;
}
