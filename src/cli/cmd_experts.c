// cli/cmd_experts.c - what the experts of a model do: how much each is used, on data or by a log, and which of
// them ESFT would train.
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/progress.h"
#include "cli/setup.h"
#include "eval/routing_log.h"
#include "eval/usage.h"
#include "model/families.h"
#include "tuning/esft.h"

#include <inttypes.h>
#include <string.h>

struct experts {
    struct options *o;
    struct output *io;
    struct expert_usage usage;
    struct esft_selection selection; // layers 0: none asked for
    struct progress progress;
};

static bool count(void *user, int64_t done, int64_t of)
{
    struct experts *x = user;
    progress_show(&x->progress, done, of, NULL);
    return true;
}

static bool from_log(struct experts *x, struct error *err)
{
    const struct run_config *c = &x->o->config;
    struct model_config model;
    const struct family *family;
    if (c->model && !family_read_config(&family, &model, c->model, err)) return false;
    return routing_log_read(&x->usage, c->from_log, c->model ? &model : NULL, err);
}

static bool use_model(struct experts *x, const struct text_setup *text, struct error *err)
{
    const struct run_config *c = &x->o->config;
    const struct score_listener l = {x, count};
    struct dataset data;
    struct model m = {0};
    struct model_setup setup;
    int64_t seen;
    if (!data_open(&data, x->o, text, &c->data, false, err)) return false;
    if (!x->io->quiet) data_describe(x->io->status, "data", &data);
    const struct usage_options how = {
        .batch_tokens = c->train.batch_tokens,
        .tokens = c->tuning_options.esft_tokens,
        .seed = (uint64_t)c->seed,
    };
    bool ok = setup_model(&setup, x->o, false, err);
    setup.max_tokens = data.n_tokens < how.batch_tokens ? data.n_tokens : how.batch_tokens;
    ok = ok && model_open(&m, &setup, err) && model_allocate(&m, err) &&
         usage_on_data(&x->usage, &seen, &m, &data, &how, &l, err);
    progress_end(&x->progress);
    if (ok && !x->io->quiet) fprintf(x->io->status, "scored on %" PRId64 " tokens\n", seen);
    model_close(&m);
    dataset_close(&data);
    return ok;
}

static bool on_data(struct experts *x, struct error *err)
{
    struct text_setup text;
    if (!text_open(&text, x->o, err)) return false;
    progress_open(&x->progress, x->io, "micro-batches");
    const bool ok = use_model(x, &text, err);
    text_close(&text);
    return ok;
}

static bool choose(struct experts *x, struct error *err)
{
    const struct run_config *c = &x->o->config;
    const struct tuning_options *t = &c->tuning_options;
    struct esft_selection *s = &x->selection;
    if (c->select != SELECT_ESFT) return true;
    if (!esft_select(s, &x->usage, t->esft_score, t->esft_top_p, err)) return false;
    s->shared_experts = t->esft_shared_experts;
    s->non_expert_modules = t->esft_non_expert_modules;
    return esft_selection_write(s, c->out, err);
}

static json_t *shares(const double *score, int64_t E)
{
    json_t *list = json_array();
    for (int64_t e = 0; e < E; e++) {
        json_array_append_new(list, json_real(score[e]));
    }
    return list;
}

static json_t *chosen(const struct esft_selection *s, int64_t l)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < s->count[l]; i++) {
        json_array_append_new(list, json_integer(s->expert[l * s->experts + i]));
    }
    return list;
}

// The most used expert and the sum over those that are chosen.
static void print_layer(const struct experts *x, int64_t l, const double *score)
{
    const int64_t E = x->usage.experts;
    const struct esft_selection *s = &x->selection;
    int64_t best = 0, used = 0;
    double sum = 0;
    for (int64_t e = 0; e < E; e++) {
        if (score[e] > score[best]) best = e;
        used += x->usage.slots[l * E + e] > 0;
    }
    FILE *f = x->io->people;
    fprintf(f, "layer %" PRId64 ": %" PRId64 " experts used, most of all %" PRId64 " (%.2f %%)", l,
            used, best, 100 * score[best]);
    for (int64_t i = 0; s->layers && i < s->count[l]; i++) {
        sum += score[s->expert[l * E + i]];
    }
    if (s->layers) {
        fprintf(f, "; %" PRId64 " chosen, which hold %.2f %%", s->count[l], 100 * sum);
    }
    fputc('\n', f);
}

static bool report_layer(struct experts *x, int64_t l, double *score, struct error *err)
{
    const struct expert_usage *u = &x->usage;
    const double *by[] = {
        [ESFT_TOKEN] = u->slots + l * u->experts, [ESFT_GATE] = u->mass + l * u->experts};
    if (!esft_scores(score, by[x->o->config.tuning_options.esft_score], u->experts)) {
        return fail(err, "layer %" PRId64 ": the experts' scores do not sum to a number above 0",
                    l);
    }
    print_layer(x, l, score);
    if (!x->io->json) return true;
    json_t *line = json_object();
    json_object_set_new(line, "layer", json_integer(l));
    json_object_set_new(line, "slots", json_integer((json_int_t)expert_usage_slots(u, l)));
    esft_scores(score, by[ESFT_TOKEN], u->experts);
    json_object_set_new(line, "token", shares(score, u->experts));
    if (esft_scores(score, by[ESFT_GATE], u->experts)) {
        json_object_set_new(line, "gate", shares(score, u->experts));
    }
    if (x->selection.layers) json_object_set_new(line, "chosen", chosen(&x->selection, l));
    return output_json(x->io, line, err);
}

static bool report(struct experts *x, struct error *err)
{
    const struct expert_usage *u = &x->usage;
    double *score = mem_alloc((size_t)u->experts * sizeof *score);
    bool ok = score || fail(err, "no memory");
    int64_t layers = 0;
    for (int64_t l = 0; ok && l < u->layers; l++) {
        if (expert_usage_slots(u, l) <= 0) continue;
        layers++;
        ok = report_layer(x, l, score, err);
    }
    mem_free(score);
    if (ok && x->selection.layers && !x->io->quiet) {
        fprintf(x->io->status, "%" PRId64 " experts of %" PRId64 " layers chosen: %s\n",
                esft_selection_total(&x->selection), layers, x->o->config.out);
    }
    return ok;
}

static bool check_options(const struct run_config *c, struct error *err)
{
    if (c->from_log && c->data.count) {
        return fail(err, "--from-log and --data exclude each other");
    }
    if (!c->from_log && (!c->model || !c->data.count)) {
        return fail(err, "experts needs --model and --data, or --from-log");
    }
    if ((c->select == SELECT_ESFT) != (c->out != NULL)) {
        return fail(err, c->out ? "--out belongs to --select esft" : "--select esft needs --out");
    }
    return true;
}

enum status command_experts(struct options *o, struct output *io, struct error *err)
{
    struct experts x = {.o = o, .io = io};
    if (!check_options(&o->config, err)) return STATUS_USAGE;
    const bool ok =
        (o->config.from_log ? from_log : on_data)(&x, err) && choose(&x, err) && report(&x, err);
    expert_usage_close(&x.usage);
    esft_selection_close(&x.selection);
    return ok ? STATUS_DONE : STATUS_FAILED;
}
