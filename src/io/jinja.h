// io/jinja.h - a small Jinja: what chat templates of Hugging Face models use, as `transformers` runs them
// (sandboxed and immutable, trim_blocks, lstrip_blocks, loop controls, {% generation %}). A template is
// untrusted: steps, nesting, memory and output are bounded, nothing outside its variables can be reached,
// and whatever it does ends in a text or in one line of error. Knows nothing of tokens or models.
#pragma once
#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct jinja_limits {
    int64_t steps; // nodes evaluated, pieces of memory taken, and one for every 64 bytes touched
    int64_t depth; // of nesting, in the source and of calls
    size_t output, memory; // bytes
};
extern const struct jinja_limits jinja_limits; // what is used unless others are given

struct jinja;
// `name` stands in every error, with the line. limits NULL: the usual ones. NULL and err on failure.
struct jinja *jinja_parse(const char *name, const char *source, size_t size,
                          const struct jinja_limits *limits, struct error *err);
void jinja_free(struct jinja *t);
bool jinja_has_generation(const struct jinja *t); // {% generation %} stands somewhere in it

// Where bytes of the text come from. 0: written by the template, or a token of the model. k + 1: from
// element k of `messages` (its role is the template's). JINJA_DATA: from elsewhere in the data.
enum { JINJA_DATA = UINT16_MAX, JINJA_MESSAGES = UINT16_MAX - 1 };
enum jinja_origin { JINJA_FROM_TEMPLATE, JINJA_FROM_DATA, JINJA_FROM_MESSAGES };

struct jinja_variable {
    const char *name;
    const json_t *value; // NULL: none
    enum jinja_origin origin;
};

struct jinja_range {
    size_t start, end;
};
struct jinja_text {
    char *bytes; // NUL-terminated
    size_t size;
    uint16_t *origin;              // of each byte
    struct jinja_range *generated; // what {% generation %} blocks wrote, in order
    int64_t n_generated;
    int64_t steps; // what it took, after a failure, too
    size_t memory;
    bool no_memory; // why it failed, if it did
};
void jinja_text_free(struct jinja_text *t);

// now: seconds since 1970, for strftime_now (local time, as datetime.now()). Empties *out first.
bool jinja_render(const struct jinja *t, struct jinja_text *out, const struct jinja_variable *v,
                  int64_t n, int64_t now, struct error *err);
