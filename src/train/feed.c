// train/feed.c - see feed.h.
#include "train/feed.h"

#include "base/crc32c.h"
#include "base/mem.h"

#include <math.h>

bool feed_pack(struct packing *p, const struct dataset *d, const struct train_options *o,
               int64_t epoch, bool shuffle, struct error *err)
{
    const bool by_tokens = o->batch_tokens > 0;
    return packing_make(p, d, by_tokens ? o->batch_tokens : INT32_MAX,
                        by_tokens ? 0 : o->batch_sequences, shuffle, o->seed, epoch, err);
}

static int64_t tokens_of(const struct packing *p, const struct dataset *d, int64_t i)
{
    int64_t n = 0;
    for (int64_t j = p->first[i]; j < p->first[i + 1]; j++) {
        n += d->example[p->order[j]].count;
    }
    return n;
}

static int64_t supervised_of(const struct packing *p, const struct dataset *d, int64_t i)
{
    int64_t n = 0;
    for (int64_t j = p->first[i]; j < p->first[i + 1]; j++) {
        n += d->example[p->order[j]].supervised;
    }
    return n;
}

int64_t feed_largest(const struct packing *p, const struct dataset *d)
{
    int64_t largest = 0;
    for (int64_t i = 0; i < p->count; i++) {
        const int64_t n = tokens_of(p, d, i);
        if (n > largest) largest = n;
    }
    return largest;
}

uint32_t feed_fingerprint(const struct dataset *d)
{
    if (!d) return 0;
    uint32_t crc = crc32c(0, d->id, (size_t)d->n_tokens * sizeof *d->id);
    crc = crc32c(crc, d->learn, (size_t)d->n_tokens);
    for (int64_t i = 0; i < d->count; i++) {
        crc = crc32c(crc, &d->example[i].count, sizeof d->example[i].count);
    }
    return crc;
}

static bool add_epoch(struct feed *f, const struct packing *p, struct error *err)
{
    int64_t *end = array_grow(f->end, f->epochs, &f->capacity, sizeof *f->end);
    if (!end) return fail(err, "no memory for %lld epochs", (long long)f->epochs + 1);
    f->end = end;
    const int64_t every = f->options->accumulate;
    const int64_t steps = p->count / every + (p->count % every != 0);
    if (f->epochs == 0) f->micro_batches = p->count;
    f->end[f->epochs] = (f->epochs ? f->end[f->epochs - 1] : 0) + steps;
    f->epochs++;
    return true;
}

static bool count_epoch(struct feed *f, struct error *err)
{
    struct packing p = {0};
    bool ok = feed_pack(&p, f->data, f->options, f->epochs, f->options->shuffle, err);
    if (ok && p.count == 0) ok = fail(err, "no examples to learn from");
    if (ok) {
        const int64_t largest = feed_largest(&p, f->data);
        if (largest > f->largest) f->largest = largest;
        ok = add_epoch(f, &p, err);
    }
    packing_free(&p);
    return ok;
}

// Steps of one pass until so many tokens were seen.
static bool count_tokens(struct feed *f, struct error *err)
{
    struct feed_step s;
    int64_t tokens = 0;
    if (!count_epoch(f, err)) return false;
    for (f->steps = 0; f->steps < f->end[0] && tokens < f->options->max_tokens; f->steps++) {
        if (!feed_seek(f, f->steps, &s, err)) return false;
        tokens += s.tokens;
    }
    return true;
}

static bool count_steps(struct feed *f, struct error *err)
{
    const struct train_options *o = f->options;
    if (o->max_tokens > 0) return count_tokens(f, err);
    const double whole = floor(o->epochs);
    if (o->max_steps > 0) {
        f->steps = o->max_steps;
        while (f->epochs == 0 || f->end[f->epochs - 1] < f->steps) {
            if (!count_epoch(f, err)) return false;
        }
        return true;
    }
    while ((double)f->epochs < o->epochs) {
        if (!count_epoch(f, err)) return false;
    }
    f->steps = f->end[f->epochs - 1];
    if ((double)f->epochs > whole) { // a part of the last pass
        const int64_t before = f->epochs > 1 ? f->end[f->epochs - 2] : 0;
        f->steps = before + (int64_t)ceil((o->epochs - whole) * (double)(f->steps - before));
    }
    return true;
}

bool feed_open(struct feed *f, const struct dataset *d, const struct train_options *o,
               struct error *err)
{
    *f = (struct feed){.data = d, .options = o, .epoch = -1};
    if (count_steps(f, err)) return true;
    feed_close(f);
    return false;
}

void feed_close(struct feed *f)
{
    packing_free(&f->packing);
    mem_free(f->end);
    *f = (struct feed){.epoch = -1};
}

// The first epoch that ends after step s.
static int64_t epoch_of(const struct feed *f, int64_t s)
{
    int64_t low = 0, high = f->epochs - 1;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (f->end[middle] > s) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

bool feed_seek(struct feed *f, int64_t s, struct feed_step *out, struct error *err)
{
    const int64_t epoch = epoch_of(f, s), every = f->options->accumulate;
    if (epoch != f->epoch) {
        packing_free(&f->packing);
        f->packing = (struct packing){0};
        f->epoch = -1;
        if (!feed_pack(&f->packing, f->data, f->options, epoch, f->options->shuffle, err)) {
            return false;
        }
        f->epoch = epoch;
    }
    const int64_t first = (s - (epoch ? f->end[epoch - 1] : 0)) * every;
    const int64_t rest = f->packing.count - first;
    *out = (struct feed_step){.epoch = epoch, .first = first, .count = rest < every ? rest : every};
    for (int64_t i = first; i < first + out->count; i++) {
        out->tokens += tokens_of(&f->packing, f->data, i);
        out->supervised += supervised_of(&f->packing, f->data, i);
    }
    return true;
}

void feed_batch(const struct feed *f, int64_t i, struct batch *b)
{
    packing_batch(&f->packing, f->data, i, b);
}
