// cli/setup.c - see setup.h.
#include "cli/setup.h"

#include "base/file.h"
#include "base/log.h"
#include "cli/progress.h"
#include "io/model_template.h"
#include "model/families.h"

#include <inttypes.h>
#include <string.h>
#include <utf8proc.h>

void setup_machine(const struct options *o)
{
    cpu_configure((int)o->config.threads, (enum cpu_products)o->config.products);
}

bool setup_device(const struct ops **out, const struct options *o, struct error *err)
{
    const enum device_choice choice = (enum device_choice)o->config.device;
    struct error why = {""};
    *out = &cpu_ops;
    if (choice == DEVICE_CPU || (choice == DEVICE_AUTO && !cuda_built())) return true;
    const struct ops *cuda = cuda_open(choice == DEVICE_AUTO ? &why : err);
    if (!cuda && choice == DEVICE_CUDA) return false;
    if (cuda) {
        *out = cuda;
    } else {
        log_info("%s; on the CPU", why.msg);
    }
    return true;
}

// ---- the bar while weights go to a device

static struct {
    const struct output *io;
    struct progress bar;
    bool shown;
} loading;

void setup_output(const struct output *io)
{
    loading.io = io;
}

static void show_loading(void *user, size_t done, size_t of)
{
    (void)user;
    if (!loading.shown) progress_open(&loading.bar, loading.io, "MiB of weights");
    loading.shown = done < of;
    progress_show(&loading.bar, (int64_t)(done >> 20), (int64_t)(of >> 20), NULL);
    if (done == of) progress_end(&loading.bar);
}

// A run that learns goes on from an adapter of its own tuning; what only computes takes whatever lies there,
// and so does dump unless it is told.
static bool setup_adapter(struct model_setup *s, const struct options *o, bool learns,
                          struct error *err)
{
    const struct tuning *t;
    struct tuning_options found = s->tuning_options;
    s->adapter = o->config.adapter;
    if (!tuning_of_adapter(&t, &found, s->adapter, err)) return false;
    const bool any = o->command == COMMAND_DUMP && !options_given(o, "tuning");
    if (learns && t != s->tuning && !any) {
        return fail(err, "--adapter %s: of tuning %s, but --tuning is %s", s->adapter, t->name,
                    s->tuning->name);
    }
    s->tuning = t;
    s->tuning_options = found;
    s->frozen = !learns;
    return true;
}

static struct leaf_storage storage_of(const struct run_config *c)
{
    return (struct leaf_storage){.states = (enum state_type)c->states,
                                 .no_masters = c->masters == MASTERS_NONE,
                                 .shared_gradients = c->fused_backward};
}

bool setup_model(struct model_setup *s, struct options *o, bool learns, struct error *err)
{
    if (!routing_settle(o, err)) return false;
    const struct run_config *c = &o->config;
    *s = (struct model_setup){
        .dir = c->model,
        .dtype = (enum dtype)c->dtype,
        .routing = routing_find(c->routing, err),
        .routing_options = c->routing_options,
        .tuning_options = c->tuning_options,
        .recompute = c->recompute,
        .storage = storage_of(c),
        .host_states = c->offload_states,
    };
    if (!s->routing) return false;
    s->tuning_options.seed = (uint64_t)c->seed;
    if (learns && !(s->tuning = tuning_find(c->tuning, err))) return false;
    setup_machine(o);
    if (!setup_device(&s->ops, o, err)) return false;
    if (!s->ops->reads_host && loading.io) s->loading = show_loading;
    return !c->adapter || setup_adapter(s, o, learns, err);
}

// Of a run that learns: do the ways to keep what learns go together?
static bool check_storage(const struct options *o, struct error *err)
{
    const struct run_config *c = &o->config;
    const struct model_setup s = {.ops = &cpu_ops,
                                  .dtype = (enum dtype)c->dtype,
                                  .tuning = c->tuning ? tuning_find(c->tuning, err) : NULL,
                                  .storage = storage_of(c)};
    if (o->command != COMMAND_TRAIN && o->command != COMMAND_PLAN) return true;
    return s.tuning && train_storage_check(&s, &c->train, err);
}

