// train/keep.c - what a run leaves on the disk: checkpoints, how it goes on from them, and the result.
#include "base/dir.h"
#include "base/file.h"
#include "base/log.h"
#include "train/folder.h"
#include "train/trainer.h"

#include <inttypes.h>
#include <stdio.h>

enum { PATH_SIZE = 4096 };

struct saved trainer_saved(const struct trainer *t)
{
    const struct model *m = &t->model;
    return (struct saved){m->setup.ops,     &m->leaves,      m->setup.routing,
                          m->routing_state, m->setup.tuning, m->tuning_state};
}

static void tell_saving(const struct trainer *t, const char *path)
{
    const struct train_listener *listen = t->run->listener;
    if (listen && listen->saving) listen->saving(listen->user, path);
}

static bool prune(const struct trainer *t, struct error *err)
{
    const int64_t keep = t->run->keep_last > 1 ? t->run->keep_last : 1;
    return folder_prune(t->run->out, t->state.step, keep, t->state.best_step, err);
}

bool trainer_save(struct trainer *t, struct error *err)
{
    char path[PATH_SIZE];
    const struct saved what = trainer_saved(t);
    const struct run *r = t->run;
    const char *bad = optimizer_not_finite(&t->optimizer, true);
    if (!t->model.setup.ops->check(err)) return false; // what it gave was no number
    if (bad) {
        return fail(err,
                    "step %" PRId64 ": %s is no longer finite, which is not saved; the newest "
                    "checkpoint is of step %" PRId64,
                    t->state.step, bad, t->saved_step);
    }
    if (!checkpoint_check_files(&t->model.checkpoint, err)) return false;
    if (!folder_checkpoint_path(path, sizeof path, r->out, t->state.step, err)) return false;
    tell_saving(t, path);
    if (!metrics_sync(&t->metrics, err)) return false;
    if (!run_checkpoint_save(r->out, &what, &t->state, err)) return false;
    t->saved_step = t->state.step;
    return prune(t, err);
}

enum candidate { CANDIDATE_GOOD, CANDIDATE_BAD, CANDIDATE_OF_ANOTHER_RUN };

// Values, moments and states of a stage, into a model that is open for it.
static bool load_into(struct trainer *t, const char *path, const struct manifest *manifest,
                      int64_t stage, struct error *err)
{
    if (!trainer_enter_stage(t, stage, err)) return false;
    const struct saved what = trainer_saved(t);
    if (!run_checkpoint_values(path, manifest, &what, err) ||
        !run_checkpoint_rest(path, manifest, &what, err)) {
        return false;
    }
    model_refresh(&t->model);
    return true;
}

static enum candidate load(struct trainer *t, const char *path, int64_t step, struct error *err)
{
    struct manifest manifest;
    struct train_state state;
    if (!run_checkpoint_state(path, step, &manifest, &state, err)) return CANDIDATE_BAD;
    enum candidate result = CANDIDATE_GOOD;
    if (!train_state_same_run(&state, &t->state, path, err)) {
        result = CANDIDATE_OF_ANOTHER_RUN;
    } else if (state.step > trainer_steps(t) || state.stage >= t->run->n_stages) {
        fail(err, "%s: step %" PRId64 " of a run of %" PRId64, path, state.step, trainer_steps(t));
        result = CANDIDATE_OF_ANOTHER_RUN;
    } else if (!load_into(t, path, &manifest, state.stage, err)) {
        result = CANDIDATE_BAD;
    }
    manifest_free(&manifest);
    if (result == CANDIDATE_GOOD) {
        train_state_free(&t->state);
        t->state = state;
        t->saved_step = state.step;
    } else {
        train_state_free(&state);
    }
    return result;
}

bool trainer_resume(struct trainer *t, struct error *err)
{
    int64_t *step, count;
    char path[PATH_SIZE];
    struct error why = {0};
    if (!folder_checkpoints(&step, &count, t->run->out, err)) return false;
    enum candidate result = CANDIDATE_BAD;
    for (int64_t i = 0; i < count && result == CANDIDATE_BAD; i++) {
        if (!folder_checkpoint_path(path, sizeof path, t->run->out, step[i], err)) break;
        result = load(t, path, step[i], &why);
        if (result == CANDIDATE_BAD) log_warning("checkpoint skipped: %s", why.msg);
    }
    mem_free(step);
    if (result == CANDIDATE_GOOD) {
        log_info("resumed from %s", path);
        return prune(t, err); // a kill may have come between the save and this
    }
    if (result == CANDIDATE_OF_ANOTHER_RUN) return fail(err, "%s", why.msg);
    if (count) {
        return fail(err, "%s: none of %" PRId64 " checkpoints verifies; the last: %s", t->run->out,
                    count, why.msg);
    }
    log_info("%s: no checkpoint yet, the run starts from the beginning", t->run->out);
    return true;
}

static bool load_best(struct trainer *t, struct error *err)
{
    char path[PATH_SIZE];
    struct manifest manifest;
    struct train_state state;
    const struct saved what = trainer_saved(t);
    if (!folder_checkpoint_path(path, sizeof path, t->run->out, t->state.best_step, err) ||
        !run_checkpoint_state(path, t->state.best_step, &manifest, &state, err)) {
        return false;
    }
    const bool ok = run_checkpoint_values(path, &manifest, &what, err) &&
                    run_checkpoint_routing(path, &manifest, &what, err);
    if (ok) model_refresh(&t->model);
    manifest_free(&manifest);
    train_state_free(&state);
    return ok;
}

bool trainer_write(struct trainer *t, char *path, size_t size, const char *name, bool adapter,
                   struct error *err)
{
    char temporary[PATH_SIZE], temporary_name[64];
    snprintf(temporary_name, sizeof temporary_name, "%s.tmp", name);
    if (!path_join(path, size, t->run->out, name, err) ||
        !path_join(temporary, sizeof temporary, t->run->out, temporary_name, err)) {
        return false;
    }
    tell_saving(t, path);
    return dir_remove(temporary, err) &&
           (adapter ? model_save_adapter : model_export)(&t->model, temporary, err) &&
           checkpoint_check_files(&t->model.checkpoint, err) && dir_replace(path, temporary, err);
}

bool trainer_makes_adapter(const struct trainer *t)
{
    const struct run *r = t->run;
    return r->stage[r->n_stages - 1].setup.tuning->format && !r->merge;
}

bool trainer_export(struct trainer *t, char *path, size_t size, struct error *err)
{
    const bool best = t->run->export_best && t->state.best_step > 0;
    if (best && t->state.best_step != t->state.step && !load_best(t, err)) {
        return fail_in(err, "the best checkpoint cannot be exported");
    }
    const bool adapter = trainer_makes_adapter(t);
    return trainer_write(t, path, size, adapter ? "adapter" : "model", adapter, err);
}
