// eval/score.h - how well a model does on a data set: the loss of its learnt tokens.
#pragma once
#include "io/dataset.h"
#include "model/model.h"

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
// The model takes setup.max_tokens at a time; no example may be longer. False leaves no usage.
bool score_loss(struct loss_score *out, struct model *m, const struct dataset *d,
                const struct score_listener *l, struct error *err);
// The same, and file (d->n_files): each file's own, without usage; of one that no example comes from, zeros.
bool score_loss_files(struct loss_score *out, struct loss_score *file, struct model *m,
                      const struct dataset *d, const struct score_listener *l, struct error *err);
