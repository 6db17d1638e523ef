// eval/compare.c - see compare.h.
#include "eval/compare.h"

#include "base/mem.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

bool models_comparable(const struct model_config *m, const char *dir,
                       const struct model_config *base, const char *base_dir, struct error *err)
{
    const struct {
        const char *what;
        int64_t own, other;
    } sizes[] = {{"layers", m->n_layers, base->n_layers},
                 {"experts", m->n_experts, base->n_experts},
                 {"tokens in the vocabulary", m->vocab, base->vocab},
                 {"wide", m->width, base->width},
                 {"wide in an expert", m->expert_width, base->expert_width}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (sizes[i].own == sizes[i].other) continue;
        return fail(err, "--base %s: %" PRId64 " %s, but %s: %" PRId64 "; the same expected",
                    base_dir, sizes[i].other, sizes[i].what, dir, sizes[i].own);
    }
    for (int64_t l = 0; l < m->n_layers; l++) {
        if (m->moe_layer[l] == base->moe_layer[l]) continue;
        return fail(err,
                    "--base %s: layer %" PRId64 " has %s experts, other than in %s; the same "
                    "expected",
                    base_dir, l, base->moe_layer[l] ? "its" : "no", dir);
    }
    return true;
}

static int64_t most_slots(const struct model *m)
{
    int64_t most = 0;
    for (int64_t l = 0; l < m->config.n_layers; l++) {
        if (!m->config.moe_layer[l]) continue;
        const int64_t S = m->setup.routing->slots(m->routing_state, l, false);
        if (S > most) most = S;
    }
    return most;
}

static bool open_drift(struct comparison *c)
{
    const size_t L = (size_t)c->layers, N = (size_t)c->most, E = (size_t)c->experts;
    c->slots = most_slots(c->base);
    c->p = mem_alloc(L * N * E * sizeof *c->p);
    c->choice = mem_alloc(L * N * (size_t)c->slots * sizeof *c->choice);
    c->chosen = mem_zalloc(L, sizeof *c->chosen);
    c->z = mem_alloc(N * E * sizeof *c->z);
    c->own = mem_alloc(N * (size_t)most_slots(c->model) * sizeof *c->own);
    return c->p && c->choice && c->chosen && c->z && c->own;
}

static struct tensor kept_input(const struct comparison *c, int64_t layer, int64_t n)
{
    const struct tensor like = model_moe_input(c->base, layer);
    const size_t row = (size_t)c->base->config.width * dtype_size(like.dtype);
    const size_t stride = c->kept_bytes / (size_t)c->layers / row;
    char *data = (char *)c->kept + (size_t)layer * stride * row;
    return tensor_2d(data, like.dtype, n, c->base->config.width);
}

static bool open_outputs(struct comparison *c, int64_t tokens, struct error *err)
{
    const struct model *m = c->model;
    const int64_t most = tokens < c->most ? tokens : c->most;
    if (!expert_outputs_open(&c->outputs, m, most, err)) return false;
    if (!c->base) return true;
    const size_t row = (size_t)m->config.width * dtype_size(model_moe_input(c->base, 0).dtype);
    c->kept_bytes = (size_t)(c->layers * most) * row;
    c->kept = m->setup.ops->allocate(c->kept_bytes);
    if (!c->kept) return fail(err, "no memory for the inputs of %" PRId64 " layers", c->layers);
    return expert_outputs_open(&c->base_outputs, c->base, most, err);
}

bool comparison_open(struct comparison *c, struct model *model, struct model *base,
                     int64_t output_tokens, struct error *err)
{
    *c = (struct comparison){.model = model,
                             .base = base,
                             .left = output_tokens,
                             .layers = model->config.n_layers,
                             .experts = model->config.n_experts,
                             .most = model->setup.max_tokens};
    const size_t L = (size_t)c->layers;
    c->layer = mem_zalloc(L, sizeof *c->layer);
    c->pairs = mem_zalloc(L, sizeof *c->pairs);
    c->output_tokens = mem_zalloc(L, sizeof *c->output_tokens);
    bool ok = c->layer && c->pairs && c->output_tokens && (!base || open_drift(c));
    if (!ok) fail(err, "no memory to compare %" PRId64 " layers", c->layers);
    ok = ok && (!output_tokens || open_outputs(c, output_tokens, err));
    if (!ok) comparison_close(c);
    return ok;
}

void comparison_close(struct comparison *c)
{
    if (c->kept) c->model->setup.ops->release(c->kept, c->kept_bytes);
    if (c->outputs.ops) expert_outputs_close(&c->outputs);
    if (c->base_outputs.ops) expert_outputs_close(&c->base_outputs);
    mem_free(c->p);
    mem_free(c->choice);
    mem_free(c->chosen);
    mem_free(c->z);
    mem_free(c->own);
    mem_free(c->layer);
    mem_free(c->pairs);
    mem_free(c->output_tokens);
    *c = (struct comparison){0};
}

