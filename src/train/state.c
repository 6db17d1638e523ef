// train/state.c - see state.h.
#include "train/state.h"

#include "base/file.h"
#include "base/mem.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { STATE_LIMIT = 16 << 20 };

// The members that are whole numbers, once. of_steps: counts steps or names one, so it is no more than `step`.
static const struct {
    const char *name;
    size_t at;
    bool of_steps;
} integers[] = {
    {"step", offsetof(struct train_state, step), true},
    {"stage", offsetof(struct train_state, stage), true},
    {"stage_first", offsetof(struct train_state, stage_first), true},
    {"updates", offsetof(struct train_state, updates), true},
    {"skipped", offsetof(struct train_state, skipped), true},
    {"skipped_in_a_row", offsetof(struct train_state, skipped_in_a_row), true},
    {"tokens", offsetof(struct train_state, tokens), false},
    {"best_step", offsetof(struct train_state, best_step), true},
    {"evaluations_since_best", offsetof(struct train_state, evaluations_since_best), true},
    {"data", offsetof(struct train_state, data), false},
    {"validation", offsetof(struct train_state, validation), false},
};
enum { INTEGERS = sizeof integers / sizeof *integers };

bool train_state_write(const struct train_state *s, const char *path, struct error *err)
{
    json_t *o = json_object();
    bool ok = o != NULL;
    for (int i = 0; ok && i < INTEGERS; i++) {
        int64_t value;
        memcpy(&value, (const char *)s + integers[i].at, sizeof value);
        ok = json_object_set_new(o, integers[i].name, json_integer(value)) == 0;
    }
    ok = ok && json_object_set_new(o, "early", json_boolean(s->early)) == 0;
    if (ok && isfinite(s->best_loss)) {
        ok = json_object_set_new(o, "best_loss", json_real(s->best_loss)) == 0;
    }
    if (ok && s->deciding) ok = json_object_set(o, "options", s->deciding) == 0;
    struct buf all = {0};
    char *text = ok ? json_text(o, JSON_INDENT(1) | JSON_SORT_KEYS) : NULL;
    ok = text && buf_puts(&all, text) && buf_puts(&all, "\n");
    json_decref(o);
    ok = ok ? file_write(path, all.data, all.size, err) : fail(err, "%s: no memory", path);
    mem_free(text);
    buf_free(&all);
    return ok;
}

static bool read_object(struct train_state *s, json_t *o, const char *path, struct error *err)
{
    for (int i = 0; i < INTEGERS; i++) {
        int64_t value = 0;
        const int64_t most =
            i && integers[i].of_steps ? s->step : INT64_MAX / 2; // room to count on
        if (!json_get_int(o, integers[i].name, 0, most, true, &value, path, err)) return false;
        memcpy((char *)s + integers[i].at, &value, sizeof value);
    }
    if (!json_get_bool(o, "early", true, &s->early, path, err)) return false;
    if (!json_get_real(o, "best_loss", -DBL_MAX, DBL_MAX, false, &s->best_loss, path, err)) {
        return false;
    }
    json_t *options = json_object_get(o, "options");
    if (options && !json_is_object(options)) return fail(err, "%s: options: no object", path);
    s->deciding = json_incref(options);
    return true;
}

bool train_state_parse(struct train_state *s, const char *text, size_t size, const char *where,
                       struct error *err)
{
    *s = (struct train_state){.best_loss = (double)NAN};
    json_t *o = json_parse(text, size, where, err);
    if (!o) return false;
    const bool ok = (json_is_object(o) || fail(err, "%s: not an object", where)) &&
                    read_object(s, o, where, err);
    json_decref(o);
    if (!ok) train_state_free(s);
    return ok;
}

bool train_state_read(struct train_state *s, const char *path, struct error *err)
{
    char *text;
    size_t size;
    if (!file_read(&text, &size, path, STATE_LIMIT, err)) return false;
    const bool ok = train_state_parse(s, text, size, path, err);
    mem_free(text);
    return ok;
}

void train_state_free(struct train_state *s)
{
    json_decref(s->deciding);
    s->deciding = NULL;
}

static void value_text(char out[80], const json_t *v)
{
    char *text = json_text(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(15));
    snprintf(out, 80, "%s", text ? text : "not set");
    mem_free(text);
}

static bool same_option(const char *name, const json_t *saved, const json_t *now, const char *where,
                        struct error *err)
{
    if (saved && now && json_equal(saved, now)) return true;
    char was[80], is[80];
    value_text(was, saved);
    value_text(is, now);
    return fail(err, "%s: option %s was %s and is %s now: a resumed run must keep it", where, name,
                was, is);
}

bool train_state_same_run(const struct train_state *saved, const struct train_state *now,
                          const char *where, struct error *err)
{
    void *at;
    const char *name;
    json_t *value;
    for (at = json_object_iter(now->deciding); at; at = json_object_iter_next(now->deciding, at)) {
        name = json_object_iter_key(at);
        value = json_object_iter_value(at);
        if (!same_option(name, json_object_get(saved->deciding, name), value, where, err)) {
            return false;
        }
    }
    for (at = json_object_iter(saved->deciding); at;
         at = json_object_iter_next(saved->deciding, at)) {
        name = json_object_iter_key(at);
        value = json_object_iter_value(at);
        if (!same_option(name, value, json_object_get(now->deciding, name), where, err)) {
            return false;
        }
    }
    if (saved->data != now->data) {
        return fail(err, "%s: the training data are not those that the run began with", where);
    }
    if (saved->validation == now->validation) return true;
    return fail(err, "%s: the validation data are not those that the run began with", where);
}
