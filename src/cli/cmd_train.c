// cli/cmd_train.c - the main job: says what it will do, does it, and shows how far it is.
#include "base/log.h"
#include "cli/commands.h"
#include "cli/job.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/routing_words.h"
#include "cli/samples.h"
#include "cli/tensorboard.h"
#include "train/signals.h"

#include <inttypes.h>
#include <math.h>

struct show {
    struct output *io;
    struct progress progress, validation;
    double loss;                // of the newest step, smoothed over about ten
    bool routing;               // on request: what the experts did
    int64_t experts;            // of a layer
    bool unprinted;             // a step that --json has no line of
    const char *tensorboard_in; // the run's folder; NULL: no numbers for TensorBoard
    struct tensorboard tensorboard;
};

static void started(void *user, int64_t step, int64_t steps)
{
    struct show *s = user;
    progress_from(&s->progress, step);
    if (s->tensorboard_in) tensorboard_open(&s->tensorboard, s->tensorboard_in, step);
    if (step && !s->io->quiet) {
        fprintf(s->io->status, "going on after step %" PRId64 " of %" PRId64 "\n", step, steps);
    }
}

static void print_step_json(struct show *s, const struct train_step *t)
{
    json_t *j = json_object();
    json_object_set_new(j, "step", json_integer(t->step));
    json_object_set_new(j, "steps", json_integer(t->steps));
    json_object_set_new(j, "stage", json_integer(t->stage));
    json_object_set_new(j, "loss", isfinite(t->loss) ? json_real(t->loss) : json_null());
    json_object_set_new(j, "lr", json_real(t->lr));
    json_object_set_new(j, "grad_norm",
                        isfinite(t->grad_norm) ? json_real(t->grad_norm) : json_null());
    json_object_set_new(j, "tokens", json_integer(t->tokens));
    json_object_set_new(j, "tokens_per_second", json_real(t->tokens_per_second));
    json_object_set_new(j, "seconds", json_real(t->seconds));
    json_object_set_new(j, "skipped", json_integer(t->skipped));
    if (isfinite(t->eval_loss)) json_object_set_new(j, "eval_loss", json_real(t->eval_loss));
    if (s->routing && t->routing) json_object_set_new(j, "routing", json_deep_copy(t->routing));
    s->unprinted |= !output_json(s->io, j, NULL);
}

// "loss 1.2345, 512 tokens/s", and what else there is to say in the progress line.
static void words_of_step(char *out, size_t size, const struct show *s, const struct train_step *t)
{
    char skipped[40] = "", routing[160] = "";
    if (t->skipped) snprintf(skipped, sizeof skipped, ", %" PRId64 " skipped", t->skipped);
    if (s->routing) routing_words(routing, sizeof routing, t->routing, s->experts);
    snprintf(out, size, "loss %.4f, %.0f tokens/s%s%s%s", s->progress.terminal ? s->loss : t->loss,
             t->tokens_per_second, skipped, *routing ? ", " : "", routing);
}

static void stepped(void *user, const struct train_step *t)
{
    struct show *s = user;
    char words[300], line[256];
    if (s->io->json) print_step_json(s, t);
    tensorboard_step(&s->tensorboard, t);
    if (isfinite(t->loss)) s->loss = isfinite(s->loss) ? 0.9 * s->loss + 0.1 * t->loss : t->loss;
    words_of_step(words, sizeof words, s, t);
    if (!isfinite(t->loss)) {
        snprintf(line, sizeof line, "step %" PRId64 " skipped: loss or gradient is not finite",
                 t->step);
        progress_line(&s->progress, line);
    }
    if (isfinite(t->eval_loss)) {
        snprintf(line, sizeof line, "step %" PRId64 ": validation loss %.4f", t->step,
                 t->eval_loss);
        progress_line(&s->progress, line);
    }
    progress_show(&s->progress, t->step, t->steps, words);
}

static void evaluating(void *user, int64_t done, int64_t of)
{
    struct show *s = user;
    if (!s->progress.terminal) return;
    if (done == 1) { // with a clock of its own
        progress_open(&s->validation, s->io, "micro-batches");
        progress_from(&s->validation, done);
    }
    progress_show(&s->validation, done, of, "validation");
}

static void saving(void *user, const char *path)
{
    struct show *s = user;
    char line[4200];
    snprintf(line, sizeof line, "saving %s", path);
    progress_line(&s->progress, line);
}

