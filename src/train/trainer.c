// train/trainer.c - a run from its opening to its result: see train.h for the order of things.
#include "train/trainer.h"

#include "base/file.h"
#include "base/log.h"
#include "train/folder.h"
#include "train/outcome.h"
#include "train/signals.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PATH_SIZE = 4096, EXPERTS_KEPT = 256 };

static bool check_range(const char *name, double x, double low, double high, struct error *err)
{
    char is[NUMBER_TEXT], least[NUMBER_TEXT], most[NUMBER_TEXT];
    if (x >= low && x <= high) return true; // false for NaN
    number_text(is, x);
    number_text(least, low);
    number_text(most, high);
    return fail(err, "%s is %s; %s to %s expected", name, is, least, most);
}

static bool check_options(const struct train_options *o, struct error *err)
{
    const double many = 0x1p31, below_one = 1 - 0x1p-24;
    if (o->batch_tokens <= 0 && o->batch_sequences <= 0) {
        return fail(err, "batch_tokens and batch_sequences are both 0: one of them expected");
    }
    return check_range("batch_tokens", (double)o->batch_tokens, 0, many, err) &&
           check_range("batch_sequences", (double)o->batch_sequences, 0, many, err) &&
           check_range("accumulate", (double)o->accumulate, 1, many, err) &&
           check_range("max_steps", (double)o->max_steps, 0, many, err) &&
           (o->max_steps > 0 || o->max_tokens > 0 ||
            check_range("epochs", o->epochs, 1e-9, 1e6, err)) &&
           check_range("lr", o->lr, 0, 1e30, err) &&
           check_range("weight_decay", o->weight_decay, 0, 1e30, err) &&
           check_range("beta1", o->beta1, 0, below_one, err) &&
           check_range("beta2", o->beta2, 0, below_one, err) &&
           check_range("eps", o->eps, 1e-30, 1, err) &&
           check_range("clip", o->clip, 0, 1e30, err) &&
           check_range("min_lr_rate", o->min_lr_rate, 0, 1, err) &&
           check_range("warmup_steps", (double)o->warmup_steps, 0, many, err) &&
           check_range("warmup_ratio", o->warmup_ratio, 0, 1, err) &&
           check_range("eval_every", (double)o->eval_every, 0, many, err) &&
           check_range("patience", (double)o->patience, 0, many, err);
}

static bool open_data(struct trainer *t, struct error *err)
{
    const struct run *r = t->run;
    for (int64_t i = 0; i < r->n_stages; i++) {
        struct feed *f = &t->feed[i];
        if (!feed_open(f, r->data, &r->stage[i].options, err)) return false;
        if (f->largest > t->batch_tokens) t->batch_tokens = f->largest;
    }
    t->state.data = feed_fingerprint(r->data);
    if (!r->validation) return true;
    if (!feed_pack(&t->validation, r->validation, t->options, 0, false, err)) return false;
    const int64_t largest = feed_largest(&t->validation, r->validation);
    if (largest > t->batch_tokens) t->batch_tokens = largest;
    t->state.validation = feed_fingerprint(r->validation);
    if (r->validation->supervised > 0) return true;
    return fail(err, "the validation data: no token carries loss");
}

// The model of a stage, measured and not yet allocated.
static bool open_setup(struct trainer *t, struct model_setup setup, struct error *err)
{
    model_close(&t->model);
    t->open = -1;
    t->allocated = false;
    setup.max_tokens = t->batch_tokens;
    if (!model_open(&t->model, &setup, err)) return false;
    t->model.plan[PURPOSE_OPTIMIZER] += optimizer_bytes(setup.ops, &t->model.leaves);
    return t->model.leaves.count > 0 || setup.tuning->observes ||
           fail(err, "%s: no weight learns", setup.dir);
}

static bool open_model(struct trainer *t, int64_t i, struct error *err)
{
    if (!open_setup(t, t->run->stage[i].setup, err)) return false;
    t->open = i;
    return true;
}

static bool same_model(const struct model_setup *a, const struct model_setup *b)
{
    return a->tuning == b->tuning && a->routing == b->routing && !strcmp(a->dir, b->dir);
}

static size_t total(const size_t by_purpose[PURPOSE_COUNT])
{
    size_t sum = 0;
    for (int p = 0; p < PURPOSE_COUNT; p++) {
        sum += by_purpose[p];
    }
    return sum;
}

