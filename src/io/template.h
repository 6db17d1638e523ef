// io/template.h - how a conversation becomes text: named templates with the exact strings of their
// sources, until the model's own can be run. A turn is text and whether it is learnt.
#pragma once
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct message {
    const char *role; // "system", "user", "assistant"
    const char *content;
    int mask;         // -1: not given; 0: no loss; 1: loss
};

// A piece of rendered text. Pieces are tokenized one after another as one text; the learn flag covers
// the tokens whose text begins in the piece.
struct segment {
    char *text; // owned
    bool special; // text of the template itself: special tokens in it become ids
    bool learn;
};
struct segments {
    struct segment *segment;
    int64_t count, capacity;
};
void segments_free(struct segments *s);

struct chat_template {
    const char *name, *help;
    // Appends the conversation's segments. add_generation_prompt: end ready for an assistant's answer.
    // bos and eos: the model's tokens as text ("" where it has none).
    bool (*render)(struct segments *out, const struct message *m, int64_t n, const char *bos,
                   const char *eos, bool add_generation_prompt, struct error *err);
};

extern const struct chat_template *const chat_templates[]; // plain, alpaca, chatml, tulu, deepseek; NULL
const struct chat_template *chat_template_find(const char *name, struct error *err);
