// eval/sample.c - see sample.h. Order of the filters as in transformers: temperature, top-k, top-p.
#include "eval/sample.h"

#include <math.h>
#include <stdlib.h>

static int32_t likeliest(const float *logits, int64_t vocab)
{
    int64_t best = 0;
    for (int64_t i = 1; i < vocab; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    return (int32_t)best;
}

static int by_weight(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->weight > y->weight) return -1;
    if (x->weight < y->weight) return 1;
    return (x->id > y->id) - (x->id < y->id);
}

int32_t sample_token(const float *logits, int64_t vocab, const struct sampling *s, struct rng *r,
                     struct candidate *scratch)
{
    const int32_t best = likeliest(logits, vocab);
    if (s->temperature <= 0) return best;
    const double top = (double)logits[best];
    for (int64_t i = 0; i < vocab; i++) {
        const double w = exp(((double)logits[i] - top) / s->temperature);
        scratch[i] = (struct candidate){isfinite(w) ? w : 0, (int32_t)i};
    }
    qsort(scratch, (size_t)vocab, sizeof *scratch, by_weight);
    int64_t n = s->top_k > 0 && s->top_k < vocab ? s->top_k : vocab;
    double total = 0;
    for (int64_t i = 0; i < n; i++) {
        total += scratch[i].weight;
    }
    double kept = 0; // the fewest whose share reaches top_p
    int64_t last = 0;
    for (; last < n && kept < s->top_p * total; last++) {
        kept += scratch[last].weight;
    }
    n = last > 0 ? last : 1;
    double mark = rng_uniform(r) * kept;
    for (int64_t i = 0; i < n; i++) {
        mark -= scratch[i].weight;
        if (mark < 0) return scratch[i].id;
    }
    return scratch[n - 1].id;
}
