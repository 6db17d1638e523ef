// cli/cmd_eval.c - scores of a model on examples.
#include "base/log.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/eval.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static bool count(void *user, int64_t done, int64_t of)
{
    struct evaluation *e = user;
    progress_show(&e->progress, done, of, NULL);
    return true;
}

bool eval_open_model(struct evaluation *e, int64_t max_tokens, int64_t cache_rows,
                     struct error *err)
{
    struct model_setup setup;
    if (!setup_model(&setup, e->o, false, err)) return false;
    setup.max_tokens = max_tokens;
    setup.cache_rows = cache_rows;
    return model_open(&e->model, &setup, err) && model_allocate(&e->model, err);
}

bool eval_open_predictions(struct evaluation *e, struct error *err)
{
    const char *path = e->o->config.predictions;
    return !path || file_writer_open(&e->predictions, path, err);
}

bool eval_predict(struct evaluation *e, json_t *line, struct error *err)
{
    const bool wanted = e->predictions.fd >= 0;
    char *text = line && wanted ? json_text(line, JSON_COMPACT) : NULL;
    const bool ok =
        !wanted || (text && file_writer_write(&e->predictions, text, strlen(text), err) &&
                    file_writer_write(&e->predictions, "\n", 1, err));
    json_decref(line);
    if (wanted && !text) fail(err, "no memory for a prediction");
    mem_free(text);
    return ok;
}

bool eval_commit_predictions(struct evaluation *e, struct error *err)
{
    return e->predictions.fd < 0 || file_writer_commit(&e->predictions, err);
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

static void put_loss(json_t *line, const struct loss_score *s)
{
    const double perplexity = exp(s->loss);
    const bool any = s->supervised > 0;
    json_object_set_new(line, "loss", any && isfinite(s->loss) ? json_real(s->loss) : json_null());
    json_object_set_new(line, "perplexity",
                        any && isfinite(perplexity) ? json_real(perplexity) : json_null());
    json_object_set_new(line, "tokens", json_integer(s->supervised));
    json_object_set_new(line, "examples", json_integer(s->examples));
}

static void print_loss(FILE *f, const struct loss_score *s)
{
    if (s->supervised) fprintf(f, "loss %.6f, perplexity %.4f, over ", s->loss, exp(s->loss));
    fprintf(f, "%" PRId64 " tokens of %" PRId64 " examples", s->supervised, s->examples);
}

// of_file: NULL where there is one file.
static bool report_loss(struct evaluation *e, const struct loss_score *s,
                        const struct loss_score *of_file, struct error *err)
{
    const struct texts *names = &e->o->config.data;
    FILE *f = e->io->people;
    json_t *line = json_object(), *files = json_array();
    if (!isfinite(s->loss)) log_warning("the loss is not a finite number");
    print_loss(f, s);
    fputc('\n', f);
    for (int64_t i = 0; of_file && i < names->count; i++) {
        json_t *file = json_object();
        fputs("  ", f);
        print_loss(f, &of_file[i]);
        fputs(": ", f);
        output_safe(f, names->item[i], strlen(names->item[i]));
        fputc('\n', f);
        json_object_set_new(file, "file", json_string(names->item[i]));
        put_loss(file, &of_file[i]);
        json_array_append_new(files, file);
    }
    json_object_set_new(line, "task", json_string("loss"));
    put_loss(line, s);
    if (s->usage) json_object_set_new(line, "usage", usage_json(&e->model.config, s->usage));
    if (of_file) json_object_set(line, "files", files);
    json_decref(files);
    if (e->io->json) return output_json(e->io, line, err);
    json_decref(line);
    return true;
}

static bool loss_task(struct evaluation *e, struct error *err)
{
    struct loss_score s = {0}, *of_file = NULL;
    struct dataset data = {0};
    const int64_t most = e->o->config.train.batch_tokens, files = e->o->config.data.count;
    bool ok = data_open(&data, e->o, e->text, &e->o->config.data, false, err);
    if (ok && !e->io->quiet) data_describe(e->io->status, "data", &data);
    if (ok && files > 1) {
        of_file = mem_zalloc((size_t)files, sizeof *of_file);
        ok = of_file || fail(err, "no memory for the scores");
    }
    ok = ok && eval_open_model(e, data.n_tokens < most ? data.n_tokens : most, 0, err) &&
         (of_file ? score_loss_files(&s, of_file, &e->model, &data, &e->listener, err)
                  : score_loss(&s, &e->model, &data, &e->listener, err));
    progress_end(&e->progress);
    ok = ok && report_loss(e, &s, of_file, err);
    mem_free(s.usage);
    mem_free(of_file);
    dataset_close(&data);
    return ok;
}

// How the options go together.
static bool check_options(const struct options *o, struct error *err)
{
    const struct run_config *c = &o->config;
    const bool answers = c->task == EVAL_MATH || c->task == EVAL_CHOICE;
    if (c->predictions && c->task == EVAL_LOSS) {
        return fail(err, "--predictions belongs to --task exact, math, choice or loglik");
    }
    if (c->answers && !answers) return fail(err, "--answers belongs to --task math or choice");
    if (!c->model && !c->answers) {
        return fail(err, "eval needs --model DIR (or, for math and choice, --answers FILE)");
    }
    if (c->beams > 1 && (c->answers || !(answers || c->task == EVAL_EXACT))) {
        return fail(err, "--beams belongs to a model's answers: --task exact, math or choice "
                         "without --answers");
    }
    return true;
}

static bool open_text(struct evaluation *e, struct error *err)
{
    const struct run_config *c = &e->o->config;
    if (c->answers) { // no model is run
        return !options_given(e->o, "template") ||
               (e->text->chat = chat_template_find(c->template, err)) != NULL;
    }
    return text_open(e->text, e->o, err) && (c->task == EVAL_LOSS || e->text->tokenizer ||
                                             fail(err, "%s: no tokenizer.json", c->model));
}

enum status command_eval(struct options *o, struct output *io, struct error *err)
{
    struct text_setup text = {0};
    struct evaluation e = {.o = o, .io = io, .text = &text, .predictions = {.fd = -1}};
    if (!check_options(o, err)) return STATUS_USAGE;
    const bool loss = o->config.task == EVAL_LOSS, loglik = o->config.task == EVAL_LOGLIK;
    e.listener = (struct score_listener){&e, count};
    progress_open(&e.progress, io, loss ? "micro-batches" : "examples");
    bool ok = open_text(&e, err);
    ok = ok && (loss ? loss_task(&e, err) : loglik ? eval_loglik(&e, err) : eval_answers(&e, err));
    progress_end(&e.progress);
    file_writer_discard(&e.predictions);
    model_close(&e.model);
    text_close(&text);
    return ok ? STATUS_DONE : STATUS_FAILED;
}