// Of one checkpoint: leaves, and what the tuning saves besides.
static size_t checkpoint_bytes(const struct model *m)
{
    const struct tuning *t = m->setup.tuning;
    const size_t own = t->saved_bytes ? t->saved_bytes(m->tuning_state) : 0;
    return run_checkpoint_bytes(&m->leaves) + own;
}

// The setup of stage i without what earlier stages have yet to leave: the base that theirs comes from, and no
// selection. True if there is any such.
static bool known_setup(struct model_setup *setup, const struct trainer *t, int64_t i)
{
    const struct stage *stage = t->run->stage;
    bool less = false;
    *setup = stage[i].setup;
    for (int64_t k = 0; k < i; k++) {
        const char *made = stage[k].selection;
        const bool awaited = made && !(t->run->resume && file_exists(made));
        if (awaited) setup->tuning_options.selection = NULL;
        if (stage[k].base) setup->dir = stage[0].setup.dir;
        less |= awaited || stage[k].base;
    }
    return less;
}

// Opens the model of every stage once, for the plan and so that what does not fit is said at the start; that
// of the last stays open if it is the one that will run.
static bool measure_stages(struct trainer *t, struct error *err)
{
    const struct stage *stage = t->run->stage;
    for (int64_t i = 0; i < t->run->n_stages; i++) {
        struct model_setup setup;
        if (i && same_model(&stage[i].setup, &stage[i - 1].setup)) continue;
        t->at_most = known_setup(&setup, t, i);
        if (!open_setup(t, setup, err)) return false;
        t->open = t->at_most ? -1 : i;
        const size_t bytes = checkpoint_bytes(&t->model);
        if (bytes > t->checkpoint_bytes) t->checkpoint_bytes = bytes;
        if (total(t->model.plan) > total(t->peak)) memcpy(t->peak, t->model.plan, sizeof t->peak);
    }
    return true;
}

static bool open_parts(struct trainer *t, struct error *err)
{
    const struct run *r = t->run;
    if (r->n_stages < 1 || r->n_stages > STAGES_AT_MOST) {
        return fail(err, "%" PRId64 " stages; 1 to %d expected", r->n_stages, STAGES_AT_MOST);
    }
    for (int64_t i = 0; i < r->n_stages; i++) {
        if (!r->stage[i].setup.tuning) return fail(err, "nothing learns: a tuning expected");
        if (!check_options(&r->stage[i].options, err)) return false;
        if (!train_storage_check(&r->stage[i].setup, &r->stage[i].options, err)) return false;
    }
    if (r->deciding) {
        t->state.deciding = json_parse(r->deciding, strlen(r->deciding), "options", err);
        if (!t->state.deciding) return false;
    }
    return open_data(t, err) && measure_stages(t, err);
}

struct trainer *trainer_open(const struct run *r, struct error *err)
{
    struct trainer *t = mem_zalloc(1, sizeof *t);
    if (!t) {
        fail(err, "no memory for the trainer");
        return NULL;
    }
    t->run = r;
    t->stage = r->stage;
    t->options = &r->stage->options;
    t->lock = -1;
    t->open = -1;
    t->state.best_loss = t->loss = t->eval_loss = (double)NAN;
    if (open_parts(t, err)) return t;
    trainer_close(t);
    return NULL;
}

void trainer_close(struct trainer *t)
{
    if (!t) return;
    metrics_close(&t->metrics);
    optimizer_close(&t->optimizer);
    model_close(&t->model);
    batch_free(&t->batch);
    packing_free(&t->validation);
    for (int i = 0; i < STAGES_AT_MOST; i++) {
        feed_close(&t->feed[i]);
    }
    train_state_free(&t->state);
    dir_unlock(&t->lock);
    mem_free(t);
}

struct model *trainer_model(struct trainer *t)
{
    return &t->model;
}

// The run's checkpoints that are there already take no new room; an old result does, on the safe side.
static bool check_disk(const struct trainer *t, struct error *err)
{
    struct plan p;
    int64_t *step, there;
    if (!folder_checkpoints(&step, &there, t->run->out, err)) return false;
    mem_free(step);
    if (!plan_make(&p, t, err)) return false;
    const int64_t more = p.checkpoints > there ? p.checkpoints - there : 1;
    const double need = (double)p.checkpoint_bytes * (double)more + (double)p.export_bytes;
    const double available = (double)p.disk_free;
    mem_free(p.module);
    if (available < 0 || need <= available) return true;
    return fail(err,
                "%s: %.1f MiB free, %.1f MiB expected (%" PRId64 " checkpoint%s of %.1f MiB, the "
                "result of %.1f MiB)",
                t->run->out, available / 0x1p20, need / 0x1p20, more, more == 1 ? "" : "s",
                (double)p.checkpoint_bytes / 0x1p20, (double)p.export_bytes / 0x1p20);
}

