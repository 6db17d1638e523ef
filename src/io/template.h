// io/template.h - how a conversation becomes text and then ids: the model's own template, and named ones
// with the exact strings of their sources. docs/FORMATS.md, "Templates", has them in words.
#pragma once
#include "base/error.h"
#include "base/mem.h"
#include "io/tokenizer.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The model's own marks, as text ("" where it has none), and its own template.
struct special_tokens {
    char bos[128], eos[128];
    bool add_bos;        // the tokenizer starts every text with bos: plain and alpaca do then, too
    bool deepseek_marks; // the vocabulary has <｜User｜> and <｜Assistant｜> (DeepSeek since V2.5)
    struct model_template *own; // io/model_template.h; NULL: not opened, or the model has none
};
// From tokenizer_config.json, else special_tokens_map.json, else the ids in config.json. A token that
// the tokenizer does not have is an error; a missing file is not.
bool special_tokens_read(struct special_tokens *s, const char *model_dir, const struct tokenizer *t,
                         struct error *err);

struct message {
    const char *role; // "system", "user", "assistant"
    const char *content;
    int mask; // 1: masked, no loss on it (what `mask` means in the ESFT release); else nothing said
    const char *input; // the `input` beside an instruction; NULL or "": none
    bool verbatim;     // plain puts nothing between it and what follows (prompt/completion)
    const json_t
        *json; // the turn as the file has it, for the model's own template; NULL: the above
    const json_t
        *conversation; // first turn: the object around, with `tools` and the like; NULL: none
};

// A piece of rendered text.
struct segment {
    char *text;    // owned
    bool special;  // one token of the template, not text: becomes an id where the vocabulary has it
    bool answer;   // the words of an assistant or the token that closes them
    bool learn;    // carries loss
    uint8_t guard; // as in struct text_marks; where the text is tokenized as a whole
    int64_t message; // whose piece it is; -1: of the conversation (bos)
};
struct segments {
    struct segment *segment;
    int64_t count, capacity;
    bool whole;     // tokenized as one text in which special tokens are found (the model's own)
    bool unguarded; // in a user's words, too: set by who encodes
    const bool *written; // as in struct text_marks; of the model's template
};
void segments_free(struct segments *s);
void segments_clear(struct segments *s); // empties it, keeps the array

// Where the last answer's first segment is; count where there is none.
int64_t segments_last_answer(const struct segments *s);

// Appends the ids of segments [first, last) and one byte of `learn` per id (NULL: not wanted). Text is
// never searched for special tokens, so what a user wrote cannot become one. Neighbouring pieces of
// text are tokenized as one; a cut lies only beside special tokens, around answers and where `learn`
// changes. So the ids are those of the whole text, but for an answer that would merge with its header.
// Where segments are `whole` the text is tokenized as one, as `transformers` does: special tokens in it
// become ids where the template wrote them, in what users wrote only if `unguarded`.
bool segments_encode(const struct segments *s, int64_t first, int64_t last,
                     const struct tokenizer *t, struct tokens *ids, struct buf *learn,
                     struct error *err);

// The same of all segments, and how many ids stand before the last answer (-1: there is none).
bool segments_encode_all(const struct segments *s, const struct tokenizer *t, struct tokens *ids,
                         struct buf *learn, int64_t *prompt_count, struct error *err);

struct chat_template {
    const char *name, *help;
    bool own; // the model's: takes any role and any content
    // Appends the conversation's segments, learn = answer and not masked. add_generation_prompt: end
    // ready for an assistant's answer.
    bool (*render)(struct segments *out, const struct message *m, int64_t n,
                   const struct special_tokens *s, bool add_generation_prompt, struct error *err);
};

extern const struct chat_template
    *const chat_templates[]; // plain, alpaca, chatml, tulu, deepseek, raw, model; NULL
const struct chat_template *chat_template_find(const char *name, struct error *err);

// The ids of a conversation, ready for an answer: what `generate` starts from.
bool chat_encode(const struct chat_template *c, const struct message *m, int64_t n,
                 const struct special_tokens *s, const struct tokenizer *t, struct tokens *out,
                 struct error *err);