static bool print_result_json(struct output *io, const struct train_result *r, struct error *err)
{
    json_t *j = json_object();
    json_object_set_new(j, "outcome",
                        json_string(r->outcome == TRAIN_STOPPED ? "stopped"
                                    : r->early                  ? "early"
                                                                : "done"));
    json_object_set_new(j, "step", json_integer(r->step));
    json_object_set_new(j, "steps", json_integer(r->steps));
    json_object_set_new(j, "skipped", json_integer(r->skipped));
    if (isfinite(r->loss)) json_object_set_new(j, "loss", json_real(r->loss));
    if (isfinite(r->eval_loss)) json_object_set_new(j, "eval_loss", json_real(r->eval_loss));
    if (isfinite(r->best_loss)) json_object_set_new(j, "best_loss", json_real(r->best_loss));
    if (r->best_step) json_object_set_new(j, "best_step", json_integer(r->best_step));
    if (*r->exported) json_object_set_new(j, "model", json_string(r->exported));
    return output_json(io, j, err);
}

static void print_result(FILE *f, const struct train_result *r, const char *out)
{
    if (r->outcome == TRAIN_STOPPED) {
        if (r->step) {
            fprintf(f, "stopped after step %" PRId64 " of %" PRId64 "; saved; go on with", r->step,
                    r->steps);
        } else {
            fprintf(f, "stopped before step 1 of %" PRId64 "; nothing to save; start it with",
                    r->steps);
        }
        fprintf(f, ": moetune train --resume --out %s\n", out);
        return;
    }
    fprintf(f, "done: %" PRId64 " steps", r->step);
    if (r->early) fprintf(f, " of %" PRId64 " (no improvement any more)", r->steps);
    if (isfinite(r->loss)) fprintf(f, ", loss %.4f", r->loss);
    if (isfinite(r->eval_loss)) fprintf(f, ", validation loss %.4f", r->eval_loss);
    if (r->best_step) {
        fprintf(f, " (lowest %.4f after step %" PRId64 ")", r->best_loss, r->best_step);
    }
    if (r->skipped) fprintf(f, ", %" PRId64 " steps skipped", r->skipped);
    fprintf(f, "\n%s\n", r->exported);
}

// The run is over whatever becomes of its page: what goes wrong here is warned of.
static void write_report(const struct job *j, const struct options *o, const struct show *s,
                         const struct train_result *r)
{
    char path[4096];
    struct error err;
    if (!r->began || !o->config.report) return;
    if (o->config.report_samples && *r->exported && !samples_write(j, o, r->exported, &err)) {
        log_warning("no samples for the report: %s", err.msg);
    }
    if (!report_path(path, sizeof path, o->config.out, &err) ||
        !report_write(o->config.out, path, NULL, &err)) {
        log_warning("no report: %s", err.msg);
    } else if (!s->io->quiet) {
        fprintf(s->io->status, "%s\n", path); // the last line of people's is the result
    }
}

static enum status run(struct job *j, struct show *s, struct options *o, struct error *err)
{
    struct train_result r;
    if (!s->io->quiet) {
        fprintf(s->io->people, "options: %s\n", j->options);
        job_print_plan(s->io->people, j);
        fflush(s->io->people);
    }
    progress_open(&s->progress, s->io, "steps");
    const bool ok = trainer_run(j->trainer, &r, err);
    progress_end(&s->progress);
    tensorboard_close(&s->tensorboard);
    if (!ok) {
        write_report(j, o, s, &r);
        return STATUS_FAILED;
    }
    if (!s->io->quiet) print_result(s->io->people, &r, o->config.out);
    write_report(j, o, s, &r);
    if (s->io->json && !print_result_json(s->io, &r, err)) return STATUS_FAILED;
    if (s->unprinted) {
        fail(err, "no memory for the line of a step; %s is complete", o->config.out);
        return STATUS_FAILED;
    }
    return r.outcome == TRAIN_STOPPED ? STATUS_STOPPED : STATUS_DONE;
}

enum status command_train(struct options *o, struct output *io, struct error *err)
{
    struct job j;
    struct show s = {.io = io, .loss = (double)NAN, .routing = o->config.show_routing};
    const struct train_listener listener = {&s, started, stepped, evaluating, saving};
    const struct run_config *c = &o->config;
    if (c->resume && c->overwrite) {
        fail(err, "--resume and --overwrite exclude each other");
        return STATUS_USAGE;
    }
    if (!run_folder_check(c->out, c->resume, c->overwrite, err)) return STATUS_FAILED;
    if (!signals_begin(err) || !job_open(&j, o, c->out, &listener, err)) return STATUS_FAILED;
    if (c->tensorboard) s.tensorboard_in = c->out;
    s.experts = trainer_model(j.trainer)->config.n_experts;
    const enum status status = run(&j, &s, o, err);
    job_close(&j);
    return status;
}
