// train/feed.h - the examples as the steps of a run: how many steps there are, and which micro-batches
// each of them takes. Depends on the data, the options and the seed only, so that a resumed run needs
// nothing but its step.
#pragma once
#include "io/packing.h"
#include "train/train.h"

struct feed {
    const struct dataset *data;
    const struct train_options *options;
    int64_t *end; // (epochs) steps up to the end of each epoch; the last one may be cut short
    int64_t epochs, capacity;
    int64_t micro_batches;  // of the first epoch
    int64_t steps;          // of the run
    int64_t largest;        // tokens of the largest micro-batch
    struct packing packing; // of `epoch`
    int64_t epoch;          // -1: none loaded
};

struct feed_step {
    int64_t epoch, first, count; // micro-batches [first, first + count) of the epoch
    int64_t tokens, supervised;  // over all of them
};

// Packs every epoch once to count.
bool feed_open(struct feed *f, const struct dataset *d, const struct train_options *o,
               struct error *err);
void feed_close(struct feed *f); // safe after a failed open, and twice
// What step s (0-based) takes; loads the packing of its epoch.
bool feed_seek(struct feed *f, int64_t s, struct feed_step *out, struct error *err);
// The i-th micro-batch of the loaded epoch.
void feed_batch(const struct feed *f, int64_t i, struct batch *b);

// The packing of one pass: all examples, in micro-batches of the size that the options ask for.
bool feed_pack(struct packing *p, const struct dataset *d, const struct train_options *o,
               int64_t epoch, bool shuffle, struct error *err);
int64_t feed_largest(const struct packing *p, const struct dataset *d); // tokens
// CRC32C of tokens, targets and borders; 0 for NULL.
uint32_t feed_fingerprint(const struct dataset *d);