// The base's pass: its distributions, choices and inputs.
static void keep_base(void *user, int64_t layer, struct tensor z, const struct route *r)
{
    struct comparison *c = user;
    const struct ops *o = c->base->setup.ops;
    const int64_t at = layer * c->most;
    o->download(c->p + at * c->experts, z.data, tensor_bytes(z));
    o->download(c->choice + at * c->slots, r->expert.data, tensor_bytes(r->expert));
    c->chosen[layer] = r->expert.dim[1];
    if (!c->now) return;
    const struct tensor x = model_moe_input(c->base, layer);
    o->convert(kept_input(c, layer, c->now), tensor_rows(x, 0, c->now)); // of one type: a copy
}

static void begin_batch(void *user, const struct batch *b)
{
    struct comparison *c = user;
    c->now = c->left < b->n ? c->left : b->n;
    c->left -= c->now;
    if (!c->base) return;
    c->base->watcher = (struct route_watcher){c, keep_base};
    model_forward(c->base, b, NULL, false);
    c->base->watcher = (struct route_watcher){0};
}

// log p of softmax(z); -inf where z is.
static double log_sum(const float *z, int64_t E)
{
    double max = (double)-INFINITY, sum = 0;
    for (int64_t e = 0; e < E; e++) {
        max = fmax(max, (double)z[e]);
    }
    for (int64_t e = 0; e < E; e++) {
        sum += exp((double)z[e] - max);
    }
    return max + log(sum);
}

// KL(p || q) of the softmaxes of two rows of logits.
static double divergence(const float *p, const float *q, int64_t E)
{
    const double lp = log_sum(p, E), lq = log_sum(q, E);
    double sum = 0;
    for (int64_t e = 0; e < E; e++) {
        const double a = (double)p[e] - lp;
        if (exp(a) > 0) sum += exp(a) * (a - ((double)q[e] - lq));
    }
    return sum;
}

static int64_t count_changed(const int32_t *own, int64_t S, const int32_t *other, int64_t T)
{
    int64_t n = 0;
    for (int64_t s = 0; s < S; s++) {
        bool found = false;
        for (int64_t t = 0; t < T; t++) {
            found |= own[s] == other[t];
        }
        n += !found;
    }
    return n;
}

static void add_drift(struct comparison *c, int64_t layer, struct tensor z, const struct route *r)
{
    const struct ops *o = c->model->setup.ops;
    struct layer_comparison *x = &c->layer[layer];
    const int64_t N = z.dim[0], E = c->experts, S = r->expert.dim[1], T = c->chosen[layer];
    const float *base = c->p + layer * c->most * E;
    const int32_t *choice = c->choice + layer * c->most * c->slots;
    o->download(c->z, z.data, tensor_bytes(z));
    o->download(c->own, r->expert.data, tensor_bytes(r->expert));
    for (int64_t n = 0; n < N; n++) {
        x->kl += divergence(base + n * E, c->z + n * E, E);
        x->changed += (double)count_changed(c->own + n * S, S, choice + n * T, T) / (double)S;
    }
    x->tokens += N;
}

static void add_outputs(struct comparison *c, int64_t layer)
{
    struct similarity *s = &c->layer[layer].outputs;
    const int64_t E = c->experts, B = c->outputs.block;
    const struct tensor x = model_moe_input(c->model, layer);
    for (int64_t first = 0; first < c->now; first += B) {
        const int64_t n = c->now - first < B ? c->now - first : B;
        expert_outputs_of(&c->outputs, c->model, layer, tensor_rows(x, first, n));
        for (int64_t i = 0; i < n; i++) {
            c->pairs[layer] += similarity_add_pairs(&s->own, c->outputs.host_gram + i * E * E, E);
        }
        c->output_tokens[layer] += n;
        if (!c->base) continue;
        const struct tensor y = tensor_rows(kept_input(c, layer, c->now), first, n);
        expert_outputs_of(&c->base_outputs, c->base, layer, y);
        for (int64_t i = 0; i < n; i++) {
            similarity_add_pairs(&s->base, c->base_outputs.host_gram + i * E * E, E);
        }
        expert_outputs_kept(&s->kept, &c->outputs, &c->base_outputs, n);
    }
}

static void compare_layer(void *user, int64_t layer, struct tensor z, const struct route *r)
{
    struct comparison *c = user;
    if (c->base) add_drift(c, layer, z, r);
    if (c->now) add_outputs(c, layer);
}

struct usage_observer comparison_observer(struct comparison *c)
{
    return (struct usage_observer){c, begin_batch, compare_layer};
}

static double mean(double sum, double n)
{
    return n > 0 ? sum / n : (double)NAN;
}

void comparison_end(struct comparison *c)
{
    for (int64_t l = 0; l < c->layers; l++) {
        struct layer_comparison *x = &c->layer[l];
        const double pairs = (double)c->pairs[l], rows = (double)c->output_tokens[l];
        x->kl = mean(x->kl, (double)x->tokens);
        x->changed = mean(x->changed, (double)x->tokens);
        x->outputs.own = mean(x->outputs.own, pairs);
        x->outputs.base = mean(x->outputs.base, c->base ? pairs : 0);
        x->outputs.kept = mean(x->outputs.kept, c->base ? rows * (double)c->experts : 0);
    }
}
