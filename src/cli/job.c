// cli/job.c - see job.h.
#include "cli/job.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#include <inttypes.h>
#include <stdlib.h>

static bool open_data(struct job *j, struct options *o, struct error *err)
{
    const struct run_config *c = &o->config;
    if (c->validation.count && c->validation_fraction > 0) {
        return fail(err, "--validation and --validation-fraction exclude each other");
    }
    if (!data_open(&j->data, o, &j->text, &c->data, false, err)) return false;
    if (c->validation_fraction > 0) {
        return dataset_split(&j->data, &j->validation, c->validation_fraction, (uint64_t)c->seed,
                             err);
    }
    if (!c->validation.count) return true;
    const int64_t limit = o->config.dataset.limit; // of --data alone
    o->config.dataset.limit = 0;
    const bool ok = data_open(&j->validation, o, &j->text, &c->validation, false, err);
    o->config.dataset.limit = limit;
    return ok;
}

static bool dump_options(struct job *j, const struct options *o, struct error *err)
{
    json_t *all = options_json(o, false), *deciding = options_json(o, true);
    if (all) j->options = json_text(all, JSON_INDENT(2));
    if (deciding) j->deciding = json_text(deciding, JSON_INDENT(2));
    json_decref(all);
    json_decref(deciding);
    return (j->options && j->deciding) || fail(err, "no memory for the options");
}

static bool check_options(const struct options *o, struct error *err)
{
    const struct run_config *c = &o->config;
    if (!c->train.batch_tokens && !c->train.batch_sequences) {
        return fail(err, "--batch-tokens 0 needs --batch-sequences");
    }
    if (c->export == EXPORT_BEST && !c->validation.count && c->validation_fraction <= 0) {
        return fail(err, "--export best needs --validation or --validation-fraction");
    }
    if (c->train.patience && !c->validation.count && c->validation_fraction <= 0) {
        return fail(err, "--patience needs --validation or --validation-fraction");
    }
    if (c->train.patience && !c->train.eval_every) {
        return fail(err, "--patience needs --eval-every");
    }
    return true;
}

// The stage that looks at data first, with the base model's own routing. A file in the run's folder takes what
// it leaves; later stages read that. An adapter to go on from says itself what learns.
static bool add_scoring(struct job *j, struct model_setup *setup, const struct options *o,
                        const char *out, struct error *err)
{
    int64_t steps = 0, tokens = 0;
    const struct tuning *t = setup->tuning;
    const struct tuning *scoring =
        t->scoring ? t->scoring(&setup->tuning_options, &steps, &tokens) : NULL;
    if (!scoring || setup->adapter) return true;
    struct stage *s = &j->stage[j->n_stages++];
    *s = (struct stage){.name = scoring->help, .setup = *setup, .options = o->config.train};
    s->setup.tuning = scoring;
    s->setup.routing = routing_find("topk", err);
    if (scoring->observes) s->options.accumulate = 1;
    s->options.max_steps = steps;
    s->options.max_tokens = tokens;
    if (!path_join(j->selection, sizeof j->selection, out, scoring->selection_file, err)) {
        return false;
    }
    s->selection = setup->tuning_options.selection = j->selection;
    if (scoring->observes) return true;
    s->base = "warmed-up";
    setup->dir = j->base;
    setup->state_dir = o->config.model; // what the scoring leaves has the weights alone
    return path_join(j->base, sizeof j->base, out, s->base, err);
}

// One stage a phase of the routing, over the same model; the first of two has --phase1-epochs.
static bool open_stages(struct job *j, struct options *o, const char *out, struct error *err)
{
    const struct run_config *c = &o->config;
    struct model_setup setup;
    if (!setup_model(&setup, o, true, err) || !add_scoring(j, &setup, o, out, err)) return false;
    const int64_t phases =
        setup.routing->phases ? setup.routing->phases(&setup.routing_options) : 1;
    for (int64_t i = 0; i < phases; i++) {
        const bool first = phases > 1 && i == 0;
        struct stage *s = &j->stage[j->n_stages++];
        *s = (struct stage){.name = first ? "the bias learns" : c->routing,
                            .setup = setup,
                            .options = c->train,
                            .phase = i};
        if (first) s->options.epochs = setup.routing_options.phase1_epochs;
    }
    return true;
}

