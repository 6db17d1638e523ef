// io/model_template_parts.h - what the two files of the model's own template share; nobody else includes it.
#pragma once
#include "io/jinja.h"
#include "io/model_template.h"

struct model_template {
    struct jinja *usual, *with_tools; // with_tools NULL: the usual one
    char *names;                      // of the templates, where none is the default
    json_t *tokens; // {"bos_token": "<s>", ...}, as the tokenizer's files have them
    bool *written;  // tokenizer_written
    int64_t now;    // for strftime_now
    bool told_changed, told_missing; // warnings that were given
};

// One conversation on its way through the template.
struct turns {
    struct model_template *t;
    const struct jinja *template;
    const struct message *message;
    int64_t n;
    json_t *json; // the messages
    const json_t *conversation;
};

// Renders the first `count` turns.
bool turns_render(const struct turns *c, int64_t count, bool generate, struct jinja_text *out,
                  struct error *err);

struct region { // an assistant's words and what closes them, in bytes of the text
    size_t start, end;
    int64_t message;
};
struct regions {
    struct region *at; // in order, apart from each other
    int64_t count, capacity;
};
bool regions_find(struct regions *out, const struct turns *c, const struct jinja_text *text,
                  struct error *err);
