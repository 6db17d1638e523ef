// tuning/tuning.c - the registry, and what every policy shares: the globs and the leaves of weights that
// learn whole, and the small things that adapters are made of.
#include "tuning/tuning.h"

#include "base/mem.h"
#include "io/folders.h"
#include "tuning/policies.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const struct tuning *const tunings[] = {&tuning_full, &tuning_esft, &tuning_smt,
                                        &tuning_lora, &tuning_dora, NULL};

const struct tuning *tuning_find(const char *name, struct error *err)
{
    for (int i = 0; tunings[i]; i++) {
        if (!strcmp(tunings[i]->name, name)) return tunings[i];
    }
    fail(err, "tuning '%s' is not known", name);
    return NULL;
}

bool tuning_of_adapter(const struct tuning **t, struct tuning_options *r, const char *dir,
                       struct error *err)
{
    bool mine = false;
    for (int i = 0; tunings[i]; i++) {
        *t = tunings[i];
        if (!tunings[i]->format) continue;
        if (!tunings[i]->format->read(&mine, r, dir, err)) return false;
        if (mine) return true;
    }
    return folder_is_no_adapter(dir, err);
}

bool glob_match(const char *pattern, const char *name)
{
    const char *star = NULL, *resume = NULL; // the last '*', and where in name it stopped eating
    while (*name) {
        if (*pattern == '*') {
            star = pattern++;
            resume = name;
        } else if (*pattern == '?' || *pattern == *name) {
            pattern++, name++;
        } else if (star) {
            pattern = star + 1;
            name = ++resume;
        } else {
            return false;
        }
    }
    while (*pattern == '*') {
        pattern++;
    }
    return !*pattern;
}

bool globs_each(const char *list, glob_visitor fn, void *user, struct error *err)
{
    while (list && *list) {
        const size_t n = strcspn(list, ",");
        char *pattern = mem_strndup(list, n);
        if (!pattern) return fail(err, "no memory for a list of globs");
        const bool ok = !n || fn(user, pattern, err);
        mem_free(pattern);
        if (!ok) return false;
        list += n + (list[n] == ',');
    }
    return true;
}

struct choice {
    struct weights *w;
    const char *option;
    bool learns;
};

// A matrix within a fused tensor goes by that name, too.
static bool names_weight(const char *pattern, const struct weight *w)
{
    return glob_match(pattern, w->name) || glob_match(pattern, w->entry->name) ||
           (*w->other && glob_match(pattern, w->other));
}

struct weight_match {
    const struct weight *weight;
    bool found;
};

static bool match_weight(void *user, const char *pattern, struct error *err)
{
    (void)err;
    struct weight_match *m = user;
    m->found |= names_weight(pattern, m->weight);
    return true;
}

bool weight_matches(const struct weight *w, const char *globs)
{
    struct weight_match m = {w, false};
    globs_each(globs, match_weight, &m, NULL);
    return m.found;
}

// One glob of a list: sets learns where it matches.
static bool apply_glob(void *user, const char *pattern, struct error *err)
{
    const struct choice *c = user;
    int64_t matches = 0;
    for (int64_t i = 0; i < c->w->count; i++) {
        struct weight *x = &c->w->weight[i];
        if (!names_weight(pattern, x)) continue;
        x->learns = c->learns;
        matches++;
    }
    return matches || fail(err, "--%s: '%s' matches no parameter of the model", c->option, pattern);
}

bool tuning_choose(const struct tuning *t, const struct tuning_state *st, struct weights *w,
                   const struct tuning_options *r, struct error *err)
{
    for (int64_t i = 0; i < w->count; i++) {
        w->weight[i].learns = t && t->learns && t->learns(st, &w->weight[i]);
    }
    if (!t || t->observes) return true; // nothing moves
    struct choice train = {w, "train", true}, freeze = {w, "freeze", false};
    return globs_each(r->train, apply_glob, &train, err) &&
           globs_each(r->freeze, apply_glob, &freeze, err);
}

