// demo/text.h - what the demo's text generators write with: a growing text and a random stream of its
// own. Integers only, so that a seed gives the same text on every machine.
#pragma once
#include "base/mem.h"
#include "base/rng.h"

struct text {
    struct buf buf;
    struct rng rng;
};

// Appends; ends the program when there is no memory, since a generator has nothing to save.
void say(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int below(struct text *t, int n);               // [0, n)
int between(struct text *t, int low, int high); // [low, high]
bool chance(struct text *t, int percent);
const char *pick(struct text *t, const char *const *words, int n);

// One sort of text.
struct kind {
    const char *name, *help;
    void (*write)(struct text *t); // one item: a line, a sentence, a record
};

// The text that the base model is trained on, the most frequent first: kind i has weight 1 / (i + 1).
extern const struct kind kinds[];
extern const int n_kinds;

// A document of one kind: items until it is at least `length` characters long.
void write_document(struct text *t, const struct kind *k, size_t length);
