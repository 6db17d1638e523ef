// eval/score.h - how well a model does on a data set: the loss of its learnt tokens, or answers that
// are exactly the references.
#pragma once
#include "eval/generate.h"
#include "io/dataset.h"

// Told how far it is, in examples or micro-batches. NULL: nobody. False ends the scoring early.
struct score_listener {
    void *user;
    bool (*progress)(void *user, int64_t done, int64_t of);
};

struct loss_score {
    double loss; // mean cross-entropy over the supervised tokens
    int64_t supervised, tokens, examples;
    int64_t *usage; // (L,E) rows that each expert got, for mem_free; NULL: the model has no experts
};
// The model takes setup.max_tokens at a time; no example may be longer.
bool score_loss(struct loss_score *out, struct model *m, const struct dataset *d,
                const struct score_listener *l, struct error *err);

// The greedy answer of one example beside its reference.
struct answer {
    int64_t example;
    const char *text; // generated, white space around it cut off
    const char *reference;
    bool correct, stopped; // stopped: by a stop id, not by the limit of new tokens
    int64_t tokens;
};

struct exact_options {
    int64_t max_new_tokens;
    int64_t side_by_side; // sequences
    const struct tokens *stop;
    const struct tokenizer *tokenizer;
    bool (*answer)(void *user, const struct answer *a, struct error *err); // in order; NULL: nobody
    void *user;
};

struct exact_score {
    int64_t correct, examples, stopped;
};
// Largest number of cache rows and sequences that score_exact will use.
int64_t score_exact_rows(const struct dataset *d, const struct exact_options *o);
bool score_exact(struct exact_score *out, struct model *m, const struct dataset *d,
                 const struct exact_options *o, const struct score_listener *l, struct error *err);