static bool write_options(const struct trainer *t, struct error *err)
{
    char path[PATH_SIZE], plan[PATH_SIZE];
    const char *text = t->run->options ? t->run->options : "{}\n";
    return path_join(path, sizeof path, t->run->out, "run.json", err) &&
           path_join(plan, sizeof plan, t->run->out, "plan.json", err) &&
           file_write(path, text, strlen(text), err) &&
           (t->run->plan ? file_write(plan, t->run->plan, strlen(t->run->plan), err)
                         : dir_remove(plan, err)) &&
           outcome_clear(t->run->out, err);
}

// What learns would be refused by the first checkpoint, after a step or after a day.
static bool check_start(struct trainer *t, struct error *err)
{
    const char *bad = optimizer_not_finite(&t->optimizer, false);
    if (!bad || !t->model.setup.ops->check(err)) return !bad;
    return fail(err, "%s: %s holds what is not finite, and would learn",
                t->stage->setup.adapter ? t->stage->setup.adapter : t->stage->setup.dir, bad);
}

// All that can fail for want of room comes first: an old run is removed only when the new one can start.
static bool prepare(struct trainer *t, struct error *err)
{
    char path[PATH_SIZE];
    const struct run *r = t->run;
    const struct model_setup *setup = &t->stage->setup;
    if (!run_folder_check(r->out, r->resume, r->overwrite, err) || !check_disk(t, err))
        return false;
    if (!batch_reserve(&t->batch, t->batch_tokens, err)) return false;
    if (!trainer_enter_stage(t, 0, err)) return false;
    if (!check_start(t, err)) return false;
    if (!folder_lock(&t->lock, r->out, setup->dir, r->resume, r->overwrite, err)) return false;
    if (!folder_clear(r->out, r->overwrite, err)) return false;
    if (r->resume && !trainer_resume(t, err)) return false;
    if (!t->saved_step && !model_begin_phase(&t->model, t->stage->phase, err)) return false;
    return write_options(t, err) && path_join(path, sizeof path, r->out, "metrics.jsonl", err) &&
           metrics_open(&t->metrics, path, t->state.step, err);
}

int64_t trainer_steps(const struct trainer *t)
{
    int64_t steps = 0;
    for (int64_t i = 0; i < t->run->n_stages; i++) {
        steps += i < t->state.stage ? 0 : t->feed[i].steps;
    }
    return steps + t->state.stage_first;
}

struct feed *trainer_feed(struct trainer *t)
{
    return &t->feed[t->state.stage];
}

int64_t trainer_stage_step(const struct trainer *t)
{
    return t->state.step - t->state.stage_first;
}

bool trainer_enter_stage(struct trainer *t, int64_t stage, struct error *err)
{
    const struct stage *all = t->run->stage;
    t->stage = &all[stage];
    t->options = &t->stage->options;
    if (t->open >= 0 && t->allocated && same_model(&all[t->open].setup, &t->stage->setup)) {
        return true;
    }
    if (t->open != stage && !open_model(t, stage, err)) return false;
    optimizer_close(&t->optimizer);
    t->allocated = model_allocate(&t->model, err) &&
                   optimizer_open(&t->optimizer, t->model.setup.ops, &t->model.leaves, err);
    return t->allocated;
}

static bool stage_ended(const struct trainer *t)
{
    return t->state.early || trainer_stage_step(t) >= t->feed[t->state.stage].steps;
}

// What a stage leaves for the next one.
static bool close_stage(struct trainer *t, struct error *err)
{
    char path[PATH_SIZE];
    const struct stage *s = t->stage;
    if (s->selection && !s->setup.tuning->finish(t->model.tuning_state, s->selection, err)) {
        return false;
    }
    return !s->base || trainer_write(t, path, sizeof path, s->base, false, err);
}

