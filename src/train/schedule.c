// train/schedule.c - the learning rate of each step, as `transformers` computes it (optimization.py):
// step s of W warm-up steps uses lr s/W, s from 0.
#include "train/train.h"

#include <math.h>
#include <string.h>

static const char *const names[] = {"constant", "linear", "cosine", "cosine-floor"};
enum { SCHEDULES = sizeof names / sizeof *names };

const char *schedule_name(enum schedule s)
{
    return names[s];
}

bool schedule_find(enum schedule *s, const char *name, struct error *err)
{
    for (int i = 0; i < SCHEDULES; i++) {
        if (strcmp(names[i], name) != 0) continue;
        *s = (enum schedule)i;
        return true;
    }
    return fail(err, "schedule '%s' is unknown; constant, linear, cosine or cosine-floor expected",
                name);
}

int64_t schedule_warmup(const struct train_options *o, int64_t steps)
{
    if (o->warmup_steps > 0) return o->warmup_steps;
    return (int64_t)ceil(o->warmup_ratio * (double)steps);
}

static double floor_of(const struct train_options *o)
{
    return o->schedule == SCHEDULE_COSINE_FLOOR ? o->min_lr_rate : 0;
}

static double share_of_peak(const struct train_options *o, int64_t s, int64_t steps)
{
    const int64_t warmup = schedule_warmup(o, steps);
    if (s < warmup) return (double)s / (double)warmup;
    if (o->schedule == SCHEDULE_CONSTANT) return 1;

    const double rest = steps > warmup ? (double)(steps - warmup) : 1;
    if (o->schedule == SCHEDULE_LINEAR) return fmax(0, (double)(steps - s) / rest);
    const double pi = 3.141592653589793;
    const double cosine = 0.5 * (1.0 + cos(pi * ((double)(s - warmup) / rest)));
    return fmax(0, cosine * (1 - floor_of(o)) + floor_of(o));
}

double schedule_lr(const struct train_options *o, int64_t s, int64_t steps)
{
    return o->lr * share_of_peak(o, s, steps);
}
