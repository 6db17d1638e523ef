// io/json.c - see json.h.
#include "io/json.h"

#include "base/file.h"
#include "base/mem.h"

#include <inttypes.h>
#include <malloc.h>
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

// jansson allocates through base/mem.h, so that a test can make its allocations fail too. What it
// allocated before is freed all the same: mem_free is free.
//
// Two things jansson (2.14) does not do when memory runs out. Its lexer goes on with a byte of a token lost, so that a
// value changes, an assertion fails or a string ends beyond its buffer: here an allocation that fails ends the
// parse where it is, and frees what the parse had allocated. And who builds a value of many parts does not look at
// each: a part that got no memory is remembered until the value's text, or json_whole, is asked for.
enum { SLOTS = 256 }; // of a small parse

// What one text may unfold into. Values cost memory by the piece: [{},{},...] takes 75 bytes for each of its own,
// so a file of a size that is allowed would take gigabytes. The largest vocabularies stay below.
// What an object and a list cost at least, and how deep the parser goes.
enum { MOST_MEMORY = 240 << 20, OBJECT = 200, LIST = 100, DEPTH = 2048 };

static _Thread_local struct {
    bool lost; // an allocation failed since the last text
    bool parsing;
    jmp_buf out_of_memory;
    void **slot; // what the parse holds: open addressing; NULL: never used
    size_t slots, used;
    void *first[SLOTS];
    size_t taken;  // bytes, by the parse
    bool too_much; // it asked for more than MOST_MEMORY
} memory;
static char freed; // stands where something was

// The slot that holds `sought`, from the place on where p belongs; else the next empty one.
static void **seek(void **slot, size_t slots, const void *p, const void *sought)
{
    size_t i = (uintptr_t)p / 16 * 0x9e3779b97f4a7c15U >> 20;
    while (slot[i % slots] && slot[i % slots] != sought) {
        i++;
    }
    return &slot[i % slots];
}

static bool hold(void *p)
{
    if (memory.used >= memory.slots / 2) {
        const size_t slots = memory.slots * 4;
        memory.taken += (slots - memory.slots) * sizeof *memory.slot;
        memory.too_much |= memory.taken > MOST_MEMORY;
        void **slot = memory.too_much ? NULL : mem_zalloc(slots, sizeof *slot);
        if (!slot) return false;
        memory.used = 0;
        for (size_t i = 0; i < memory.slots; i++) {
            if (!memory.slot[i] || memory.slot[i] == &freed) continue;
            *seek(slot, slots, memory.slot[i], NULL) = memory.slot[i];
            memory.used++;
        }
        if (memory.slot != memory.first) mem_free(memory.slot);
        memory.slot = slot;
        memory.slots = slots;
    }
    *seek(memory.slot, memory.slots, p, NULL) = p;
    memory.used++;
    return true;
}

static void *allocate(size_t bytes)
{
    memory.too_much |=
        memory.parsing && (bytes > MOST_MEMORY || memory.taken > MOST_MEMORY - bytes);
    void *p = memory.parsing && memory.too_much ? NULL : mem_alloc(bytes);
    if (p && !memory.parsing) return p;
    if (p && hold(p)) {
        memory.taken += malloc_usable_size(p);
        return p;
    }
    mem_free(p);
    memory.lost = true;
    if (memory.parsing) longjmp(memory.out_of_memory, 1);
    return NULL;
}

static void release(void *p)
{
    if (memory.parsing && p) {
        void **held = seek(memory.slot, memory.slots, p, p);
        if (*held) {
            *held = &freed;
            memory.taken -= malloc_usable_size(p);
        }
    }
    mem_free(p);
}

__attribute__((constructor)) static void use_our_memory(void)
{
    json_set_alloc_funcs(allocate, release);
}

static void end_parse(bool free_all)
{
    memory.parsing = false;
    for (size_t i = 0; free_all && i < memory.slots; i++) {
        if (memory.slot[i] != &freed) mem_free(memory.slot[i]);
    }
    if (memory.slot != memory.first) mem_free(memory.slot);
    memory.slot = NULL;
}

// By its brackets alone: is it beyond the limit? To find out by parsing takes a hundred times as long.
static bool opens_too_much(const char *text, size_t size)
{
    size_t bytes = 0, depth = 0;
    bool quoted = false;
    if (size <= MOST_MEMORY / OBJECT) return false; // a line of data is not gone through twice
    for (size_t i = 0; i < size && depth <= DEPTH; i++) {
        const char c = text[i];
        if (c == '"') {
            quoted = !quoted;
        } else if (quoted) {
            i += c == '\\';
        } else if (c == '{' || c == '[') {
            bytes += c == '{' ? OBJECT : LIST;
            depth++;
        } else if (c == '}' || c == ']') {
            depth -= depth > 0;
        }
    }
    return depth <= DEPTH && bytes > MOST_MEMORY; // too deep is the parser's to say
}

// NULL and e->line 0, e->text empty: out of memory.
static json_t *load(const char *text, size_t size, json_error_t *e)
{
    memset(memory.first, 0, sizeof memory.first);
    memory.slot = memory.first;
    memory.slots = SLOTS;
    memory.used = memory.taken = 0;
    memory.too_much = opens_too_much(text, size);
    if (memory.too_much) {
        memory.lost = true;
        *e = (json_error_t){0};
        return NULL;
    }
    if (setjmp(memory.out_of_memory)) {
        end_parse(true);
        *e = (json_error_t){0};
        return NULL;
    }
    memory.parsing = true;
    json_t *value = json_loadb(text, size, JSON_REJECT_DUPLICATES, e);
    end_parse(false);
    return value;
}