static bool check_readers(const struct options *o, const struct texts *routing, struct error *err)
{
    const struct run_config *r = &o->config;
    const bool told =
        r->tuning && (!r->adapter || options_given(o, "tuning")); // else the adapter's
    const struct texts one = {.item = (const char *[]){r->tuning}, .count = told};
    return options_read_by_methods(o, routing, r->tunings.count ? &r->tunings : &one, err);
}

static bool is_utf8(const char *text)
{
    const utf8proc_uint8_t *at = (const utf8proc_uint8_t *)text;
    utf8proc_int32_t point;
    while (*at) {
        const utf8proc_ssize_t n = utf8proc_iterate(at, -1, &point);
        if (n <= 0) return false;
        at += n;
    }
    return true;
}

// Of a run: its options are kept as JSON, which has no word for other bytes.
static bool check_texts(const struct options *o, struct error *err)
{
    for (int64_t i = 0; i < option_count(); i++) {
        const struct option *row = option_at(i);
        const void *field = (const char *)&o->config + row->field;
        const bool list = row->type == OPTION_TEXTS;
        if (!option_in(row, o->command) || (!list && row->type != OPTION_TEXT)) continue;
        const struct texts one = {.item = (const char **)(uintptr_t)field, .count = 1};
        const struct texts *all = list ? field : &one;
        for (int64_t k = 0; k < all->count; k++) {
            if (!all->item[k] || is_utf8(all->item[k])) continue;
            return fail(err, "--%s: found '%s', expected UTF-8, in which run.json keeps it",
                        row->name, all->item[k]);
        }
    }
    return true;
}

enum status setup_check(const struct options *o, struct error *err)
{
    struct options settled = *o;
    const struct run_config *r = &settled.config;
    const struct family *family;
    struct model_config c;
    if (!check_storage(o, err)) return STATUS_USAGE;
    if (o->command == COMMAND_TRAIN && !check_texts(o, err)) return STATUS_USAGE;
    if (!option_find(o->command, "routing") || (!r->model && !r->config)) return STATUS_DONE;
    if (!(r->model ? family_read_config(&family, &c, r->model, err)
                   : family_read_config_file(&family, &c, r->config, err))) { // bench
        return STATUS_FAILED;
    }
    if (!routing_settle(&settled, err)) return STATUS_FAILED;
    const struct texts one = {.item = (const char *[]){r->routing}, .count = 1};
    const struct texts *names = r->routings.count ? &r->routings : &one;
    if (!o->of_session && !check_readers(o, names, err)) return STATUS_USAGE;
    for (int64_t i = 0; i < names->count; i++) {
        const struct routing *routing = routing_find(names->item[i], err);
        if (!routing || !routing_check(routing, &r->routing_options, &c, err)) return STATUS_USAGE;
    }
    return STATUS_DONE;
}

// The template that was asked for; else the model's own, where it has one; else plain, and for a prompt none.
static bool open_chat(struct text_setup *t, const struct options *o, struct error *err)
{
    const char *name = o->config.template, *dir = o->config.model;
    const bool prompt = o->command == COMMAND_GENERATE;
    bool found = false;
    if (!option_find(o->command, "template")) return true;
    if (!name && t->tokenizer && !model_template_exists(&found, dir, err)) return false;
    if (!name) name = found ? "model" : prompt ? "raw" : "plain";
    if (prompt && strcmp(name, "raw") == 0) return true;
    t->chat = chat_template_find(name, err);
    if (!t->chat || !t->chat->own) return t->chat != NULL;
    if (!t->tokenizer) return fail(err, "%s: no tokenizer.json for the model's template", dir);
    t->special.own = model_template_open(dir, t->tokenizer, err);
    return t->special.own != NULL;
}

bool text_open(struct text_setup *t, const struct options *o, struct error *err)
{
    const struct run_config *c = &o->config;
    const struct family *family;
    char path[4096];
    *t = (struct text_setup){0};
    if (!family_read_config(&family, &t->config, c->model, err)) return false;
    if (!path_join(path, sizeof path, c->model, "tokenizer.json", err)) return false;
    if (file_exists(path)) {
        t->tokenizer = tokenizer_open(c->model, err);
        if (!t->tokenizer) return false;
    }
    if (t->tokenizer && !special_tokens_read(&t->special, c->model, t->tokenizer, err)) {
        text_close(t);
        return false;
    }
    if (!open_chat(t, o, err)) {
        text_close(t);
        return false;
    }
    return true;
}

