// eval/sample.h - from logits to the next id.
#pragma once
#include "base/rng.h"
#include "eval/generate.h"

struct candidate {
    double weight;
    int32_t id;
};

// scratch: room for `vocab` candidates (not read when temperature is 0).
int32_t sample_token(const float *logits, int64_t vocab, const struct sampling *s, struct rng *r,
                     struct candidate *scratch);
