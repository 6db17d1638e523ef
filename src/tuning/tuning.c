// tuning/tuning.c - the registry, and what every policy shares: the globs and the leaves of weights that
// learn whole.
#include "tuning/tuning.h"

#include "base/mem.h"
#include "tuning/policies.h"

#include <string.h>

const struct tuning *const tunings[] = {&tuning_full, NULL};

const struct tuning *tuning_find(const char *name, struct error *err)
{
    for (int i = 0; tunings[i]; i++) {
        if (!strcmp(tunings[i]->name, name)) return tunings[i];
    }
    fail(err, "tuning '%s' is not known", name);
    return NULL;
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

// One glob of a list: sets learns where it matches.
static bool apply_glob(const char *pattern, bool learns, const char *option, struct weights *w,
                       struct error *err)
{
    int64_t matches = 0;
    for (int64_t i = 0; i < w->count; i++) {
        if (!glob_match(pattern, w->weight[i].name)) continue;
        w->weight[i].learns = learns;
        matches++;
    }
    return matches || fail(err, "--%s: '%s' matches no parameter of the model", option, pattern);
}

static bool apply_globs(const char *list, bool learns, const char *option, struct weights *w,
                        struct error *err)
{
    while (list && *list) {
        const size_t n = strcspn(list, ",");
        char *pattern = mem_strndup(list, n);
        if (!pattern) return fail(err, "--%s: no memory", option);
        const bool ok = !n || apply_glob(pattern, learns, option, w, err);
        mem_free(pattern);
        if (!ok) return false;
        list += n + (list[n] == ',');
    }
    return true;
}

bool tuning_choose(const struct tuning *t, struct weights *w, const struct model_config *c,
                   const struct tuning_options *r, struct error *err)
{
    for (int64_t i = 0; i < w->count; i++) {
        w->weight[i].learns = t && t->learns(&w->weight[i], c);
    }
    if (!t) return true;
    return apply_globs(r->train, true, "train", w, err) &&
           apply_globs(r->freeze, false, "freeze", w, err);
}

bool tuning_leaves(struct weights *w, const struct ops *o, struct leaves *out, struct arena *a,
                   struct error *err)
{
    for (int64_t i = 0; i < w->count; i++) {
        struct weight *x = &w->weight[i];
        x->leaf = -1;
        if (!x->learns) continue;
        struct leaf *f = leaves_add(out, a, x->name, x->stored, x->copy_type, err);
        if (!f) return false;
        x->leaf = out->count - 1;
        x->value = f->copy.data || x->copy_type != DTYPE_F32 ? f->copy : f->value;
        x->grad = f->grad;
        if (arena_measuring(a)) continue;
        o->convert(f->value, x->stored);
        if (f->copy.data) o->convert(f->copy, f->value);
    }
    return true;
}