void text_close(struct text_setup *t)
{
    model_template_close(t->special.own);
    t->special.own = NULL;
    tokenizer_close(t->tokenizer);
    t->tokenizer = NULL;
}

// A longer example than a micro-batch cannot be learnt, and the model has seen no later positions.
static bool settle_length(struct options *o, const struct text_setup *t, struct error *err)
{
    struct run_config *c = &o->config;
    int64_t *length = &c->dataset.max_length;
    const bool given = options_given(o, "max-length");
    const bool packs = !c->train.batch_sequences || o->command != COMMAND_INSPECT;
    const int64_t batch = packs ? c->train.batch_tokens : 0;
    if (given && batch && *length > batch) {
        return fail(err,
                    "--max-length %" PRId64 " is more than --batch-tokens %" PRId64
                    ": an example must fit in a micro-batch",
                    *length, batch);
    }
    if (given && *length > t->config.max_positions) {
        log_warning("--max-length %" PRId64 " is more than the model's %" PRId64 " positions",
                    *length, t->config.max_positions);
    }
    if (!given && batch && *length > batch) *length = batch;
    if (!given && *length > t->config.max_positions) *length = t->config.max_positions;
    return true;
}

bool data_open(struct dataset *d, struct options *o, const struct text_setup *t,
               const struct texts *files, bool keep_prompts, struct error *err)
{
    if (!settle_length(o, t, err)) return false;
    struct dataset_options options = o->config.dataset;
    options.files = files->item;
    options.n_files = files->count;
    options.chat = t->chat;
    options.special = t->special;
    options.vocab = t->config.vocab;
    options.keep_prompts = keep_prompts;
    return dataset_open(d, &options, t->tokenizer, err);
}

void data_describe(FILE *f, const char *name, const struct dataset *d)
{
    char examples[32], tokens[32], learnt[32];
    fprintf(f, "%s: %s examples, %s tokens, %s of them carry loss", name,
            format_count(examples, d->count), format_count(tokens, d->n_tokens),
            format_count(learnt, d->supervised));
    if (d->cut) fprintf(f, "; %" PRId64 " cut", d->cut);
    if (d->dropped) fprintf(f, "; %" PRId64 " dropped as too long", d->dropped);
    if (d->bad) fprintf(f, "; %" PRId64 " malformed, skipped", d->bad);
    if (d->unsupervised) fprintf(f, "; %" PRId64 " without a token to learn", d->unsupervised);
    fputc('\n', f);
}

static bool add_stop(struct tokens *out, int32_t id)
{
    for (int64_t i = 0; i < out->count; i++) {
        if (out->id[i] == id) return true;
    }
    return tokens_add(out, id);
}

// The token that closes an assistant's turn is the last special segment of a conversation of one turn. Not
// every template of a model takes such a conversation.
static bool add_closing(struct tokens *out, const struct text_setup *t, struct error *err)
{
    static const struct message turns[] = {{.role = "user", .content = "x"},
                                           {.role = "assistant", .content = "y"}};
    struct segments s = {0};
    bool ok = t->chat->render(&s, turns, 2, &t->special, false, err);
    if (!ok && t->chat->own) return true;
    for (int64_t i = 0; ok && i < s.count; i++) {
        if (!s.segment[i].special || !s.segment[i].answer) continue;
        char *text = s.segment[i].text;
        text[strcspn(text, "\n")] = 0; // {% generation %} may take the line end in
        const int32_t id = tokenizer_id(t->tokenizer, text);
        ok = id < 0 || add_stop(out, id) || fail(err, "no memory");
    }
    segments_free(&s);
    return ok;
}

bool stop_ids_open(struct tokens *out, const struct text_setup *t, struct error *err)
{
    *out = (struct tokens){0};
    const bool closes = t->chat && t->tokenizer;
    bool ok = true;
    for (int i = 0; ok && i < t->config.n_stop_ids; i++) {
        ok = add_stop(out, (int32_t)t->config.stop_ids[i]) || fail(err, "no memory");
    }
    if (ok && (!closes || add_closing(out, t, err))) return true;
    tokens_free(out);
    return false;
}
