// io/tokenizer.h - tokenizer.json as the `tokenizers` library reads it: normalizer, pre-tokenizer, BPE
// model, post-processor where it adds nothing, decoder, added tokens. What we do not implement is refused
// by name when the file is opened.
#pragma once
#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct tokenizer;

struct tokens { // a growable list of ids
    int32_t *id;
    int64_t count, capacity;
};
bool tokens_add(struct tokens *t, int32_t id); // false: no memory
void tokens_free(struct tokens *t);

// NULL and err on failure. `where` names the source in messages. Thread-safe to use once open: encode
// and decode keep no state but a per-call scratch.
struct tokenizer *tokenizer_parse(const char *json, size_t size, const char *where,
                                  struct error *err);
struct tokenizer *tokenizer_open(const char *model_dir,
                                 struct error *err); // model_dir/tokenizer.json
void tokenizer_close(struct tokenizer *t);

// Appends the ids of `text` (any bytes; invalid UTF-8 is an error). Special tokens in the text become
// their ids only with `special`; non-special added tokens always do, as in `tokenizers` with
// encode_special_tokens off/on. Nothing is added around the text.
bool tokenizer_encode(const struct tokenizer *t, const char *text, size_t size, bool special,
                      struct tokens *out, struct error *err);

// What is known of each byte of a text, for a conversation that is tokenized as a whole.
struct text_marks {
    const uint8_t *flags; // any; an id gets those of its bytes, or-ed
    const uint8_t *guard; // 1: no part of a special token; 2: nor of a token in `written`
    const bool *written;  // tokenizer_written
};
// tokenizer_encode with special tokens, but for what `guard` says; one byte of flags for each id. Where a
// normalizer or a word's start changes the text, an id at a boundary belongs to where the text up to the
// boundary, taken alone, would put it.
struct buf;
bool tokenizer_encode_marked(const struct tokenizer *t, const char *text, size_t size,
                             const struct text_marks *marks, struct tokens *out, struct buf *flags,
                             struct error *err);
// Which of the added tokens that are not special stand in the text (a template's source), in the order of
// the file: the caller frees it with mem_free. NULL: no memory.
bool *tokenizer_written(const struct tokenizer *t, const char *text);

// Appends the bytes of the ids; with skip_special the special tokens are left out. Invalid UTF-8 in the
// result is replaced by U+FFFD as `tokenizers` does. An id out of range is an error.
bool tokenizer_decode(const struct tokenizer *t, const int32_t *id, int64_t n, bool skip_special,
                      struct buf *out, struct error *err);

int64_t tokenizer_size(const struct tokenizer *t);                  // largest id + 1
int32_t tokenizer_id(const struct tokenizer *t, const char *token); // -1: no such token
const char *tokenizer_token(const struct tokenizer *t, int32_t id); // as in the file; NULL: none
