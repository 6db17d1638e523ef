// cli/cmd_inspect.c - what a model folder or a file of examples holds, without loading weights.
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/setup.h"
#include "io/checkpoint.h"
#include "model/families.h"
#include "train/feed.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void shape_text(char *out, size_t size, const struct st_entry *e)
{
    size_t n = 0;
    out[0] = 0;
    for (int i = 0; i < e->rank && n < size; i++) {
        n += (size_t)snprintf(out + n, size - n, i ? ", %" PRId64 : "%" PRId64, e->shape[i]);
    }
}

static int64_t elements(const struct st_entry *e)
{
    int64_t n = 1;
    for (int i = 0; i < e->rank; i++) {
        n *= e->shape[i];
    }
    return n;
}

// "model.layers.*.mlp.experts.*.gate_proj.weight": digits between dots stand for an index.
static void pattern_of(char *out, size_t size, const char *name)
{
    size_t n = 0;
    for (const char *p = name; *p && n + 1 < size;) {
        const size_t digits = strspn(p, "0123456789");
        const bool whole =
            digits && (p == name || p[-1] == '.') && (p[digits] == '.' || !p[digits]);
        if (whole) {
            out[n++] = '*';
            p += digits;
        } else {
            out[n++] = *p++;
        }
    }
    out[n] = 0;
}

struct kind { // tensors of one pattern, shape and type
    char pattern[256], shape[128], dtype[16];
    int64_t tensors, parameters;
    uint64_t bytes;
};

struct kinds {
    struct kind *kind;
    int64_t count, capacity;
};

static bool add_tensor(struct kinds *all, const struct st_entry *e, struct error *err)
{
    struct kind k = {.tensors = 1, .parameters = elements(e), .bytes = e->end - e->begin};
    pattern_of(k.pattern, sizeof k.pattern, e->name);
    shape_text(k.shape, sizeof k.shape, e);
    snprintf(k.dtype, sizeof k.dtype, "%s", e->dtype_name);
    for (int64_t i = 0; i < all->count; i++) {
        struct kind *x = &all->kind[i];
        if (strcmp(x->pattern, k.pattern) != 0 || strcmp(x->shape, k.shape) != 0 ||
            strcmp(x->dtype, k.dtype) != 0) {
            continue;
        }
        x->tensors++;
        x->parameters += k.parameters;
        x->bytes += k.bytes;
        return true;
    }
    void *grown = array_grow(all->kind, all->count, &all->capacity, sizeof k);
    if (!grown) return fail(err, "no memory for the list of tensors");
    all->kind = grown;
    all->kind[all->count++] = k;
    return true;
}

static json_t *config_json(const struct model_config *c)
{
    json_t *j = json_object();
    json_object_set_new(j, "architecture", json_string(c->architecture));
    json_object_set_new(j, "width", json_integer(c->width));
    json_object_set_new(j, "layers", json_integer(c->n_layers));
    json_object_set_new(j, "heads", json_integer(c->n_heads));
    json_object_set_new(j, "kv_heads", json_integer(c->n_kv_heads));
    json_object_set_new(j, "head_dim", json_integer(c->head_dim));
    json_object_set_new(j, "vocab", json_integer(c->vocab));
    json_object_set_new(j, "max_positions", json_integer(c->max_positions));
    json_object_set_new(j, "experts", json_integer(c->n_experts));
    json_object_set_new(j, "experts_per_tok", json_integer(c->experts_per_tok));
    json_object_set_new(j, "expert_width", json_integer(c->expert_width));
    json_object_set_new(j, "shared_width", json_integer(c->shared_width));
    json_object_set_new(j, "dense_width", json_integer(c->dense_width));
    json_object_set_new(j, "window", json_integer(c->window));
    return j;
}

static void print_config(FILE *f, const struct model_config *c)
{
    int64_t moe = 0, windows = 0;
    for (int64_t l = 0; l < c->n_layers; l++) {
        moe += c->moe_layer[l];
        windows += c->window_layer[l];
    }
    output_safe(f, c->architecture, strlen(c->architecture));
    fprintf(f,
            ": %" PRId64 " layers (%" PRId64 " with experts) of width %" PRId64 ", %" PRId64
            " heads of %" PRId64 " (%" PRId64 " for keys and values), vocabulary %" PRId64
            ", %" PRId64 " positions\n",
            c->n_layers, moe, c->width, c->n_heads, c->head_dim, c->n_kv_heads, c->vocab,
            c->max_positions);
    if (moe < c->n_layers) fprintf(f, "dense layers: MLPs of width %" PRId64 "\n", c->dense_width);
    if (windows) {
        fprintf(f, "%" PRId64 " layers see the last %" PRId64 " tokens\n", windows, c->window);
    }
    if (!c->n_experts) return;
    fprintf(f, "experts: %" PRId64 " of width %" PRId64 ", %" PRId64 " for each token%s",
            c->n_experts, c->expert_width, c->experts_per_tok,
            c->renormalize_topk ? ", gates sum to 1" : "");
    if (c->shared_width) fprintf(f, "; a shared one of width %" PRId64, c->shared_width);
    fputc('\n', f);
}

