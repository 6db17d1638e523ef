// cli/cmd_experts.c - what the experts of a model do: how much each is used, on data or by a log, what the model loses
// without some, how far it has moved from a base, and which of them ESFT would train.
#include "base/log.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/experts.h"
#include "cli/progress.h"
#include "cli/setup.h"
#include "eval/routing_log.h"
#include "model/families.h"

#include <inttypes.h>
#include <string.h>

enum { MOST_POINTS = 101 };

struct experts {
    struct options *o;
    struct output *io;
    struct experts_result result;
    double percent[MOST_POINTS]; // to prune
    int64_t n_percents;
    struct model model, base;
    struct usage_options how;
    struct usage_observer observer;
    struct progress progress;
    char pass[64]; // what the pass over the data is for
};

static bool count(void *user, int64_t done, int64_t of)
{
    struct experts *x = user;
    progress_show(&x->progress, done, of, *x->pass ? x->pass : NULL);
    return true;
}

static bool from_log(struct experts *x, struct error *err)
{
    const struct run_config *c = &x->o->config;
    struct model_config model;
    const struct family *family;
    if (c->model && !family_read_config(&family, &model, c->model, err)) return false;
    return routing_log_read(&x->result.usage, c->from_log, c->model ? &model : NULL, err);
}

static bool asks(const struct run_config *c, enum correlation what)
{
    return c->experts.correlation == CORRELATION_BOTH || c->experts.correlation == (int)what;
}

static bool open_model(struct model *m, struct options *o, int64_t max_tokens, struct error *err)
{
    struct model_setup setup;
    if (!setup_model(&setup, o, false, err)) return false;
    setup.max_tokens = max_tokens;
    return model_open(m, &setup, err) && model_allocate(m, err);
}

// The base runs as its own folder says, whatever routing and adapter the model was given.
static bool open_base(struct experts *x, int64_t max_tokens, struct error *err)
{
    struct options base = *x->o, usual;
    options_defaults(&usual, x->o->command);
    base.config.model = x->o->config.experts.base;
    base.config.adapter = NULL;
    base.config.routing = usual.config.routing;
    base.config.routing_options = usual.config.routing_options;
    for (int64_t i = 0; i < option_count(); i++) {
        if (option_at(i)->group != GROUP_ROUTING) continue;
        base.flag[i] = false;
        base.file_line[i] = 0;
    }
    const bool ok = open_model(&x->base, &base, max_tokens, err);
    options_close(&usual);
    return ok;
}

// "0,10,20" -> percents, ascending. Of those that were not asked for, as many as leave enough experts.
static bool read_percents(struct experts *x, const struct model_config *c, struct error *err)
{
    const char *list = x->o->config.experts.prune_at;
    double last = -1;
    for (const char *p = list; *p; p++) {
        char word[32];
        const size_t n = strcspn(p, ",");
        snprintf(word, sizeof word, "%.*s", (int)(n < sizeof word ? n : sizeof word - 1), p);
        double v;
        if (!parse_real(word, 0, 100, &v) || v <= last || x->n_percents == MOST_POINTS) {
            return fail(err,
                        "--prune-at: found '%.80s', expected up to %d ascending numbers from 0 "
                        "to 100, separated by commas",
                        list, MOST_POINTS);
        }
        const bool enough = prune_leaves_enough(v, c, "--prune-at", err);
        if (!enough && options_given(x->o, "prune-at")) return false;
        if (!enough) {
            log_info("pruning ends below %g %%: a token takes %" PRId64 " of %" PRId64 " experts",
                     v, c->experts_per_tok, c->n_experts);
            return true;
        }
        x->percent[x->n_percents++] = last = v;
        p += n;
        if (!*p) return true;
    }
    return fail(err, "--prune-at: found '%.80s', a number at its end expected", list);
}

// A point that drops the same experts: as many in the same order, or none.
static const struct prune_point *measured(const struct experts_result *r,
                                          const struct prune_point *p)
{
    for (int64_t i = 0; i < r->n_points; i++) {
        const struct prune_point *q = &r->point[i];
        if (q->dropped == p->dropped && (q->order == p->order || !p->dropped)) return q;
    }
    return NULL;
}

