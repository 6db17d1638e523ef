// tests/torture/damage.h - for test_corruption.c: the files of a checkpoint in memory, and the ways in which a disk, or
// a person, can change them.
#pragma once
#include "toy.h"

#include <unistd.h>

enum { FILES_AT_MOST = 16 };

struct content {
    char name[256];
    char *bytes;
    size_t size;
};

struct folder { // a checkpoint as it was written
    char path[2048];
    int64_t step;
    struct content file[FILES_AT_MOST];
    int n;
};

static void write_content(const char *dir, const struct content *c)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, c->name);
    FILE *f = fopen(path, "wb"); // not synced: that would take most of the time
    if (!f || fwrite(c->bytes, 1, c->size, f) != c->size || fclose(f) != 0)
        fail_msg("%s: cannot be written", path);
}

struct change {
    const struct content *was; // NULL: there was no such file
    struct content now;        // bytes NULL: it is gone
};

struct damage {
    const struct folder *of, *pool; // pool: the run's checkpoints, of which files may be taken
    int pooled;
    struct change change[2];
    int n;
};

static struct change *begin_change(struct damage *d, const struct content *was, size_t size)
{
    struct change *c = &d->change[d->n++];
    c->was = was;
    snprintf(c->now.name, sizeof c->now.name, "%s", was->name);
    c->now.size = size;
    c->now.bytes = mem_zalloc(size + 1, 1);
    memcpy(c->now.bytes, was->bytes, size < was->size ? size : was->size);
    return c;
}

static size_t below(struct rng *r, size_t n)
{
    return n ? (size_t)rng_below(r, (int64_t)n) : 0;
}

static const struct content *any_file(struct damage *d, struct rng *r)
{
    return &d->of->file[below(r, (size_t)d->of->n)];
}

static void flip(struct damage *d, struct rng *r)
{
    const struct content *f = any_file(d, r);
    struct change *c = begin_change(d, f, f->size);
    c->now.bytes[below(r, f->size)] ^= (char)(1 << below(r, 8));
}

static void set_byte(struct damage *d, struct rng *r)
{
    const struct content *f = any_file(d, r);
    struct change *c = begin_change(d, f, f->size);
    c->now.bytes[below(r, f->size)] = (char)below(r, 256);
}

static void burst(struct damage *d, struct rng *r)
{
    const struct content *f = any_file(d, r);
    struct change *c = begin_change(d, f, f->size);
    for (size_t at = below(r, f->size), n = 2 + below(r, 63); n && at < f->size; n--, at++) {
        c->now.bytes[at] = (char)below(r, 256);
    }
}

static void lose_sector(struct damage *d, struct rng *r)
{
    const struct content *f = any_file(d, r);
    struct change *c = begin_change(d, f, f->size);
    const size_t at = below(r, f->size) / 512 * 512, n = f->size - at < 512 ? f->size - at : 512;
    memset(c->now.bytes + at, 0, n);
}

static void truncate_file(struct damage *d, struct rng *r)
{
    const struct content *f = any_file(d, r);
    begin_change(d, f, below(r, f->size));
}

static void empty_file(struct damage *d, struct rng *r)
{
    begin_change(d, any_file(d, r), 0);
}

static void extend(struct damage *d, struct rng *r)
{
    const struct content *f = any_file(d, r);
    struct change *c = begin_change(d, f, f->size + 1 + below(r, 100));
    for (size_t i = f->size; i < c->now.size; i++) {
        c->now.bytes[i] = (char)below(r, 256);
    }
}

// One byte more or less, and all behind it moves.
static void shift(struct damage *d, struct rng *r)
{
    const struct content *f = any_file(d, r);
    const size_t at = below(r, f->size);
    const bool more = below(r, 2);
    struct change *c = begin_change(d, f, more ? f->size + 1 : f->size - 1);
    const size_t from = more ? at : at + 1, to = more ? at + 1 : at;
    memcpy(c->now.bytes + to, f->bytes + from, f->size - from);
    if (more) c->now.bytes[at] = (char)below(r, 256);
}

