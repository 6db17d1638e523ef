// cli/eval_loglik.c - `eval --task loglik`: multiple choice by likelihood.
#include "cli/eval.h"

#include "eval/answers.h"
#include "eval/loglik.h"

#include <inttypes.h>
#include <math.h>

static json_t *sum_json(double sum)
{
    return isfinite(sum) ? json_real(sum) : json_null();
}

static bool predict(struct evaluation *e, const struct loglik_item *x, struct error *err)
{
    json_t *line = json_object(), *choices = json_array(), *sums = json_array();
    json_object_set_new(line, "file", json_string(x->file));
    json_object_set_new(line, "line", json_integer(x->line));
    json_object_set_new(line, "prompt", json_string(x->context));
    for (int64_t i = 0; i < x->n_choices; i++) {
        json_array_append_new(choices, json_string(x->choice[i].text));
        json_array_append_new(sums, sum_json(x->choice[i].sum));
    }
    json_object_set_new(line, "choices", choices);
    json_object_set_new(line, "loglik", sums);
    json_object_set_new(line, "prediction", json_integer(x->best));
    json_object_set_new(line, "prediction_norm", json_integer(x->best_by_characters));
    json_object_set_new(line, "prediction_bytes", json_integer(x->best_by_bytes));
    json_object_set_new(line, "reference", json_integer(x->gold));
    json_object_set_new(line, "correct", json_boolean(x->best == x->gold));
    json_object_set_new(line, "correct_norm", json_boolean(x->best_by_characters == x->gold));
    json_object_set_new(line, "correct_bytes", json_boolean(x->best_by_bytes == x->gold));
    return eval_predict(e, line, err);
}

static bool report(struct evaluation *e, const struct loglik_score *s, struct error *err)
{
    static const char *const words[] = {"accuracy", "by characters (acc_norm)",
                                        "by bytes (acc_bytes)"};
    static const char *const keys[][2] = {
        {"acc", "acc_stderr"}, {"acc_norm", "acc_norm_stderr"}, {"acc_bytes", "acc_bytes_stderr"}};
    const int64_t right[] = {s->right, s->right_by_characters, s->right_by_bytes};
    json_t *line = json_object();
    json_object_set_new(line, "task", json_string("loglik"));
    for (int i = 0; i < 3; i++) {
        const double share = (double)right[i] / (double)(s->count ? s->count : 1);
        const double error = standard_error(share, s->count);
        fprintf(e->io->people, "%s%s %.2f %% (standard error %.2f)", i ? ", " : "", words[i],
                100 * share, 100 * error);
        json_object_set_new(line, keys[i][0], json_real(share));
        json_object_set_new(line, keys[i][1], json_real(error));
    }
    fprintf(e->io->people, ", over %" PRId64 " examples\n", s->count);
    json_object_set_new(line, "examples", json_integer(s->count));
    if (e->io->json) return output_json(e->io, line, err);
    json_decref(line);
    return true;
}

static bool score(struct evaluation *e, struct loglik_data *d, struct error *err)
{
    struct loglik_score s;
    const int64_t all = d->ids.count, batch = e->o->config.train.batch_tokens;
    const int64_t most = all < batch ? all : batch;
    if (!e->io->quiet) {
        fprintf(e->io->status, "data: %" PRId64 " examples", d->count);
        if (d->bad) fprintf(e->io->status, "; %" PRId64 " malformed, skipped", d->bad);
        fputc('\n', e->io->status);
    }
    if (!eval_open_model(e, d->longest > most ? d->longest : most, 0, err) ||
        !eval_open_predictions(e, err) || !loglik_score(&s, &e->model, d, &e->listener, err)) {
        return false;
    }
    progress_end(&e->progress);
    for (int64_t i = 0; i < d->count; i++) {
        if (!predict(e, &d->item[i], err)) return false;
    }
    return eval_commit_predictions(e, err) && report(e, &s, err);
}

bool eval_loglik(struct evaluation *e, struct error *err)
{
    const struct run_config *c = &e->o->config;
    const struct text_setup *t = e->text;
    struct loglik_data d;
    const struct loglik_options o = {
        .files = c->data.item,
        .n_files = c->data.count,
        .limit = c->dataset.limit,
        .skip_bad = c->dataset.skip_bad,
        .tokenizer = t->tokenizer,
        .bos = t->special.add_bos ? tokenizer_id(t->tokenizer, t->special.bos) : -1,
        .max_positions = t->config.max_positions,
    };
    const bool ok = loglik_open(&d, &o, err) && score(e, &d, err);
    loglik_close(&d);
    return ok;
}
