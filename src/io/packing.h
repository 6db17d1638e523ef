// io/packing.h - examples into micro-batches of at most N tokens: which examples, in which order, cut
// into rows, with what a model needs to keep documents apart. Depends on the seed and the epoch only.
#pragma once
#include "io/dataset.h"

// One micro-batch as plain arrays in host memory. Documents lie one after another; there is no padding.
struct batch {
    int64_t n;          // tokens
    int32_t *id;        // (n)
    int32_t *position;  // (n) restarts at 0 in every document
    int32_t *span;      // (n,2) first and last key that row n may attend to: its document so far
    int32_t *target;    // (n) the next token where it carries loss, else -100
    int64_t supervised; // targets that are not -100
    int64_t capacity;
};
bool batch_reserve(struct batch *b, int64_t capacity, struct error *err);
void batch_free(struct batch *b);
void batch_clear(struct batch *b); // no tokens, room kept
// Appends one document; `learn` (n) marks targets. The caller has reserved room.
void batch_append(struct batch *b, const int32_t *id, const uint8_t *learn, int64_t n);

// The order of examples and their grouping for one epoch.
struct packing {
    int64_t *order; // example indices
    int64_t *first; // (count+1): micro-batch i holds order[first[i] .. first[i+1])
    int64_t count;
};
// sequences: examples per micro-batch (0: as many as fit in max_tokens, first fit in shuffled order).
// A micro-batch never has more than max_tokens; an example that is longer is an error.
bool packing_make(struct packing *p, const struct dataset *d, int64_t max_tokens, int64_t sequences,
                  bool shuffle, uint64_t seed, int64_t epoch, struct error *err);
void packing_free(struct packing *p);
// Fills b with micro-batch i; the caller has reserved max_tokens.
void packing_batch(const struct packing *p, const struct dataset *d, int64_t i, struct batch *b);
// Tokens over what the micro-batches could hold, 0 to 1.
double packing_fill(const struct packing *p, const struct dataset *d, int64_t max_tokens);
