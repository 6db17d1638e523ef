// cli/cmd_eval.c - scores of a model on examples.
#include "base/log.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/progress.h"
#include "cli/setup.h"
#include "eval/score.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

struct evaluation {
    struct options *o;
    struct output *io;
    const struct text_setup *text;
    struct dataset data;
    struct model model;
    struct tokens stop;
    struct file_writer predictions; // fd -1: none
    struct progress progress;
};

static bool count(void *user, int64_t done, int64_t of)
{
    struct evaluation *e = user;
    progress_show(&e->progress, done, of, NULL);
    return true;
}

static bool open_model(struct evaluation *e, int64_t max_tokens, int64_t cache_rows,
                       struct error *err)
{
    struct model_setup setup;
    if (!setup_model(&setup, e->o, false, err)) return false;
    setup.max_tokens = max_tokens;
    setup.cache_rows = cache_rows;
    return model_open(&e->model, &setup, err) && model_allocate(&e->model, err);
}

// One array for each MoE layer.
static json_t *usage_json(const struct model_config *c, const int64_t *usage)
{
    json_t *layers = json_array();
    for (int64_t l = 0; l < c->n_layers; l++) {
        if (!c->moe_layer[l]) continue;
        json_t *rows = json_array();
        for (int64_t e = 0; e < c->n_experts; e++) {
            json_array_append_new(rows, json_integer((json_int_t)usage[l * c->n_experts + e]));
        }
        json_array_append_new(layers, rows);
    }
    return layers;
}

static bool report_loss(struct evaluation *e, const struct loss_score *s, struct error *err)
{
    if (!isfinite(s->loss)) log_warning("the loss is not a finite number");
    fprintf(e->io->people,
            "loss %.6f, perplexity %.4f, over %" PRId64 " tokens of %" PRId64 " examples\n",
            s->loss, exp(s->loss), s->supervised, s->examples);
    if (!e->io->json) return true;
    json_t *line = json_object();
    json_object_set_new(line, "task", json_string("loss"));
    json_object_set_new(line, "loss", isfinite(s->loss) ? json_real(s->loss) : json_null());
    const double perplexity = exp(s->loss);
    json_object_set_new(line, "perplexity",
                        isfinite(perplexity) ? json_real(perplexity) : json_null());
    json_object_set_new(line, "tokens", json_integer(s->supervised));
    json_object_set_new(line, "examples", json_integer(s->examples));
    if (s->usage) json_object_set_new(line, "usage", usage_json(&e->model.config, s->usage));
    return output_json(e->io, line, err);
}

static bool loss_task(struct evaluation *e, struct error *err)
{
    struct loss_score s;
    const struct score_listener l = {e, count};
    const int64_t most = e->o->config.train.batch_tokens;
    const int64_t all = e->data.n_tokens;
    if (!open_model(e, all < most ? all : most, 0, err)) return false;
    if (!score_loss(&s, &e->model, &e->data, &l, err)) return false;
    progress_end(&e->progress);
    const bool ok = report_loss(e, &s, err);
    mem_free(s.usage);
    return ok;
}

static bool write_prediction(void *user, const struct answer *a, struct error *err)
{
    struct evaluation *e = user;
    const struct example *x = &e->data.example[a->example];
    if (e->predictions.fd < 0) return true;
    json_t *line = json_object();
    json_object_set_new(line, "file", json_string(x->file));
    json_object_set_new(line, "line", json_integer(x->line));
    json_object_set_new(line, "prompt", json_string(x->prompt ? x->prompt : ""));
    json_object_set_new(line, "prediction", json_string(a->text));
    json_object_set_new(line, "reference", json_string(a->reference));
    json_object_set_new(line, "correct", json_boolean(a->correct));
    json_object_set_new(line, "stopped", json_boolean(a->stopped));
    json_object_set_new(line, "tokens", json_integer(a->tokens));
    char *text = json_dumps(line, JSON_COMPACT);
    json_decref(line);
    if (!text) return fail(err, "no memory for a prediction");
    struct buf b = {0};
    bool ok = (buf_puts(&b, text) && buf_puts(&b, "\n")) || fail(err, "no memory for a prediction");
    ok = ok && file_writer_write(&e->predictions, b.data, b.size, err);
    buf_free(&b);
    free(text); // jansson's own allocation
    return ok;
}

