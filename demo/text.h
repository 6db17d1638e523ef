// demo/text.h - what text generators (the demo's, and those of results/) write with: a growing text and a
// random stream of its own. Integers only, so that a seed gives the same text on every machine.
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

// A question and its answer.
struct task {
    const char *name, *help;
    void (*write)(struct text *question, struct text *answer, bool held_out);
};

// What a program of generate.c can write; each links one of these.
struct catalogue {
    const struct kind *const *kind; // the most frequent first: kind i has weight 1 / (i + 1)
    int n_kinds;
    const struct task *task;
    int n_tasks;
};
extern const struct catalogue catalogue;

// A document of one kind: items until it is at least `length` characters long.
void write_document(struct text *t, const struct kind *k, size_t length);
