// eval/lanes.h - several sequences side by side over one KV cache, each with a stretch of rows of its own
// (a lane), a batch of new tokens at a time. What is generated with it is decided elsewhere.
#pragma once
#include "model/model.h"

struct lanes {
    struct model *m;
    int64_t n;
    struct batch batch;
    int64_t *base;      // (n) first cache row of each lane; the caller fills it in
    int64_t *done;      // (n) tokens of it that are in the cache, or in the batch
    int32_t *cache_row; // (max_tokens) of the batch
    int32_t *row;       // (n) rows of the batch whose logits are wanted
    int64_t *owner;     // (n) whose they are
    int64_t wanted;     // rows
    float *logits;      // (n,V), after lanes_run
};

bool lanes_open(struct lanes *l, struct model *m, int64_t n, struct error *err);
void lanes_close(struct lanes *l);

// One more token into the batch; wanted: its logits are.
void lanes_add(struct lanes *l, int64_t lane, int32_t id, bool wanted);
bool lanes_full(const struct lanes *l); // no room in the batch
// Computes the batch, if it has a token, and empties it. row, owner, wanted and logits are then its own until
// lanes_taken, which comes before the next lanes_add. False: there was nothing to compute.
bool lanes_run(struct lanes *l);
void lanes_taken(struct lanes *l);
// Lane `to` becomes lane `from` in positions [first, done); the positions before are the same already.
void lanes_copy(struct lanes *l, int64_t to, int64_t from, int64_t first);