// A frozen weight where ops can read it.
static void place_frozen(struct weight *x, const struct ops *o, struct arena *a)
{
    if (o->reads_host) return;
    a->purpose = PURPOSE_WEIGHTS;
    x->value = arena_tensor(a, x->stored.dtype, x->stored.rank, x->stored.dim);
    if (!arena_measuring(a)) o->import(x->value, x->stored);
}

static size_t stored_bytes(const struct weights *w)
{
    size_t bytes = 0;
    for (int64_t i = 0; i < w->count; i++) {
        bytes += tensor_bytes(w->weight[i].stored);
    }
    return bytes;
}

bool tuning_leaves(struct weights *w, const struct ops *o, struct leaves *out, struct arena *a,
                   struct error *err)
{
    const size_t all = stored_bytes(w);
    size_t done = 0;
    for (int64_t i = 0; i < w->count; i++) {
        struct weight *x = &w->weight[i];
        done += tensor_bytes(x->stored);
        if (w->loading && !arena_measuring(a)) w->loading(w->user, done, all);
        x->leaf = -1;
        if (!x->learns) place_frozen(x, o, a);
        if (!x->learns) continue;
        out->section = x->section;
        struct leaf *f = leaves_add(out, a, x->name, x->stored, x->copy_type, err);
        if (!f) return false;
        x->leaf = out->count - 1;
        x->value = tensor_count(f->copy) ? f->copy : f->value;
        x->grad = f->grad;
        if (arena_measuring(a)) continue;
        o->import(f->value, x->stored);
        if (f->copy.data) o->convert(f->copy, f->value);
    }
    return true;
}

static const char *last_part(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

static bool names_bank(const char *pattern, const struct bank *b)
{
    return glob_match(pattern, b->name) || glob_match(pattern, last_part(b->name)) ||
           (b->projection && glob_match(pattern, b->projection));
}

struct match {
    const struct bank *bank;
    bool found;
};

static bool match_module(void *user, const char *pattern, struct error *err)
{
    (void)err;
    struct match *m = user;
    m->found |= names_bank(pattern, m->bank);
    return true;
}

bool bank_matches(const struct bank *b, const char *globs)
{
    struct match m = {b, false};
    globs_each(globs, match_module, &m, NULL);
    return m.found;
}

struct targets {
    bool *target;
    const struct tuning_input *in;
    const char *option;
};

static bool mark_targets(void *user, const char *pattern, struct error *err)
{
    const struct targets *t = user;
    bool found = false;
    for (int64_t i = 0; i < t->in->n_banks; i++) {
        const struct bank *b = t->in->bank[i];
        if (!b->projection || !names_bank(pattern, b)) continue;
        t->target[i] = found = true;
    }
    return found || fail(err, "--%s: '%s' matches no projection of the model", t->option, pattern);
}

bool tuning_targets(bool *target, const struct tuning_input *in, const char *option,
                    const char *globs, struct error *err)
{
    struct targets t = {target, in, option};
    memset(target, 0, (size_t)in->n_banks * sizeof *target);
    return globs_each(globs, mark_targets, &t, err);
}

struct matrices tuning_matrices(const struct ops *o, struct arena *a, struct tensor t,
                                int64_t groups)
{
    void **table = arena_bytes(a, (size_t)groups * sizeof *table);
    const int64_t rows = t.dim[0] / groups;
    const size_t bytes = (size_t)(rows * t.dim[1]) * dtype_size(t.dtype);
    for (int64_t g = 0; table && g < groups; g++) {
        char *p = (char *)t.data + (size_t)g * bytes;
        o->upload(&table[g], &p, sizeof p);
    }
    return (struct matrices){groups, rows, t.dim[1], t.dtype, table};
}

struct matrices matrices_part(const struct matrices *m, int64_t first, int64_t n)
{
    struct matrices part = *m;
    part.groups = n;
    part.data = m->data + first;
    return part;
}

void bank_module(char out[NAME_MAX_LENGTH], const struct bank *b, int64_t group)
{
    const char *star = strchr(b->name, '*');
    if (star) {
        snprintf(out, NAME_MAX_LENGTH, "%.*s%" PRId64 "%s", (int)(star - b->name), b->name, group,
                 star + 1);
    } else {
        snprintf(out, NAME_MAX_LENGTH, "%s", b->name);
    }
}