static bool prune_order(struct experts *x, struct pruning *p, enum prune_order order,
                        struct error *err)
{
    struct experts_result *r = &x->result;
    const struct score_listener l = {x, count};
    for (int64_t i = 0; i < x->n_percents; i++) {
        struct prune_point *out = &r->point[r->n_points];
        *out = (struct prune_point){.order = order,
                                    .percent = x->percent[i],
                                    .dropped = prune_count(x->percent[i], r->usage.experts)};
        snprintf(x->pass, sizeof x->pass, "without the %s used %g %%", prune_order_names[order],
                 x->percent[i]);
        const struct prune_point *same = measured(r, out);
        if (same) {
            out->loss = same->loss;
            out->accuracy = same->accuracy;
            out->tokens = same->tokens;
        } else if (!prune_measure(out, p, &l, err)) {
            return false;
        }
        r->n_points++;
    }
    return true;
}

static bool prune(struct experts *x, const struct dataset *data, struct error *err)
{
    const int what = x->o->config.experts.prune;
    struct experts_result *r = &x->result;
    struct pruning p;
    if (what == PRUNE_NOT) return true;
    r->point = mem_zalloc(2 * MOST_POINTS, sizeof *r->point);
    if (!r->point) return fail(err, "no memory for the pruning study");
    const double *use = r->score == ESFT_GATE ? r->usage.mass : r->usage.slots;
    bool ok = prune_open(&p, &x->model, data, &x->how, use, err);
    if (ok && what != PRUNE_MOST_USED) ok = prune_order(x, &p, PRUNE_LEAST, err);
    if (ok && what != PRUNE_LEAST_USED) ok = prune_order(x, &p, PRUNE_MOST, err);
    prune_close(&p);
    return ok;
}

static bool open_comparison(struct experts *x, struct error *err)
{
    const struct run_config *c = &x->o->config;
    struct model *base = c->experts.base ? &x->base : NULL;
    const int64_t tokens = asks(c, CORRELATION_OUTPUTS) ? c->experts.correlation_tokens : 0;
    if (!base && !tokens) return true;
    if (!comparison_open(&x->result.comparison, &x->model, base, tokens, err)) return false;
    x->observer = comparison_observer(&x->result.comparison);
    x->how.observer = &x->observer;
    return true;
}

static bool weigh(struct experts *x, struct error *err)
{
    struct experts_result *r = &x->result;
    const struct model_config *c = &x->model.config;
    bool ok = true;
    if (!asks(&x->o->config, CORRELATION_WEIGHTS)) return true;
    r->weights = mem_zalloc((size_t)c->n_layers, sizeof *r->weights);
    if (!r->weights) return fail(err, "no memory for %" PRId64 " layers", c->n_layers);
    for (int64_t l = 0; ok && l < c->n_layers; l++) {
        if (!c->moe_layer[l]) continue;
        ok = similarity_of_weights(&r->weights[l], &x->model,
                                   x->o->config.experts.base ? &x->base : NULL, l, err);
        progress_show(&x->progress, l + 1, c->n_layers, "weights");
    }
    return ok;
}

static bool study(struct experts *x, const struct dataset *data, struct error *err)
{
    const struct score_listener l = {x, count};
    int64_t seen;
    if (!open_comparison(x, err) ||
        !usage_on_data(&x->result.usage, &seen, &x->model, data, &x->how, &l, err)) {
        return false;
    }
    if (x->result.comparison.layer) comparison_end(&x->result.comparison);
    if (!weigh(x, err) || !prune(x, data, err)) return false;
    progress_end(&x->progress);
    if (!x->io->quiet) fprintf(x->io->status, "scored on %" PRId64 " tokens\n", seen);
    return true;
}

// What config.json alone tells, before weights are looked at.
static bool check_shapes(struct experts *x, const struct model_config *c, struct error *err)
{
    const struct run_config *r = &x->o->config;
    const struct family *family;
    struct model_config base;
    if (!routing_layers(c)) return fail(err, "%s: the model has no experts", r->model);
    if (r->experts.prune != PRUNE_NOT && !read_percents(x, c, err)) return false;
    return !r->experts.base || (family_read_config(&family, &base, r->experts.base, err) &&
                                models_comparable(c, r->model, &base, r->experts.base, err));
}

