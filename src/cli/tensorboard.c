// cli/tensorboard.c - see tensorboard.h.
#include "cli/tensorboard.h"

#include "base/file.h"
#include "base/log.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <time.h>

enum { SCALARS = 32, TAG = 64 };

struct scalars {
    struct event_scalar scalar[SCALARS];
    char tag[SCALARS][TAG];
    int64_t n;
};

static double wall_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void add(struct scalars *s, const char *group, const char *name, double value)
{
    if (!isfinite(value) || s->n == SCALARS) return;
    snprintf(s->tag[s->n], TAG, "%s%s", group, name);
    s->scalar[s->n] = (struct event_scalar){s->tag[s->n], value};
    s->n++;
}

// Of a value for each layer the mean.
static double value_of(const json_t *v)
{
    double sum = 0;
    const size_t n = json_array_size(v);
    for (size_t i = 0; i < n; i++) {
        sum += json_number_value(json_array_get(v, i));
    }
    return n ? sum / (double)n : json_is_number(v) ? json_number_value(v) : (double)NAN;
}

static void give_up(struct tensorboard *t, const struct error *err)
{
    log_warning("no more numbers for TensorBoard: %s", err->msg);
    tensorboard_close(t);
}

void tensorboard_open(struct tensorboard *t, const char *run, int64_t step)
{
    struct error err;
    char dir[4096], path[4096], name[64];
    // By the step it goes on after: a session that begins there again takes the place of the one before.
    snprintf(name, sizeof name, "events.out.tfevents.%010" PRId64 ".moetune", step);
    t->open = path_join(dir, sizeof dir, run, "tensorboard", &err) && dir_make(dir, &err) &&
              path_join(path, sizeof path, dir, name, &err) &&
              event_file_open(&t->file, path, wall_time(), step, &err);
    if (!t->open) give_up(t, &err);
}

void tensorboard_step(struct tensorboard *t, const struct train_step *s)
{
    struct error err;
    struct scalars all = {.n = 0};
    void *at;
    if (!t->open) return;
    add(&all, "loss/", "train", s->loss);
    add(&all, "loss/", "validation", s->eval_loss);
    add(&all, "loss/", "validation_before", s->eval_before);
    add(&all, "", "learning_rate", s->lr);
    add(&all, "", "gradient_norm", s->grad_norm);
    add(&all, "", "tokens_per_second", s->tokens_per_second);
    json_t *routing = (json_t *)s->routing; // jansson's iterators take no const
    for (at = json_object_iter(routing); at; at = json_object_iter_next(routing, at)) {
        add(&all, "routing/", json_object_iter_key(at), value_of(json_object_iter_value(at)));
    }
    if (!event_file_add(&t->file, wall_time(), s->step, all.scalar, all.n, &err)) give_up(t, &err);
}

void tensorboard_close(struct tensorboard *t)
{
    if (t->open) event_file_close(&t->file);
    t->open = false;
}