// What the run's page says of the model and of the stages, besides the plan.
static bool dump_plan(struct job *j, struct error *err)
{
    json_t *all = job_plan_json(j), *shape = json_object(), *stages = json_array();
    const struct model_config *c = &trainer_model(j->trainer)->config;
    json_object_set_new(shape, "architecture", json_string(c->architecture));
    json_object_set_new(shape, "layers", json_integer(c->n_layers));
    json_object_set_new(shape, "width", json_integer(c->width));
    json_t *moe = json_array();
    for (int64_t l = 0; l < c->n_layers; l++) {
        if (c->moe_layer[l]) json_array_append_new(moe, json_integer(l));
    }
    json_object_set_new(shape, "moe_layers", moe);
    json_object_set_new(shape, "experts", json_integer(c->n_experts));
    json_object_set_new(shape, "experts_per_token", json_integer(c->experts_per_tok));
    for (int64_t i = 0; i < j->n_stages; i++) {
        json_t *s = json_object();
        json_object_set_new(s, "name", json_string(j->stage[i].name));
        json_object_set_new(s, "routing", json_string(j->stage[i].setup.routing->name));
        json_object_set_new(s, "tuning", json_string(j->stage[i].setup.tuning->name));
        json_array_append_new(stages, s);
    }
    json_object_set_new(all, "shape", shape);
    json_object_set_new(all, "stages", stages);
    json_object_set_new(all, "version", json_string(MOETUNE_VERSION));
    j->plan_text = json_text(all, JSON_INDENT(2));
    j->run.plan = j->plan_text;
    json_decref(all);
    return j->plan_text || fail(err, "no memory for the plan");
}

static bool open_parts(struct job *j, struct options *o, const char *out,
                       const struct train_listener *listener, struct error *err)
{
    const struct run_config *c = &o->config;
    // The trainer packs by tokens or by sequences; sequences win where they are given.
    if (c->train.batch_sequences) o->config.train.batch_tokens = 0;
    if (!check_options(o, err) || !text_open(&j->text, o, err) || !open_data(j, o, err))
        return false;
    o->config.train.seed = (uint64_t)c->seed;
    if (!open_stages(j, o, out, err) || !dump_options(j, o, err)) return false;
    j->run = (struct run){
        .out = out,
        .stage = j->stage,
        .n_stages = j->n_stages,
        .data = &j->data,
        .validation = j->validation.count ? &j->validation : NULL,
        .save_every = c->save_every,
        .keep_last = c->keep_last,
        .export_best = c->export == EXPORT_BEST,
        .merge = c->merge || j->base[0],
        .resume = c->resume,
        .overwrite = c->overwrite,
        .changes = c->report,
        .options = j->options,
        .deciding = j->deciding,
        .listener = listener,
    };
    j->trainer = trainer_open(&j->run, err);
    return j->trainer && plan_make(&j->plan, j->trainer, err) && dump_plan(j, err);
}

bool job_open(struct job *j, struct options *o, const char *out,
              const struct train_listener *listener, struct error *err)
{
    *j = (struct job){0};
    if (open_parts(j, o, out, listener, err)) return true;
    job_close(j);
    return false;
}

void job_close(struct job *j)
{
    plan_free(&j->plan);
    trainer_close(j->trainer);
    mem_free(j->options);
    mem_free(j->deciding);
    mem_free(j->plan_text);
    dataset_close(&j->validation);
    dataset_close(&j->data);
    text_close(&j->text);
    *j = (struct job){0};
}

static void print_modules(FILE *f, const struct plan *p)
{
    char count[32], all[32];
    fprintf(f, "learns: %s%s of %s parameters (%.2f %%)\n", p->at_most ? "at most " : "",
            format_count(count, p->learning), format_count(all, p->parameters),
            p->parameters ? 100 * (double)p->learning / (double)p->parameters : 0.0);
    for (int64_t i = 0; i < p->n_modules; i++) {
        const struct plan_module *m = &p->module[i];
        fprintf(f, "  %-32s %15s parameters in %" PRId64 " tensor%s\n", m->name,
                format_count(count, m->parameters), m->tensors, m->tensors == 1 ? "" : "s");
    }
    if (!p->n_modules) fprintf(f, "  nothing\n");
}