// The next stage goes on from the weights, with a fresh optimizer and schedule.
static bool next_stage(struct trainer *t, struct error *err)
{
    struct train_state *s = &t->state;
    if (!close_stage(t, err)) return false;
    s->stage++;
    s->stage_first = s->step;
    s->updates = s->evaluations_since_best = s->best_step = 0;
    s->best_loss = (double)NAN;
    s->early = false;
    if (!trainer_enter_stage(t, s->stage, err)) return false;
    optimizer_reset(&t->optimizer);
    log_info("stage %" PRId64 " of %" PRId64 ": %s", s->stage + 1, t->run->n_stages,
             t->stage->name);
    return model_begin_phase(&t->model, t->stage->phase, err);
}

static bool evaluation_due(const struct trainer *t)
{
    const int64_t every = t->options->eval_every, step = t->state.step;
    if (!t->run->validation || t->stage->setup.tuning->observes) return false;
    return stage_ended(t) || (every > 0 && step % every == 0);
}

// Before the first step of the first stage in which anything learns.
static bool first_evaluation_due(const struct trainer *t)
{
    const struct stage *stage = t->run->stage;
    if (!t->run->validation || !t->options->eval_first || trainer_stage_step(t) > 0) return false;
    for (int64_t i = 0; i < t->state.stage; i++) {
        if (!stage[i].setup.tuning->observes) return false;
    }
    return !t->stage->setup.tuning->observes;
}

// What each expert did is kept of so many steps of a run, however long it is.
static bool experts_due(const struct trainer *t)
{
    const int64_t step = t->state.step, every = (trainer_steps(t) - 1) / EXPERTS_KEPT + 1;
    return step == 1 || step % every == 0 || stage_ended(t);
}

// A step, its evaluation, its line, and a checkpoint if one is due.
static bool one_step(struct trainer *t, struct error *err)
{
    struct train_step s = {0};
    const struct run *r = t->run;
    const double before = first_evaluation_due(t) ? trainer_evaluate(t) : (double)NAN;
    const bool ok = trainer_step(t, &s, err);
    s.eval_before = before;
    if (ok && evaluation_due(t)) s.eval_loss = trainer_evaluate_step(t);
    json_t *experts = NULL, *routing;
    const bool reported =
        routing_report(&routing, &t->model, experts_due(t) ? &experts : NULL, ok ? err : NULL);
    s.routing = routing;
    s.experts = experts;
    const bool written =
        reported && (s.step <= 0 || metrics_write(&t->metrics, &s, ok ? err : NULL));
    if (written && r->listener && r->listener->step) r->listener->step(r->listener->user, &s);
    json_decref(routing);
    json_decref(experts);
    if (!written || !ok) return false;
    const bool best = !isnan(s.eval_loss) && t->state.best_step == t->state.step;
    const bool due = r->save_every > 0 && t->state.step % r->save_every == 0;
    return !(best || due) || trainer_save(t, err);
}

static bool finished(const struct trainer *t)
{
    return stage_ended(t) && t->state.stage + 1 == t->run->n_stages;
}

static bool must_stop(const struct trainer *t)
{
    return t->run->stop ? t->run->stop(t->run->stop_user) : signals_pending();
}

static bool train(struct trainer *t, struct train_result *result, struct error *err)
{
    const struct train_listener *listen = t->run->listener;
    if (listen && listen->start) listen->start(listen->user, t->state.step, trainer_steps(t));
    while (!finished(t) && !must_stop(t)) {
        if (!(stage_ended(t) ? next_stage(t, err) : one_step(t, err))) return false;
    }
    if (t->state.step > t->saved_step && !trainer_save(t, err)) return false;
    if (!finished(t)) {
        result->outcome = TRAIN_STOPPED;
        return true;
    }
    return trainer_export(t, result->exported, sizeof result->exported, err) &&
           (!t->run->changes || changes_write(&t->model, t->run->out, err));
}

bool trainer_run(struct trainer *t, struct train_result *result, struct error *err)
{
    const double start = monotonic_now();
    *result = (struct train_result){.outcome = TRAIN_DONE};
    if (!t->run->stop && !signals_catch(err)) return false;
    const bool began = prepare(t, err);
    const bool ok = began && train(t, result, err);
    if (!t->run->stop) signals_release();
    result->began = began;
    result->early = t->state.early;
    result->step = t->state.step;
    result->steps = trainer_steps(t);
    result->skipped = t->state.skipped;
    result->loss = t->loss;
    result->eval_loss = t->eval_loss;
    result->best_loss = t->state.best_loss;
    result->best_step = t->state.best_step;
    result->seconds = monotonic_now() - start;
    return began && outcome_write(t->run->out, result, ok, err) && ok;
}