// 1.96 standard errors of a share: its 95 % interval, near enough.
static double standard_error(double share, int64_t n)
{
    return n > 1 ? sqrt(share * (1 - share) / (double)(n - 1)) : 0;
}

static bool report_exact(struct evaluation *e, const struct exact_score *s, struct error *err)
{
    const double share = (double)s->correct / (double)(s->examples ? s->examples : 1);
    const double se = standard_error(share, s->examples);
    fprintf(e->io->people,
            "exact match %.2f %% (standard error %.2f), %" PRId64 " of %" PRId64
            " examples; %" PRId64 " answers ended by themselves\n",
            100 * share, 100 * se, s->correct, s->examples, s->stopped);
    if (!e->io->json) return true;
    json_t *line = json_object();
    json_object_set_new(line, "task", json_string("exact"));
    json_object_set_new(line, "exact_match", json_real(share));
    json_object_set_new(line, "standard_error", json_real(se));
    json_object_set_new(line, "correct", json_integer(s->correct));
    json_object_set_new(line, "examples", json_integer(s->examples));
    json_object_set_new(line, "stopped", json_integer(s->stopped));
    return output_json(e->io, line, err);
}

static bool exact_task(struct evaluation *e, struct error *err)
{
    struct run_config *c = &e->o->config;
    const struct score_listener l = {e, count};
    struct exact_score s;
    if (c->max_new_tokens > e->text->config.max_positions) {
        c->max_new_tokens = e->text->config.max_positions;
    }
    if (!stop_ids_open(&e->stop, e->text, err)) return false;
    const struct exact_options x = {.max_new_tokens = c->max_new_tokens,
                                    .side_by_side = c->train.batch_sequences,
                                    .stop = &e->stop,
                                    .tokenizer = e->text->tokenizer,
                                    .answer = write_prediction,
                                    .user = e};
    const int64_t rows = score_exact_rows(&e->data, &x);
    const int64_t most =
        c->train.batch_tokens > x.side_by_side ? c->train.batch_tokens : x.side_by_side;
    if (!open_model(e, rows < most ? rows : most, rows, err)) return false;
    if (c->predictions && !file_writer_open(&e->predictions, c->predictions, err)) return false;
    if (!score_exact(&s, &e->model, &e->data, &x, &l, err)) return false;
    progress_end(&e->progress);
    if (c->predictions && !file_writer_commit(&e->predictions, err)) return false;
    return report_exact(e, &s, err);
}

static bool evaluate(struct evaluation *e, struct error *err)
{
    const bool exact = e->o->config.task == EVAL_EXACT;
    if (exact && !options_given(e->o, "max-length")) e->o->config.dataset.max_length = 0;
    if (!data_open(&e->data, e->o, e->text, &e->o->config.data, exact, err)) return false;
    if (!e->io->quiet) data_describe(e->io->status, "data", &e->data);
    return exact ? exact_task(e, err) : loss_task(e, err);
}

enum status command_eval(struct options *o, struct output *io, struct error *err)
{
    struct text_setup text;
    struct evaluation e = {.o = o, .io = io, .text = &text, .predictions = {.fd = -1}};
    if (o->config.predictions && o->config.task != EVAL_EXACT) {
        fail(err, "--predictions belongs to --task exact");
        return STATUS_USAGE;
    }
    if (!text_open(&text, o, err)) return STATUS_FAILED;
    progress_open(&e.progress, io, o->config.task == EVAL_EXACT ? "examples" : "micro-batches");
    bool ok = o->config.task != EVAL_EXACT || text.tokenizer ||
              fail(err, "%s: no tokenizer.json", o->config.model);
    ok = ok && evaluate(&e, err);
    progress_end(&e.progress);
    file_writer_discard(&e.predictions);
    tokens_free(&e.stop);
    model_close(&e.model);
    dataset_close(&e.data);
    text_close(&text);
    return ok ? STATUS_DONE : STATUS_FAILED;
}