static void print_memory(FILE *f, const struct plan *p)
{
    char text[32], other[32];
    fprintf(f, "memory: %s private\n", format_bytes(text, p->total));
    for (int i = 0; i < PURPOSE_COUNT; i++) {
        fprintf(f, "  %-14s %12s\n", purpose_name((enum purpose)i),
                format_bytes(text, p->by_purpose[i]));
    }
    if (p->in_host) {
        fprintf(f, "  of the optimizer's, %s in host memory\n", format_bytes(text, p->in_host));
    }
    fprintf(f, "  and %s of weights mapped from their files, shared with the system\n",
            format_bytes(text, p->mapped));
    if (p->device_free != SIZE_MAX) {
        fprintf(f, "device %s: needs %s, ", p->device, format_bytes(text, p->device_bytes));
        fprintf(f, "%s free%s\n", format_bytes(text, p->device_free),
                p->device_bytes > p->device_free ? ": it does not fit" : "");
    }
    fprintf(f, "disk: at most %s (%" PRId64 " checkpoint%s of ", format_bytes(text, p->disk),
            p->checkpoints, p->checkpoints == 1 ? "" : "s");
    fprintf(f, "%s, the result %s)", format_bytes(text, p->checkpoint_bytes),
            format_bytes(other, p->export_bytes));
    if (p->disk_free >= 0) {
        fprintf(f, "; %s free", format_bytes(text, (uint64_t)p->disk_free));
    }
    fputc('\n', f);
}

void job_print_plan(FILE *f, const struct job *j)
{
    const struct plan *p = &j->plan;
    data_describe(f, "data", &j->data);
    if (j->validation.count) data_describe(f, "validation", &j->validation);
    print_modules(f, p);
    fprintf(f,
            "steps: %" PRId64 ", %" PRId64 " of them warm-up; %" PRId64
            " micro-batches of at most %" PRId64 " tokens in a pass\n",
            p->steps, p->warmup_steps, p->data.micro_batches, p->batch_tokens);
    print_memory(f, p);
}

static json_t *data_json(const struct plan_data *d, const struct dataset *set)
{
    json_t *j = json_object();
    json_object_set_new(j, "examples", json_integer(d->examples));
    json_object_set_new(j, "tokens", json_integer(d->tokens));
    json_object_set_new(j, "supervised", json_integer(d->supervised));
    json_object_set_new(j, "micro_batches", json_integer(d->micro_batches));
    json_object_set_new(j, "cut", json_integer(set->cut));
    json_object_set_new(j, "dropped", json_integer(set->dropped));
    json_object_set_new(j, "bad", json_integer(set->bad));
    json_object_set_new(j, "unsupervised", json_integer(set->unsupervised));
    return j;
}

json_t *job_plan_json(const struct job *j)
{
    const struct plan *p = &j->plan;
    json_t *all = json_object(), *memory = json_object(), *modules = json_array();
    for (int i = 0; i < PURPOSE_COUNT; i++) {
        json_object_set_new(memory, purpose_name((enum purpose)i),
                            json_integer((json_int_t)p->by_purpose[i]));
    }
    for (int64_t i = 0; i < p->n_modules; i++) {
        json_t *m = json_object();
        json_object_set_new(m, "name", json_string(p->module[i].name));
        json_object_set_new(m, "tensors", json_integer(p->module[i].tensors));
        json_object_set_new(m, "parameters", json_integer(p->module[i].parameters));
        json_array_append_new(modules, m);
    }
    json_object_set_new(all, "memory", memory);
    json_object_set_new(all, "total", json_integer((json_int_t)p->total));
    json_object_set_new(all, "device", json_string(p->device));
    if (p->device_free != SIZE_MAX) {
        json_object_set_new(all, "device_bytes", json_integer((json_int_t)p->device_bytes));
        json_object_set_new(all, "device_free", json_integer((json_int_t)p->device_free));
    }
    json_object_set_new(all, "mapped", json_integer((json_int_t)p->mapped));
    json_object_set_new(all, "disk", json_integer((json_int_t)p->disk));
    json_object_set_new(all, "disk_free", json_integer(p->disk_free));
    json_object_set_new(all, "checkpoint_bytes", json_integer((json_int_t)p->checkpoint_bytes));
    json_object_set_new(all, "checkpoints", json_integer(p->checkpoints));
    json_object_set_new(all, "export_bytes", json_integer((json_int_t)p->export_bytes));
    json_object_set_new(all, "parameters", json_integer(p->parameters));
    json_object_set_new(all, "learning", json_integer(p->learning));
    json_object_set_new(all, "at_most", json_boolean(p->at_most));
    json_object_set_new(all, "modules", modules);
    json_object_set_new(all, "steps", json_integer(p->steps));
    json_object_set_new(all, "warmup_steps", json_integer(p->warmup_steps));
    json_object_set_new(all, "batch_tokens", json_integer(p->batch_tokens));
    json_object_set_new(all, "data", data_json(&p->data, &j->data));
    if (j->validation.count) {
        json_object_set_new(all, "validation", data_json(&p->validation, &j->validation));
    }
    return all;
}