static bool use_model(struct experts *x, const struct text_setup *text, struct error *err)
{
    const struct run_config *c = &x->o->config;
    struct dataset data;
    if (!check_shapes(x, &text->config, err)) return false;
    if (!data_open(&data, x->o, text, &c->data, false, err)) return false;
    if (!x->io->quiet) data_describe(x->io->status, "data", &data);
    x->how = (struct usage_options){
        .batch_tokens = c->train.batch_tokens,
        .tokens = c->tuning_options.esft_tokens,
        .seed = (uint64_t)c->seed,
    };
    const int64_t most = data.n_tokens < x->how.batch_tokens ? data.n_tokens : x->how.batch_tokens;
    const bool ok = open_model(&x->model, x->o, most, err) &&
                    (!c->experts.base || open_base(x, most, err)) && study(x, &data, err);
    progress_end(&x->progress);
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
    struct esft_selection *s = &x->result.selection;
    if (c->select != SELECT_ESFT) return true;
    if (!esft_select(s, &x->result.usage, t->esft_score, t->esft_top_p, err)) return false;
    s->shared_experts = t->esft_shared_experts;
    s->non_expert_modules = t->esft_non_expert_modules;
    return esft_selection_write(s, c->out, err);
}

// A score whose sum is 0 (logs without gates) orders nothing.
static bool check_scores(const struct experts_result *x, struct error *err)
{
    struct layer_load load;
    bool ok = layer_load_open(&load, x->usage.experts, err);
    for (int64_t l = 0; ok && l < x->usage.layers; l++) {
        if (!experts_in(x, l)) continue;
        layer_load_of(&load, x, l, x->score);
        ok = load.c.any ||
             fail(err, "layer %" PRId64 ": the experts' scores do not sum to a number above 0", l);
    }
    layer_load_close(&load);
    return ok;
}

static bool report(struct experts *x, struct error *err)
{
    const struct run_config *c = &x->o->config;
    const struct experts_result *r = &x->result;
    if (!check_scores(r, err) || !experts_print(r, x->io->people, err)) return false;
    if (x->io->json && !experts_json(r, x->io, err)) return false;
    if (c->experts.csv && !experts_csv(r, c->experts.csv, err)) return false;
    if (c->experts.charts && !experts_page(r, c->experts.charts, err)) return false;
    if (r->selection.layers && !x->io->quiet) {
        fprintf(x->io->status, "%" PRId64 " experts chosen: %s\n",
                esft_selection_total(&r->selection), c->out);
    }
    return true;
}

static bool check_options(const struct run_config *c, struct error *err)
{
    if (c->from_log && c->data.count) {
        return fail(err, "--from-log and --data exclude each other");
    }
    if (!c->from_log && (!c->model || !c->data.count)) {
        return fail(err, "experts needs --model and --data, or --from-log");
    }
    const char *with_data = c->experts.base                             ? "--base"
                            : c->experts.prune != PRUNE_NOT             ? "--prune"
                            : c->experts.correlation != CORRELATION_NOT ? "--correlation"
                                                                        : NULL;
    if (c->from_log && with_data) {
        return fail(err, "%s needs --model and --data, not --from-log", with_data);
    }
    if ((c->select == SELECT_ESFT) != (c->out != NULL)) {
        return fail(err, c->out ? "--out belongs to --select esft" : "--select esft needs --out");
    }
    return true;
}

enum status command_experts(struct options *o, struct output *io, struct error *err)
{
    struct experts x = {.o = o,
                        .io = io,
                        .result = {.model = o->config.model,
                                   .base = o->config.experts.base,
                                   .score = o->config.tuning_options.esft_score}};
    if (!check_options(&o->config, err)) return STATUS_USAGE;
    const bool ok =
        (o->config.from_log ? from_log : on_data)(&x, err) && choose(&x, err) && report(&x, err);
    comparison_close(&x.result.comparison);
    model_close(&x.base);
    model_close(&x.model);
    mem_free(x.result.weights);
    mem_free(x.result.point);
    expert_usage_close(&x.result.usage);
    esft_selection_close(&x.result.selection);
    return ok ? STATUS_DONE : STATUS_FAILED;
}