static void swap_blocks(struct damage *d, struct rng *r)
{
    const struct content *f = any_file(d, r);
    const size_t n = 1 + below(r, f->size / 2 < 512 ? f->size / 2 : 512);
    const size_t a = below(r, f->size - n + 1), b = below(r, f->size - n + 1);
    struct change *c = begin_change(d, f, f->size);
    memcpy(c->now.bytes + a, f->bytes + b, n);
    if (a + n <= b || b + n <= a) memcpy(c->now.bytes + b, f->bytes + a, n);
}

static void swap_files(struct damage *d, struct rng *r)
{
    const struct content *a = any_file(d, r), *b = any_file(d, r);
    if (a == b) return;
    const struct content *file[] = {a, b};
    for (int i = 0; i < 2; i++) {
        struct change *c = begin_change(d, file[i], 0);
        const struct content *other = file[1 - i];
        mem_free(c->now.bytes);
        c->now.size = other->size;
        c->now.bytes = mem_alloc(other->size + 1);
        memcpy(c->now.bytes, other->bytes, other->size);
    }
}

static void delete_file(struct damage *d, struct rng *r)
{
    struct change *c = begin_change(d, any_file(d, r), 0);
    mem_free(c->now.bytes);
    c->now.bytes = NULL;
}

// A file of another checkpoint, in place of the one of its name or beside the others.
static void foreign_file(struct damage *d, struct rng *r)
{
    const struct folder *other = &d->pool[below(r, (size_t)d->pooled)];
    const struct content *f = &other->file[below(r, (size_t)other->n)];
    struct change *c = begin_change(d, f, f->size);
    c->was = NULL;
    for (int i = 0; i < d->of->n; i++) {
        if (!strcmp(d->of->file[i].name, f->name)) c->was = &d->of->file[i];
    }
}

// A file that the checkpoint never had, under a name that a routing looks for.
static void stray_file(struct damage *d, struct rng *r)
{
    const struct content *f = any_file(d, r);
    struct change *c = begin_change(d, f, f->size);
    snprintf(c->now.name, sizeof c->now.name, "forced_experts_mapping.json");
    c->was = NULL;
}

static const struct kind {
    const char *name;
    void (*make)(struct damage *d, struct rng *r);
} kinds[] = {
    {"a flipped bit", flip},
    {"another byte", set_byte},
    {"a burst", burst},
    {"a lost sector", lose_sector},
    {"a cut", truncate_file},
    {"an empty file", empty_file},
    {"bytes at the end", extend},
    {"a byte more or less", shift},
    {"two blocks swapped", swap_blocks},
    {"two files swapped", swap_files},
    {"a file deleted", delete_file},
    {"a file of another checkpoint", foreign_file},
    {"a file too many", stray_file},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static bool is_change(const struct change *c)
{
    const struct content *was = c->was;
    return !was || !c->now.bytes || was->size != c->now.size ||
           memcmp(was->bytes, c->now.bytes, was->size) != 0;
}

static void free_damage(struct damage *d)
{
    for (int i = 0; i < d->n; i++) {
        mem_free(d->change[i].now.bytes);
    }
    d->n = 0;
}

// Damage of checkpoint i of n, tried until there is a difference. free_damage. Returns what kind it is.
static const char *make_damage(struct damage *d, const struct folder *pool, int n, int which,
                               struct rng *r)
{
    for (;;) {
        const struct kind *k = &kinds[below(r, KINDS)];
        *d = (struct damage){.of = &pool[which], .pool = pool, .pooled = n};
        k->make(d, r);
        bool differs = d->n > 0;
        for (int i = 0; i < d->n; i++) {
            differs &= is_change(&d->change[i]);
        }
        if (differs) return k->name;
        free_damage(d);
    }
}

static void apply(const struct damage *d, const char *dir)
{
    for (int i = 0; i < d->n; i++) {
        const struct content *now = &d->change[i].now;
        if (now->bytes) write_content(dir, now);
        if (!now->bytes) assert_int_equal(unlink(toy_path(dir, now->name)), 0);
    }
}

static void undo(const struct damage *d, const char *dir)
{
    for (int i = 0; i < d->n; i++) {
        if (d->change[i].was) write_content(dir, d->change[i].was);
        if (!d->change[i].was) assert_int_equal(unlink(toy_path(dir, d->change[i].now.name)), 0);
    }
}