static void print_kinds(FILE *f, const struct kinds *all)
{
    char count[32], bytes[32];
    for (int64_t i = 0; i < all->count; i++) {
        const struct kind *k = &all->kind[i];
        fprintf(f, "%6" PRId64 " x  %-5s [%s]%*s", k->tensors, k->dtype, k->shape,
                (int)(22 - (int)strlen(k->shape) > 0 ? 22 - (int)strlen(k->shape) : 1), "");
        output_safe(f, k->pattern, strlen(k->pattern));
        fprintf(f, "  (%s parameters, %s)\n", format_count(count, k->parameters),
                format_bytes(bytes, k->bytes));
    }
}

static json_t *kinds_json(const struct kinds *all)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < all->count; i++) {
        const struct kind *k = &all->kind[i];
        json_t *j = json_object();
        json_object_set_new(j, "name", json_string(k->pattern));
        json_object_set_new(j, "shape", json_string(k->shape));
        json_object_set_new(j, "dtype", json_string(k->dtype));
        json_object_set_new(j, "tensors", json_integer(k->tensors));
        json_object_set_new(j, "parameters", json_integer(k->parameters));
        json_object_set_new(j, "bytes", json_integer((json_int_t)k->bytes));
        json_array_append_new(list, j);
    }
    return list;
}

static bool report_model(const struct options *o, const struct model_config *c,
                         const struct checkpoint *ck, const struct kinds *all, struct output *io,
                         struct error *err)
{
    int64_t parameters = 0;
    uint64_t bytes = 0;
    for (int64_t i = 0; i < all->count; i++) {
        parameters += all->kind[i].parameters;
        bytes += all->kind[i].bytes;
    }
    char count[32], size[32];
    print_config(io->people, c);
    print_kinds(io->people, all);
    fprintf(io->people, "%s parameters, %s, in %" PRId64 " file%s\n",
            format_count(count, parameters), format_bytes(size, bytes), ck->n_shards,
            ck->n_shards == 1 ? "" : "s");
    if (!io->json) return true;
    json_t *j = json_object();
    json_object_set_new(j, "model", json_string(o->config.model));
    json_object_set_new(j, "config", config_json(c));
    json_object_set_new(j, "parameters", json_integer(parameters));
    json_object_set_new(j, "bytes", json_integer((json_int_t)bytes));
    json_object_set_new(j, "files", json_integer(ck->n_shards));
    json_object_set_new(j, "tensors", kinds_json(all));
    return output_json(io, j, err);
}

static bool inspect_model(const struct options *o, const struct model_config *c, struct output *io,
                          struct error *err)
{
    struct checkpoint ck = {0};
    struct kinds all = {0};
    bool ok = checkpoint_open(&ck, o->config.model, err);
    for (int64_t i = 0; ok && i < checkpoint_tensors(&ck); i++) {
        ok = add_tensor(&all, checkpoint_at(&ck, i), err);
    }
    ok = ok && report_model(o, c, &ck, &all, io, err);
    mem_free(all.kind);
    checkpoint_close(&ck);
    return ok;
}

// How tokens are told apart: learnt ones green and the rest dim on a terminal; elsewhere learnt ones in
// brackets, the others behind a bar. Borders show in both: a colour alone has none, so tokens alternate.
struct marks {
    const char *learnt[2], *read[2], *end_learnt, *end_read;
};
static const struct marks in_colour = {
    {"\033[32m", "\033[1;4;32m"}, {"\033[2m", "\033[2;4m"}, "\033[0m", "\033[0m"};
static const struct marks in_plain = {{"[", "["}, {"|", "|"}, "]", ""};

static const struct marks *marks_for(const struct output *io)
{
    const char *no_color = getenv("NO_COLOR"); // no-color.org: any text but an empty one
    return io->people_terminal && !(no_color && *no_color) ? &in_colour : &in_plain;
}

// An id beyond the tokenizer's, of a vocabulary that was padded, has no text.
static bool token_text(struct buf *text, int32_t id, const struct tokenizer *t, struct error *err)
{
    if (t && id < tokenizer_size(t)) return tokenizer_decode(t, &id, 1, false, text, err);
    return buf_printf(text, "<%" PRId32 ">", id) || fail(err, "no memory for a token's text");
}

static bool print_example(struct output *io, const struct dataset *d, const struct example *e,
                          const struct tokenizer *t, struct error *err)
{
    FILE *f = io->people;
    const struct marks *m = marks_for(io);
    fputs("-- ", f);
    output_safe(f, e->file, strlen(e->file));
    fprintf(f, ":%" PRId64 ": %" PRId64 " tokens, %" PRId64 " learnt\n", e->line, e->count,
            e->supervised);
    for (int64_t i = e->first; i < e->first + e->count; i++) {
        const bool learn = d->learn[i] && i > e->first; // the first is nobody's target
        struct buf text = {0};
        const bool ok = token_text(&text, d->id[i], t, err);
        fputs((learn ? m->learnt : m->read)[(i - e->first) % 2], f);
        if (ok) output_safe(f, text.data, text.size);
        fputs(learn ? m->end_learnt : m->end_read, f);
        buf_free(&text);
        if (!ok) return false;
    }
    fputs("\n\n", f);
    return true;
}

