// routing/bias_state.c - see bias_state.h; the files of the state are in bias_file.c.
#include "routing/bias_state.h"

#include "base/log.h"
#include "base/mem.h"

#include <math.h>

static void layer_open(struct bias_layer *l, struct arena *a, int64_t E, bool moves_within)
{
    l->moe = true;
    l->b = arena_1d(a, DTYPE_F32, E);
    l->usage = arena_1d(a, DTYPE_F32, E);
    l->phase = arena_1d(a, DTYPE_F32, E);
    if (!moves_within) return;
    l->b_before = arena_1d(a, DTYPE_F32, E);
    l->phase_before = arena_1d(a, DTYPE_F32, E);
}

bool bias_state_open(struct bias_state *s, const struct ops *o, const struct model_config *c,
                     const struct routing_options *r, int64_t max_tokens, struct arena *a,
                     struct error *err)
{
    if (!s->layer) s->layer = mem_zalloc((size_t)c->n_layers, sizeof *s->layer);
    if (!s->layer)
        return fail(err, "no memory for the bias of %lld layers", (long long)c->n_layers);
    s->ops = o;
    s->in = r->bias_in == BIAS_IN_LOGITS ? BIAS_IN_LOGITS : BIAS_IN_SELECTION;
    s->measure = (enum bias_usage)r->bias_usage;
    s->every = (enum bias_every)r->bias_every;
    s->limit = (float)r->bias_limit;
    s->compares = !r->without_telemetry;
    s->n_layers = c->n_layers;
    s->n_experts = c->n_experts;
    bias_state_rate(s, r->bias_rate, r->bias_sign);
    a->purpose = PURPOSE_DATA;
    for (int64_t l = 0; l < c->n_layers; l++) {
        if (!c->moe_layer[l]) continue;
        layer_open(&s->layer[l], a, c->n_experts, s->every == BIAS_EVERY_MICRO_BATCH);
    }
    s->changed = arena_1d(a, DTYPE_F64, c->n_layers);
    s->choices = arena_1d(a, DTYPE_F64, c->n_layers);
    a->purpose = PURPOSE_SCRATCH;
    s->key = arena_2d(a, DTYPE_F32, max_tokens, c->n_experts);
    s->plain = arena_1d(a, DTYPE_I32, max_tokens * c->experts_per_tok);
    return true;
}

void bias_state_close(struct bias_state *s)
{
    mem_free(s->layer);
    s->layer = NULL;
}

void bias_state_rate(struct bias_state *s, double rate, int sign)
{
    s->step = (float)(sign == BIAS_BALANCE ? -rate : rate);
}

bool bias_state_logits(const struct bias_state *s, int64_t layer, struct tensor z)
{
    if (s->in != BIAS_IN_LOGITS) return false;
    s->ops->bias_forward(z, s->layer[layer].b);
    return true;
}

struct tensor bias_state_key(const struct bias_state *s, const struct route_input *in,
                             struct tensor p)
{
    if (s->in == BIAS_IN_LOGITS) return p;
    const struct tensor key = tensor_rows(s->key, 0, p.dim[0]);
    s->ops->convert(key, p);
    s->ops->bias_forward(key, s->layer[in->layer].b);
    if (in->excluded.data) s->ops->put(key, in->excluded, -INFINITY); // p is 0 there, p + b is not
    return key;
}

void bias_state_count(const struct bias_state *s, int64_t layer, struct tensor p,
                      struct tensor routed)
{
    const struct tensor usage = s->layer[layer].usage;
    if (s->measure == BIAS_USAGE_COUNT) {
        s->ops->count_slots(usage, routed);
    } else {
        s->ops->bias_backward(usage, p); // the sum over tokens
    }
}

static struct tensor plain_choice(const struct bias_state *s, int64_t N, int64_t k)
{
    return tensor_2d(s->plain.data, DTYPE_I32, N, k);
}

void bias_state_plain(const struct bias_state *s, struct tensor p, int64_t k)
{
    if (s->compares) s->ops->topk(plain_choice(s, p.dim[0], k), p);
}

void bias_state_compare(const struct bias_state *s, int64_t layer, struct tensor routed)
{
    if (!s->compares) return;
    const struct tensor plain = plain_choice(s, routed.dim[0], routed.dim[1]);
    s->ops->count_changed(tensor_rows(s->changed, layer, 1), tensor_rows(s->choices, layer, 1),
                          routed, plain);
}

