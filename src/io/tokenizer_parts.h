// io/tokenizer_parts.h - what the tokenizer's files share; nobody else includes it. A text goes through
// added tokens (as written), normalizer, added tokens (normalized), pre-tokenizer steps, and BPE word
// by word. Everything in struct tokenizer is fixed once it is open; what changes during a call lies in
// that call's struct encoder.
#pragma once
#include "base/error.h"
#include "base/mem.h"
#include "io/tokenizer.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum { TOKENIZER_MAX_TEXT = 1 << 30, TOKENIZER_MAX_STEPS = 64, TOKENIZER_MAX_NESTING = 8 };

// ---- unicode: tokenizer_unicode.c, tokenizer_normal.c

size_t utf8_valid(const char *text, size_t size); // length of the longest valid prefix
uint32_t utf8_next(const char *text,
                   size_t *at);         // the code point at *at, which moves on; valid text
size_t utf8_put(char *out, uint32_t c); // 1 to 4 bytes
size_t utf8_before(const char *text, size_t at); // where the code point that ends at `at` starts
bool utf8_append_lossy(struct buf *b, const char *bytes, size_t n); // invalid parts as U+FFFD

bool unicode_is_space(uint32_t c); // White_Space
bool unicode_is_numeric(uint32_t c);
bool unicode_is_word(
    uint32_t c); // \w of the regex engine that `tokenizers` matches added tokens with

// Oniguruma and the system's PCRE2 know different versions of Unicode. Where a text has characters on
// which they may differ, *shadow is a copy in which each of those is replaced by one of the same length
// in UTF-8 whose class all versions agree on: matching on it gives the same places. Otherwise NULL.
bool unicode_shadow(char **shadow, const char *text, size_t size);

enum normal_form { NORMAL_C, NORMAL_D, NORMAL_KC, NORMAL_KD };
bool unicode_is_normal_c(const char *text, size_t size); // true only if sure
bool unicode_normalize(struct buf *out, const char *text, size_t size, enum normal_form form);

// ---- tables: tokenizer_vocab.c

// Text -> id. Keys are not copied.
struct string_map {
    struct string_entry {
        const char *key; // NULL: free
        uint32_t size;
        int32_t id;
    } * slot;
    uint64_t mask;
};
bool string_map_open(struct string_map *m, size_t count); // room for count keys
void string_map_close(struct string_map *m);
bool string_map_add(struct string_map *m, const char *key, size_t size,
                    int32_t id); // false: is there
int32_t string_map_find(const struct string_map *m, const char *key, size_t size); // -1: none

struct merge {
    uint64_t pair; // left id << 32 | right id
    uint32_t rank; // the lower is applied first
    int32_t id;    // of the joined token; -1: a free slot
};
struct merge_map {
    struct merge *slot;
    uint64_t mask;
};

struct bpe {
    int64_t size;              // ids are below this
    const char **token;        // by id, as in the file, NUL-terminated; NULL: a gap
    char *spellings;           // of byte-level words, which by_word's keys point into
    struct string_map by_text; // as in the file
    struct string_map by_word; // by the bytes of the text they stand for
    struct merge_map merges;
    bool *whole;          // by id: the word that spells this token encodes to it alone
    int32_t byte_id[256]; // byte_level: token of one byte; byte_fallback: "<0x41>"; -1: none
    int32_t unk;          // -1: none
    bool byte_level, byte_fallback, all_bytes, fuse_unk, ignore_merges;
};
bool bpe_open(struct bpe *b, json_t *model, bool byte_level, const char *where, struct error *err);
void bpe_close(struct bpe *b);
const struct merge *bpe_find_merge(const struct bpe *b, int32_t left, int32_t right); // NULL: none

// The byte-level alphabet: each byte as a printable character.
uint32_t byte_level_char(unsigned char byte);
int byte_level_byte(uint32_t c); // -1: not of the alphabet
bool byte_level_decode(char *out, size_t *n, const char *text,
                       size_t size); // false: another character

// ---- BPE: tokenizer_bpe.c

struct bpe_scratch {
    struct symbol *symbol;
    struct candidate *heap;
    size_t capacity; // symbols; the heap holds twice as many
};
bool bpe_encode(const struct bpe *b, struct bpe_scratch *s, const char *word, size_t size,
                struct tokens *out); // false: no memory
void bpe_scratch_free(struct bpe_scratch *s);

// ---- ranges of a text, used as a stack: each level appends its own and cuts them off when done

struct range {
    uint32_t start, end;
    int32_t id; // a token; -1: text. For splits 1 marks a match, 0 what lies between
};
struct ranges {
    struct range *at;
    int64_t count, capacity;
};
bool ranges_add(struct ranges *r, size_t start, size_t end, int32_t id);

// ---- added tokens: tokenizer_added.c

