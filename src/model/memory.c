// model/memory.c - the model's arenas on the backend, and the line that says who holds what when one of them
// cannot be had.
#include "model/layer.h"

#include <stdio.h>
#include <string.h>

enum { WORDS = 512 };

// "weights 12.0 MiB, optimizer 24.0 MiB": those that have any.
static void words(char out[WORDS], const size_t by_purpose[PURPOSE_COUNT])
{
    out[0] = 0;
    for (int p = 0; p < PURPOSE_COUNT; p++) {
        const size_t n = strlen(out);
        if (!by_purpose[p]) continue;
        snprintf(out + n, WORDS - n, "%s%s %.1f MiB", n ? ", " : "", purpose_name((enum purpose)p),
                 (double)by_purpose[p] / 0x1p20);
    }
    if (!*out) snprintf(out, WORDS, "nothing");
}

static bool no_memory(const struct model *m, const struct arena *wanted, struct error *err)
{
    const struct arena *all[] = {&m->state, &m->moments, &m->work};
    size_t held[PURPOSE_COUNT] = {0};
    char wants[WORDS], holds[WORDS];
    for (int i = 0; i < 3; i++) {
        for (int p = 0; all[i]->base && p < PURPOSE_COUNT; p++) {
            held[p] += all[i]->by_purpose[p];
        }
    }
    words(wants, wanted->by_purpose);
    words(holds, held);
    return fail(err, "%s: no memory for %.1f MiB more (%s); held already: %s", m->setup.ops->name,
                (double)wanted->capacity / 0x1p20, wants, holds);
}

static bool on_host(const struct model *m, const struct arena *a)
{
    return a == &m->moments && m->setup.ops->allocate_host;
}

static bool obtain(struct model *m, struct arena *a, struct error *err)
{
    const struct ops *o = m->setup.ops;
    if (!a->capacity) return true;
    a->base = (on_host(m, a) ? o->allocate_host : o->allocate)(a->capacity);
    return a->base || (o->check(err) && no_memory(m, a, err));
}

size_t model_device_bytes(const struct model *m)
{
    const struct arena *all[] = {&m->state, &m->moments, &m->work};
    size_t bytes = m->setup.ops->scratch_bytes();
    for (int i = 0; i < 3; i++) {
        if (!on_host(m, all[i])) bytes += all[i]->capacity;
    }
    return bytes;
}

// Said before anything is loaded.
static bool check_room(const struct model *m, struct error *err)
{
    const struct ops *o = m->setup.ops;
    const struct arena *all[] = {&m->state, &m->moments, &m->work};
    size_t by_purpose[PURPOSE_COUNT] = {0};
    const size_t needed = model_device_bytes(m), there = o->free_bytes();
    char who[WORDS];
    for (int i = 0; i < 3; i++) {
        if (on_host(m, all[i])) continue;
        for (int p = 0; p < PURPOSE_COUNT; p++) {
            by_purpose[p] += all[i]->by_purpose[p];
        }
    }
    if (needed <= there) return true;
    words(who, by_purpose);
    return fail(err, "device %s: the model needs %.1f MiB (%s), %.1f MiB are free", o->name,
                (double)needed / 0x1p20, who, (double)there / 0x1p20);
}

bool memory_obtain(struct model *m, struct error *err)
{
    return check_room(m, err) && obtain(m, &m->state, err) && obtain(m, &m->moments, err) &&
           obtain(m, &m->work, err);
}

void memory_release(struct model *m)
{
    struct arena *all[] = {&m->state, &m->moments, &m->work};
    const struct ops *o = m->setup.ops;
    for (int i = 0; i < 3; i++) {
        if (!all[i]->base) continue;
        (on_host(m, all[i]) ? o->release_host : o->release)(all[i]->base, all[i]->capacity);
        all[i]->base = NULL;
    }
}
