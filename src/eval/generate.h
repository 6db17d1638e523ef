// eval/generate.h - prompts go in, ids come out: a batch of sequences over one KV cache, the prompts in
// chunks of as many rows as the model takes, then one token of every unfinished sequence at a time.
// Knows a model only through model.h, and nothing of text.
#pragma once
#include "base/mem.h"
#include "io/tokenizer.h"
#include "model/model.h"

struct sampling {
    double temperature; // 0: the likeliest token, the lower id of two
    int64_t top_k;      // 0: all
    double top_p;       // 1: all
    uint64_t seed;      // sequence i draws from a stream of its own: batching does not change it
};

struct sequence {
    const int32_t *prompt;
    int64_t n_prompt;
    struct tokens out; // what was generated, the stop id not included; tokens_free
    int32_t stop;      // the stop id that ended it, -1: it ran into a limit
};

struct generate_options {
    int64_t max_new_tokens;
    struct sampling sampling;  // without beams
    int64_t beams;             // above 1: beam search (beam.h); 0 and 1: without
    const struct tokens *stop; // ids that end a sequence
    int64_t first_stream;      // sequence i draws from stream first_stream + i
    // Told each id as it comes (under beam search when the search is over); false ends generate() early, with what there is. NULL: nobody.
    bool (*token)(void *user, int64_t sequence, int32_t id);
    void *user;
};

// Rows of the KV cache (model_setup.cache_rows) that these sequences need side by side.
int64_t generate_cache_rows(const struct sequence *s, int64_t n, const struct generate_options *o);

// New tokens that this sequence may have: the limit, or as many as the model has positions left.
int64_t generate_room(const struct model *m, const struct sequence *s,
                      const struct generate_options *o);
bool generate_stops(const struct generate_options *o, int32_t id); // is it a stop id?

// All n sequences side by side: n (times beams) <= setup.max_tokens, and the cache has room for them. Ids are checked
// against the vocabulary and lengths against the model's positions. New tokens end at the last position.
bool generate(struct model *m, struct sequence *s, int64_t n, const struct generate_options *o,
              struct error *err);

// Appends the text of the ids without special tokens. A model's vocabulary may be padded beyond the
// tokenizer's; such ids stand for no text.
bool generate_decode(struct buf *text, const int32_t *id, int64_t n, const struct tokenizer *t,
                     struct error *err);
