// train/step.c - one step of the optimizer, and one pass over the validation data.
#include "base/log.h"
#include "train/outcome.h"
#include "train/trainer.h"

#include <inttypes.h>
#include <math.h>

enum { SKIPPED_AT_MOST = 3 }; // in a row

static void end_micro_batch(const struct model *m)
{
    const struct routing *r = m->setup.routing;
    if (m->routing_state && r->after_micro_batch) r->after_micro_batch(m->routing_state);
}

static void forward_backward(struct model *m, const struct batch *b, float scale)
{
    const bool back = !m->setup.tuning->forward_only;
    model_forward(m, b, NULL, true);
    model_loss(m, b, back ? scale : 0);
    if (back) model_backward(m, b);
    end_micro_batch(m);
}

// The i-th micro-batch of the epoch, one of the step's.
static void take_batch(struct trainer *t, const struct feed_step *f, int64_t i)
{
    feed_batch(trainer_feed(t), i, &t->batch);
    t->model.router_loss_weight = (double)t->batch.n / (double)f->tokens;
    t->model.pass = (uint64_t)(t->state.step * t->options->accumulate + i - f->first);
}

// Every micro-batch is scaled by the supervised tokens of the whole step, so that their gradients add
// up to that of the mean over the step, however unequal they are.
static bool accumulate(struct trainer *t, const struct feed_step *f, struct error *err)
{
    const float scale = (float)(1.0 / (double)f->supervised);
    int64_t supervised = 0;
    for (int64_t i = f->first; i < f->first + f->count; i++) {
        take_batch(t, f, i);
        supervised += t->batch.supervised;
        forward_backward(&t->model, &t->batch, scale);
    }
    if (supervised == f->supervised) return true;
    return fail(err, "step %" PRId64 ": %" PRId64 " supervised tokens, %" PRId64 " expected",
                t->state.step + 1, supervised, f->supervised);
}

// A stage that only observes: what it saw cannot be taken back, so nothing may be wrong with it.
static bool observe(const struct train_step *s, struct error *err)
{
    return isfinite(s->loss) ||
           fail(err,
                "step %" PRId64 ": the loss is not finite while only scores are taken: the model "
                "or the data are unusable",
                s->step);
}

// All gradients first, then the update, which the backend itself leaves undone where they or the loss are not
// usable: the host asks afterwards, and waits once.
static bool whole_step(struct trainer *t, struct train_step *s, const struct feed_step *f,
                       bool *usable, struct error *err)
{
    struct model *m = &t->model;
    const struct optimizer *o = &t->optimizer;
    const struct tuning *tuning = m->setup.tuning;
    if (!accumulate(t, f, err)) return false;
    optimizer_measure(o, m->loss_sum, t->options->clip);
    if (tuning->take_gradients && optimizer_outcome(o, &s->grad_norm)) {
        tuning->take_gradients(m->tuning_state);
    }
    optimizer_update(o, t->options, s->lr, t->state.updates + 1);
    model_refresh(m);
    *usable = optimizer_outcome(o, &s->grad_norm);
    s->loss = model_take_loss(m) / (double)f->supervised;
    if (!m->setup.ops->check(err)) return false;
    if (tuning->observes && !observe(s, err)) return false;
    t->state.updates += *usable;
    return true;
}

static bool moved_by_bad_gradients(const struct trainer *t, const struct train_step *s,
                                   struct error *err)
{
    char norm[NUMBER_TEXT];
    number_text(norm, s->grad_norm);
    return fail(err,
                "step %" PRId64 ": gradient norm %s, not finite or too large, and --fused-backward "
                "has moved weights by it: the run ends. The newest checkpoint is of step %" PRId64
                "; --resume --no-fused-backward goes on from it and skips the step",
                s->step, norm, t->saved_step);
}

// One micro-batch, whose backward pass moves the leaves, unless the loss is not finite: such a step is skipped as
// ever. Gradients that are not usable although the loss is finite show only when leaves have moved, which ends the
// run: nothing of it is saved.
static bool fused_step(struct trainer *t, struct train_step *s, const struct feed_step *f,
                       bool *usable, struct error *err)
{
    struct model *m = &t->model;
    struct update update = {&t->optimizer, t->options, s->lr, t->state.updates + 1};
    double norm;
    take_batch(t, f, f->first);
    model_forward(m, &t->batch, NULL, true);
    model_loss(m, &t->batch, (float)(1.0 / (double)f->supervised));
    fused_update_begin(&update, m->loss_sum);
    m->gradients = (struct gradient_watcher){&update, fused_update_section};
    model_backward(m, &t->batch);
    m->gradients = (struct gradient_watcher){NULL, NULL};
    model_refresh(m);
    end_micro_batch(m);
    const enum fused_outcome outcome = fused_update_outcome(&update, &norm);
    s->loss = model_take_loss(m) / (double)f->supervised;
    if (!m->setup.ops->check(err)) return false;
    *usable = outcome != FUSED_SKIPPED;
    if (*usable) s->grad_norm = norm;
    if (outcome == FUSED_SPOILT) return moved_by_bad_gradients(t, s, err);
    t->state.updates += *usable;
    return true;
}