// What a run would make of the data: its first pass, packed as `train` packs it.
struct outlook {
    int64_t micro_batches, largest; // tokens of the largest
    double fill;     // of the room that micro-batches have; 0: they have no fixed room
    double examples; // of a micro-batch, mean
};

static bool look_ahead(struct outlook *out, const struct options *o, const struct dataset *d,
                       struct error *err)
{
    struct train_options t = o->config.train;
    struct packing p;
    *out = (struct outlook){0};
    if (t.batch_sequences) t.batch_tokens = 0;
    t.seed = (uint64_t)o->config.seed;
    if (!t.batch_tokens && !t.batch_sequences) {
        return fail(err, "--batch-tokens 0 needs --batch-sequences");
    }
    if (!feed_pack(&p, d, &t, 0, true, err)) return false;
    out->micro_batches = p.count;
    out->largest = feed_largest(&p, d);
    out->fill = t.batch_tokens ? packing_fill(&p, d, t.batch_tokens) : 0;
    out->examples = (double)d->count / (double)p.count;
    packing_free(&p);
    return true;
}

static void print_outlook(FILE *f, const struct options *o, const struct outlook *out)
{
    const int64_t most = o->config.dataset.max_length;
    char count[32], largest[32];
    fprintf(f, "a pass: %s micro-batches of %.1f examples", format_count(count, out->micro_batches),
            out->examples);
    if (out->fill > 0) {
        fprintf(f, ", %.1f %% of their %" PRId64 " tokens filled", 100 * out->fill,
                o->config.train.batch_tokens);
    } else {
        fprintf(f, ", at most %s tokens", format_count(largest, out->largest));
    }
    fprintf(f, "; examples of at most %" PRId64 " tokens (--max-length)\n", most);
}

static json_t *data_json(const struct dataset *d, const struct dataset_stats *s,
                         const struct outlook *out)
{
    json_t *j = json_object();
    json_object_set_new(j, "examples", json_integer(d->count));
    json_object_set_new(j, "tokens", json_integer(d->n_tokens));
    json_object_set_new(j, "supervised", json_integer(d->supervised));
    json_object_set_new(j, "cut", json_integer(d->cut));
    json_object_set_new(j, "dropped", json_integer(d->dropped));
    json_object_set_new(j, "bad", json_integer(d->bad));
    json_object_set_new(j, "unsupervised", json_integer(d->unsupervised));
    json_object_set_new(j, "shortest", json_integer(s->shortest));
    json_object_set_new(j, "median", json_integer(s->median));
    json_object_set_new(j, "p90", json_integer(s->p90));
    json_object_set_new(j, "p99", json_integer(s->p99));
    json_object_set_new(j, "longest", json_integer(s->longest));
    json_object_set_new(j, "micro_batches", json_integer(out->micro_batches));
    json_object_set_new(j, "largest", json_integer(out->largest));
    json_object_set_new(j, "fill", out->fill > 0 ? json_real(out->fill) : json_null());
    return j;
}

static bool report_data(const struct options *o, const struct dataset *d,
                        const struct dataset_stats *s, struct output *io, struct error *err)
{
    FILE *f = io->people;
    struct outlook out;
    if (!look_ahead(&out, o, d, err)) return false;
    data_describe(f, "data", d);
    fprintf(f,
            "lengths in tokens: shortest %" PRId64 ", median %" PRId64 ", 90 %% %" PRId64
            ", 99 %% %" PRId64 ", longest %" PRId64 "; %.1f %% of the tokens carry loss\n",
            s->shortest, s->median, s->p90, s->p99, s->longest, 100 * s->supervised_share);
    print_outlook(f, o, &out);
    return !io->json || output_json(io, data_json(d, s, &out), err);
}

static bool inspect_data(struct options *o, const struct text_setup *t, struct output *io,
                         struct error *err)
{
    struct dataset d = {0};
    struct dataset_stats s;
    bool ok = data_open(&d, o, t, &o->config.data, false, err) && dataset_stats(&s, &d, err);
    for (int64_t i = 0; ok && i < d.count && i < o->config.examples; i++) {
        ok = print_example(io, &d, &d.example[i], t->tokenizer, err);
    }
    ok = ok && report_data(o, &d, &s, io, err);
    dataset_close(&d);
    return ok;
}

enum status command_inspect(struct options *o, struct output *io, struct error *err)
{
    struct text_setup t;
    if (!o->config.model) {
        fail(err, "inspect needs --model DIR; with --data FILE its tokenizer is used");
        return STATUS_USAGE;
    }
    if (!text_open(&t, o, err)) return STATUS_FAILED;
    const bool ok =
        o->config.data.count ? inspect_data(o, &t, io, err) : inspect_model(o, &t.config, io, err);
    text_close(&t);
    return ok ? STATUS_DONE : STATUS_FAILED;
}
