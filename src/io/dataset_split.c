// io/dataset_split.c - a data set as a whole: a part of it set aside for validation, and its figures.
#include "base/rng.h"
#include "io/dataset.h"

#include <stdlib.h>
#include <string.h>

enum { SPLIT_STREAM = 0x73706C69 }; // "spli": of base/rng.h, ours alone

static double hash_of(uint64_t seed, int64_t i)
{
    return (double)(rng_at(seed, SPLIT_STREAM, (uint64_t)i) >> 11) * 0x1p-53; // [0, 1)
}

// The hash below which examples move: `fraction`, but so that at least one moves and one stays.
static double threshold(const struct dataset *d, double fraction, uint64_t seed)
{
    double least = 2, second = 2, most = -1;
    for (int64_t i = 0; i < d->count; i++) {
        const double h = hash_of(seed, i);
        second = h < least ? least : h < second ? h : second;
        least = h < least ? h : least;
        most = h > most ? h : most;
    }
    if (fraction <= least) return second; // only the least lies below it
    return fraction > most ? most : fraction;
}

// Copies what moves and closes the gaps in what stays. Arrays of `out` have room.
static void move_examples(struct dataset *d, struct dataset *out, double below, uint64_t seed)
{
    const struct dataset all = *d;
    d->count = d->n_tokens = d->supervised = 0;
    for (int64_t i = 0; i < all.count; i++) {
        struct dataset *to = hash_of(seed, i) < below ? out : d;
        struct example e = all.example[i];
        memmove(to->id + to->n_tokens, all.id + e.first, (size_t)e.count * sizeof *to->id);
        memmove(to->learn + to->n_tokens, all.learn + e.first, (size_t)e.count);
        e.first = to->n_tokens;
        to->n_tokens += e.count;
        to->supervised += e.supervised;
        to->example[to->count++] = e;
    }
}

static bool reserve_split(struct dataset *out, const struct dataset *d, double below, uint64_t seed)
{
    for (int64_t i = 0; i < d->count; i++) {
        if (hash_of(seed, i) >= below) continue;
        out->example_capacity++;
        out->token_capacity += d->example[i].count;
    }
    out->example = mem_alloc((size_t)out->example_capacity * sizeof *out->example);
    out->id = mem_alloc((size_t)out->token_capacity * sizeof *out->id);
    out->learn = mem_alloc((size_t)out->token_capacity);
    out->file = mem_zalloc((size_t)d->n_files, sizeof *out->file);
    bool ok = out->example && out->id && out->learn && out->file;
    for (int64_t i = 0; ok && i < d->n_files; i++) {
        out->file[i] = mem_strdup(d->file[i]);
        ok = out->file[i] != NULL;
        out->n_files += ok;
    }
    return ok;
}

static void own_names(struct dataset *out, const struct dataset *d)
{
    for (int64_t i = 0; i < out->count; i++) {
        for (int64_t k = 0; k < d->n_files; k++) {
            if (out->example[i].file == d->file[k]) out->example[i].file = out->file[k];
        }
    }
}

bool dataset_split(struct dataset *d, struct dataset *held_out, double fraction, uint64_t seed,
                   struct error *err)
{
    *held_out = (struct dataset){0};
    if (!(fraction > 0 && fraction < 1)) {
        return fail(err, "validation fraction: found %g, expected more than 0 and less than 1",
                    fraction);
    }
    if (d->count < 2) return fail(err, "validation fraction: one example cannot be split");
    const double below = threshold(d, fraction, seed);
    if (!reserve_split(held_out, d, below, seed)) {
        dataset_close(held_out);
        return fail(err, "validation fraction: out of memory");
    }
    move_examples(d, held_out, below, seed);
    own_names(held_out, d);
    return true;
}

static int compare(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

bool dataset_stats(struct dataset_stats *s, const struct dataset *d, struct error *err)
{
    *s = (struct dataset_stats){
        .examples = d->count, .tokens = d->n_tokens, .supervised = d->supervised};
    if (!d->count) return true;
    int64_t *length = mem_alloc((size_t)d->count * sizeof *length);
    if (!length) return fail(err, "data: out of memory");
    for (int64_t i = 0; i < d->count; i++) {
        length[i] = d->example[i].count;
    }
    qsort(length, (size_t)d->count, sizeof *length, compare);
    const int64_t last = d->count - 1;
    s->supervised_share = (double)d->supervised / (double)d->n_tokens;
    s->shortest = length[0];
    s->median = length[last / 2];
    s->p90 = length[(int64_t)((double)last * 0.9)];
    s->p99 = length[(int64_t)((double)last * 0.99)];
    s->longest = length[last];
    mem_free(length);
    return true;
}