struct added_token {
    char *content, *pattern; // pattern: normalized where the token is; may be content itself
    int32_t id;
    bool special, normalized, lstrip, rstrip, single_word;
    bool skipped; // by a decode that skips special tokens
};
struct trie {
    struct trie_node *node;
    int64_t count, capacity;
    int32_t root[256]; // node of the first byte; -1: none
};
struct added {
    struct added_token *token;
    int64_t count;
    struct string_map by_text;
    struct trie as_written, normalized;
    int32_t *by_id; // index of the token with this id, -1: none; `size` of them
    int64_t size;
};
struct tokenizer;
bool added_open(struct added *a, json_t *list, const struct tokenizer *t, const char *where,
                struct error *err);
void added_close(struct added *a);
// Where bytes may not be part of certain tokens: as struct text_marks, for one stretch of text.
struct added_guard {
    const uint8_t *of; // of each byte; NULL: all are `all`
    uint8_t all;
    const bool *written; // by index of the token
};
// Appends to `out` ranges that cover the text: tokens and what lies between. guard NULL: none.
bool added_split(const struct added *a, bool normalized, const char *text, size_t size,
                 bool special, const struct added_guard *guard, struct ranges *out);

// ---- regular expressions: tokenizer_regex.c

// Compiles Oniguruma's syntax where PCRE2 means the same by it; the rest is refused by name.
pcre2_code *regex_open(const char *pattern, bool literal, const char *where, struct error *err);
struct matcher { // per call
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};
void matcher_close(struct matcher *m);
// All matches and what lies between them, covering the text.
bool regex_split(struct matcher *m, const pcre2_code *re, const char *text, size_t size,
                 struct ranges *out, struct error *err);

// ---- normalizer and pre-tokenizer: tokenizer_steps.c (parsing), tokenizer_split.c (running)

enum behavior { REMOVED, ISOLATED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS };
enum step_kind {
    STEP_NORMAL,  // a normal form
    STEP_PREPEND, // text in front, unless the piece is empty
    STEP_REPLACE, // matches by text
    STEP_PREFIX, // text in front of a piece that does not start with it; `first`: at the text's start only
    STEP_REGEX,   // split
    STEP_NUMBERS, // split at numeric characters
    STEP_SPACES,  // split at white space
    STEP_WORDS,   // split into runs of word characters, of other ones, and of white space
};
struct step {
    enum step_kind kind;
    enum normal_form form;
    pcre2_code *regex;
    char *text;
    enum behavior behavior;
    bool invert, first;
};
struct steps {
    struct step step[TOKENIZER_MAX_STEPS];
    int count;
};
bool normalizer_parse(struct steps *s, json_t *value, const char *where, struct error *err);
bool pre_tokenizer_parse(struct steps *s, bool *byte_level, json_t *value, const char *where,
                         struct error *err);
bool pattern_parse(pcre2_code **regex, json_t *value, const char *where, struct error *err);
void steps_close(struct steps *s);

enum decoder_kind {
    DECODE_BYTE_LEVEL,
    DECODE_BYTE_FALLBACK,
    DECODE_FUSE,
    DECODE_REPLACE,
    DECODE_STRIP,
    DECODE_METASPACE
};
struct decoder {
    enum decoder_kind kind;
    pcre2_code *regex;   // DECODE_REPLACE
    char *text;          // its replacement; DECODE_STRIP, DECODE_METASPACE: one character
    int64_t start, stop; // DECODE_STRIP: at most so many at either end
    bool drop_first;     // DECODE_METASPACE: the first token's are dropped, not turned into spaces
};
struct decoders {
    struct decoder step[TOKENIZER_MAX_STEPS];
    int count;
    bool given; // without a decoder tokens are joined by spaces
};
bool decoders_parse(struct decoders *d, json_t *value, const char *where, struct error *err);
void decoders_close(struct decoders *d);

struct tokenizer {
    struct bpe bpe;
    struct added added;
    struct steps normalizer, pre_tokenizer;
    struct decoders decoders;
    int64_t size;
};

// What one call of tokenizer_encode works with.
struct encoder {
    const struct tokenizer *t;
    struct tokens *out;
    struct error *err;
    struct ranges ranges;
    struct matcher matcher;
    struct bpe_scratch scratch;
    bool special;
    const struct text_marks *marks; // NULL: none
    const char *base;               // with marks: where their text begins
    struct buf *flags;              // with marks: of each id
};
// A stretch of `text` between added tokens as written: normalized, split, encoded.
bool stretch_encode(struct encoder *e, const char *text, size_t size, bool at_start);
// The flags of the ids from `before` on, which [start, end) of the marked text became.
bool marks_assign(struct encoder *e, size_t start, size_t end, int64_t before, bool one_token);
// Runs the normalizer: *text, *size become the result, and *owned what must be freed.
bool normalizer_run(const struct steps *s, struct matcher *m, const char **text, size_t *size,
                    char **owned, struct error *err);
// Runs the pre-tokenizer over a piece of normalized text and encodes its words.
bool pieces_encode(struct encoder *e, const char *text, size_t size, bool at_start);
bool ranges_merge(struct ranges *r, int64_t base, enum behavior behavior, bool invert);
bool no_memory(struct error *err); // fail, with those words