json_t *json_parse(const char *text, size_t size, const char *where, struct error *err)
{
    json_error_t e = {0};
    const bool before = memory.lost;
    memory.lost = false;
    json_t *value = load(text, size, &e);
    const bool lost = memory.lost;
    memory.lost = before;
    if (value) return value;
    if (lost && memory.too_much) {
        fail(err, "%s: %zu bytes of JSON that unfold into more than %d MiB of memory, the limit",
             where, size, MOST_MEMORY >> 20);
    } else if (lost) {
        fail(err, "%s: no memory to parse %zu bytes of JSON", where, size);
    } else if (e.line > 0) {
        fail(err, "%s: not valid JSON: line %d, column %d: %s", where, e.line, e.column, e.text);
    } else {
        fail(err, "%s: not valid JSON: %s", where, e.text);
    }
    return NULL;
}

void json_begin(void)
{
    memory.lost = false;
}

bool json_whole(void)
{
    const bool whole = !memory.lost;
    memory.lost = false;
    return whole;
}

void *json_buffer(size_t bytes)
{
    void *p = mem_alloc(bytes);
    if (!p) memory.lost = true;
    return p;
}

char *json_text(const json_t *value, size_t flags)
{
    char *text = value && !memory.lost ? json_dumps(value, flags) : NULL;
    if (json_whole()) return text;
    mem_free(text);
    return NULL;
}

json_t *json_parse_file(const char *path, size_t limit, struct error *err)
{
    char *text;
    size_t size;
    if (!file_read(&text, &size, path, limit, err)) return NULL;
    json_t *value = json_parse(text, size, path, err);
    mem_free(text);
    return value;
}

// What was found, for an error line; long strings are cut.
static const char *describe(char *out, size_t size, const json_t *value)
{
    switch (value ? json_typeof(value) : JSON_NULL) {
    case JSON_OBJECT:
        snprintf(out, size, "an object");
        break;
    case JSON_ARRAY:
        snprintf(out, size, "an array of %zu", json_array_size(value));
        break;
    case JSON_STRING:
        snprintf(out, size, "\"%.60s\"", json_string_value(value));
        break;
    case JSON_INTEGER:
        snprintf(out, size, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        snprintf(out, size, "%.17g", json_real_value(value));
        break;
    case JSON_TRUE:
        snprintf(out, size, "true");
        break;
    case JSON_FALSE:
        snprintf(out, size, "false");
        break;
    default:
        snprintf(out, size, value ? "null" : "nothing");
        break;
    }
    return out;
}

static bool wrong(const json_t *value, const char *key, const char *expected, const char *where,
                  struct error *err)
{
    char found[96];
    return fail(err, "%s: %s: found %s, expected %s", where, key,
                describe(found, sizeof found, value), expected);
}

// The value of a key, or NULL where it is missing or null. *ok is false where it had to be there.
static const json_t *get(bool *ok, const json_t *o, const char *key, bool required,
                         const char *expected, const char *where, struct error *err)
{
    const json_t *value = json_object_get(o, key);
    const bool absent = !value || json_is_null(value);
    *ok = !absent || !required || wrong(value, key, expected, where, err);
    return absent ? NULL : value;
}

bool json_get_int(const json_t *o, const char *key, int64_t min, int64_t max, bool required,
                  int64_t *out, const char *where, struct error *err)
{
    char expected[96];
    if (max == INT64_MAX) {
        snprintf(expected, sizeof expected, "an integer of at least %" PRId64, min);
    } else {
        snprintf(expected, sizeof expected, "an integer from %" PRId64 " to %" PRId64, min, max);
    }
    bool ok;
    const json_t *value = get(&ok, o, key, required, expected, where, err);
    if (!value) return ok;
    const int64_t n = json_integer_value(value);
    if (!json_is_integer(value) || n < min || n > max) {
        return wrong(value, key, expected, where, err);
    }
    *out = n;
    return true;
}

bool json_get_real(const json_t *o, const char *key, double min, double max, bool required,
                   double *out, const char *where, struct error *err)
{
    char expected[96];
    if (max > 1e300) {
        snprintf(expected, sizeof expected, "a number of at least %g", min);
    } else {
        snprintf(expected, sizeof expected, "a number from %g to %g", min, max);
    }
    bool ok;
    const json_t *value = get(&ok, o, key, required, expected, where, err);
    if (!value) return ok;
    const double x = json_number_value(value);
    if (!json_is_number(value) || !isfinite(x) || x < min || x > max) {
        return wrong(value, key, expected, where, err);
    }
    *out = x;
    return true;
}

bool json_get_bool(const json_t *o, const char *key, bool required, bool *out, const char *where,
                   struct error *err)
{
    bool ok;
    const json_t *value = get(&ok, o, key, required, "true or false", where, err);
    if (!value) return ok;
    if (!json_is_boolean(value)) return wrong(value, key, "true or false", where, err);
    *out = json_is_true(value);
    return true;
}

bool json_get_text(const json_t *o, const char *key, bool required, const char **out,
                   const char *where, struct error *err)
{
    bool ok;
    const json_t *value = get(&ok, o, key, required, "a string", where, err);
    if (!value) return ok;
    if (!json_is_string(value)) return wrong(value, key, "a string", where, err);
    *out = json_string_value(value);
    return true;
}

bool json_write_file(const char *path, const json_t *value, struct error *err)
{
    char *text = json_text(value, JSON_INDENT(2));
    if (!text) return fail(err, "%s: no memory for the JSON text, or a value JSON lacks", path);
    struct file_writer w;
    const bool ok = file_writer_open(&w, path, err) &&
                    file_writer_write(&w, text, strlen(text), err) &&
                    file_writer_write(&w, "\n", 1, err) && file_writer_commit(&w, err);
    if (!ok) file_writer_discard(&w);
    mem_free(text);
    return ok;
}