static void end_step(const struct model *m, bool applied)
{
    const struct routing *r = m->setup.routing;
    if (m->routing_state && r->after_step) r->after_step(m->routing_state, applied);
}

static bool skip(struct trainer *t, const struct train_step *s, struct error *err)
{
    char loss[NUMBER_TEXT], norm[NUMBER_TEXT];
    struct train_state *state = &t->state;
    state->skipped++;
    state->skipped_in_a_row++;
    number_text(loss, s->loss);
    number_text(norm, s->grad_norm);
    log_warning("step %" PRId64 " skipped: loss %s, gradient norm %s", s->step, loss, norm);
    if (state->skipped_in_a_row < SKIPPED_AT_MOST) return true;
    return fail(err,
                "step %" PRId64
                ": loss %s, gradient norm %s: not finite or too large in %d steps in a "
                "row; the newest checkpoint is of step %" PRId64,
                s->step, loss, norm, SKIPPED_AT_MOST, t->saved_step);
}

bool trainer_step(struct trainer *t, struct train_step *s, struct error *err)
{
    const double start = monotonic_now();
    const int64_t index = trainer_stage_step(t), steps = trainer_feed(t)->steps;
    const bool observes = t->model.setup.tuning->observes;
    struct feed_step f;
    if (!feed_seek(trainer_feed(t), index, &f, err)) return false;
    *s = (struct train_step){.step = t->state.step + 1,
                             .steps = trainer_steps(t),
                             .stage = t->state.stage,
                             .loss = (double)NAN,
                             .grad_norm = (double)NAN,
                             .eval_loss = (double)NAN,
                             .eval_before = (double)NAN,
                             .lr = observes ? 0 : schedule_lr(t->options, index, steps),
                             .tokens = f.tokens};
    bool usable = true, ok = true;
    const bool fused = t->model.setup.storage.shared_gradients && !observes;
    if (f.supervised > 0) {
        if (!(fused ? fused_step : whole_step)(t, s, &f, &usable, err)) return false;
        end_step(&t->model, usable);
    } else {
        log_warning("step %" PRId64 ": no token carries loss, nothing learns", s->step);
    }
    t->state.step++;
    t->state.tokens += f.tokens;
    if (usable) t->state.skipped_in_a_row = 0;
    if (!usable) ok = skip(t, s, err);
    t->loss = s->loss;
    s->skipped = t->state.skipped;
    s->seconds = monotonic_now() - start;
    s->tokens_per_second = s->seconds > 0 ? (double)f.tokens / s->seconds : 0;
    return ok;
}

double trainer_evaluate(struct trainer *t)
{
    const struct train_listener *listen = t->run->listener;
    int64_t supervised = 0;
    for (int64_t i = 0; i < t->validation.count; i++) {
        packing_batch(&t->validation, t->run->validation, i, &t->batch);
        model_forward(&t->model, &t->batch, NULL, false);
        model_loss(&t->model, &t->batch, 0);
        supervised += t->batch.supervised;
        if (listen && listen->evaluating) {
            listen->evaluating(listen->user, i + 1, t->validation.count);
        }
    }
    const double loss = model_take_loss(&t->model) / (double)supervised;
    if (!isfinite(loss)) {
        log_warning("step %" PRId64 ": the validation loss is not finite; it is never the best",
                    t->state.step);
    }
    return loss;
}

double trainer_evaluate_step(struct trainer *t)
{
    struct train_state *s = &t->state;
    t->eval_loss = trainer_evaluate(t);
    const bool best = isfinite(t->eval_loss) && !(t->eval_loss >= s->best_loss);
    if (best) {
        s->best_loss = t->eval_loss;
        s->best_step = s->step;
        s->evaluations_since_best = 0;
    } else {
        s->evaluations_since_best++;
    }
    s->early = t->options->patience > 0 && s->evaluations_since_best >= t->options->patience;
    return t->eval_loss;
}