// Before the first move of a step that may yet be skipped.
static void remember(struct bias_state *s)
{
    for (int64_t l = 0; l < s->n_layers; l++) {
        const struct bias_layer *x = &s->layer[l];
        if (!x->moe) continue;
        s->ops->convert(x->b_before, x->b);
        s->ops->convert(x->phase_before, x->phase);
    }
    s->moved = true;
}

void bias_state_move(struct bias_state *s, enum bias_every when)
{
    if (when != s->every) return;
    const struct ops *o = s->ops;
    if (when == BIAS_EVERY_MICRO_BATCH && !s->moved) remember(s);
    for (int64_t l = 0; l < s->n_layers; l++) {
        const struct bias_layer *x = &s->layer[l];
        if (!x->moe) continue;
        o->sign_step(x->b, x->usage, s->step, s->limit);
        o->add(x->phase, x->phase, x->usage);
        o->zero(x->usage);
    }
}

// What a skipped step counted, and where it moved the bias within.
static void take_back(const struct bias_state *s)
{
    for (int64_t l = 0; l < s->n_layers; l++) {
        const struct bias_layer *x = &s->layer[l];
        if (!x->moe) continue;
        s->ops->zero(x->usage);
        if (!s->moved) continue;
        s->ops->convert(x->b, x->b_before);
        s->ops->convert(x->phase, x->phase_before);
    }
}

void bias_state_end_step(struct bias_state *s, bool applied)
{
    if (applied) {
        bias_state_move(s, BIAS_EVERY_STEP);
    } else {
        take_back(s);
    }
    s->moved = false;
}

static void report_layer(const struct bias_state *s, json_t *low, json_t *high,
                         const struct bias_layer *x, float *b)
{
    s->ops->download(b, x->b.data, tensor_bytes(x->b));
    float least = b[0], most = b[0];
    for (int64_t e = 1; e < s->n_experts; e++) {
        least = fminf(least, b[e]);
        most = fmaxf(most, b[e]);
    }
    json_array_append_new(low, json_real((double)least));
    json_array_append_new(high, json_real((double)most));
}

// A bias on p, which is about 1/E, acts far harder than one in the logits.
static void warn_of_force(struct bias_state *s, int64_t layer, double changed)
{
    if (s->warned || s->in == BIAS_IN_LOGITS || changed <= 0.5) return;
    s->warned = true;
    log_warning(
        "the bias changes %.0f %% of the choices in layer %lld: in the selection it acts on "
        "probabilities of about 1/%lld; a smaller --bias-rate, a --bias-limit or --bias-in "
        "logits expected",
        100 * changed, (long long)layer, (long long)s->n_experts);
}

// Two downloads of a number for each layer, and one bias each: (L,E) values once a report.
void bias_state_report(struct bias_state *s, json_t *out)
{
    const size_t L = (size_t)s->n_layers;
    float *b = json_buffer((size_t)s->n_experts * sizeof *b);
    double *counts = json_buffer(2 * L * sizeof *counts);
    json_t *low = json_array(), *high = json_array(), *changed = json_array();
    if (b && counts) {
        s->ops->download(counts, s->changed.data, L * sizeof *counts);
        s->ops->download(counts + L, s->choices.data, L * sizeof *counts);
        s->ops->zero(s->changed);
        s->ops->zero(s->choices);
    }
    for (size_t l = 0; b && counts && l < L; l++) {
        if (!s->layer[l].moe) continue;
        report_layer(s, low, high, &s->layer[l], b);
        const double all = counts[L + l], share = all > 0 ? counts[l] / all : 0;
        json_array_append_new(changed, json_real(share));
        warn_of_force(s, (int64_t)l, share);
    }
    mem_free(b);
    mem_free(counts);
    json_object_set_new(out, "bias_min", low);
    json_object_set_new(out, "bias_max", high);
    json_object_set_new(out, "bias_changed", changed);
}

void bias_state_values(const struct bias_state *s, json_t *out)
{
    json_t *all = json_array();
    float *b = json_buffer((size_t)s->n_experts * sizeof *b);
    for (int64_t l = 0; b && l < s->n_layers; l++) {
        if (!s->layer[l].moe) continue;
        json_t *of = json_array();
        s->ops->download(b, s->layer[l].b.data, tensor_bytes(s->layer[l].b));
        for (int64_t e = 0; e < s->n_experts; e++) {
            json_array_append_new(of, json_real((double)b[e]));
        }
        json_array_append_new(all, of);
    }
    mem_free(b);
    json_object_set_new(out, "bias", all);
}
