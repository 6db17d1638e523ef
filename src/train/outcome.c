// train/outcome.c - see outcome.h; changes.json is in changes.c.
#include "train/outcome.h"

#include "base/file.h"
#include "io/json.h"

#include <math.h>
#include <stdio.h>
#include <time.h>

double monotonic_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

bool outcome_clear(const char *out, struct error *err)
{
    char path[4096];
    return path_join(path, sizeof path, out, "result.json", err) && dir_remove(path, err) &&
           path_join(path, sizeof path, out, "changes.json", err) && dir_remove(path, err);
}

static void set_real(json_t *o, const char *name, double x)
{
    if (isfinite(x)) json_object_set_new(o, name, json_real(x));
}

static void set_time(json_t *o)
{
    char text[32];
    struct tm utc;
    const time_t now = time(NULL);
    if (gmtime_r(&now, &utc) && strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc)) {
        json_object_set_new(o, "finished", json_string(text));
    }
}

bool outcome_write(const char *out, const struct train_result *r, bool ok, struct error *err)
{
    char path[4096];
    struct error why;
    json_begin(); // what a value lacked for which the run failed, this one has
    json_t *o = json_object();
    const char *word = !ok                           ? "failed"
                       : r->outcome == TRAIN_STOPPED ? "stopped"
                       : r->early                    ? "early"
                                                     : "done";
    json_object_set_new(o, "outcome", json_string(word));
    json_object_set_new(o, "step", json_integer(r->step));
    json_object_set_new(o, "steps", json_integer(r->steps));
    json_object_set_new(o, "skipped", json_integer(r->skipped));
    set_real(o, "loss", r->loss);
    set_real(o, "eval_loss", r->eval_loss);
    set_real(o, "best_loss", r->best_loss);
    if (r->best_step) json_object_set_new(o, "best_step", json_integer(r->best_step));
    set_real(o, "seconds", r->seconds);
    set_time(o);
    if (!ok && err) json_object_set_new(o, "error", json_string(err->msg));
    const bool written =
        path_join(path, sizeof path, out, "result.json", &why) && json_write_file(path, o, &why);
    json_decref(o);
    return written || (ok ? fail(err, "%s", why.msg) : true); // a failure's own words stay
}
