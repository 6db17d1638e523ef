// tests/cli/pairs.h - what test_pairs.c needs of a user's command line, and the check of a model's gradients
// against central differences of the surrogate that its routing differentiates, with the choices held.
#pragma once
#include "../train/toy.h"

#include "base/log.h"
#include "cli/commands.h"
#include "cli/job.h"
#include "eval/score.h"

#include <stdlib.h>

enum { PAIRS_TOKENS = 18 }; // few enough that all experts of all tokens fit in a run's activations

static inline bool pairs_options(struct options *o, enum command c, const char *line,
                                 struct error *err)
{
    static char text[4096]; // options keep pointers into it
    static char *argv[128];
    int argc = 0;
    snprintf(text, sizeof text, "%s", line);
    for (char *p = strtok(text, " "); p; p = strtok(NULL, " ")) {
        argv[argc++] = p;
    }
    return options_parse(o, c, argc, argv, err);
}

// The toy's examples as a file of ids.
static inline void pairs_write_data(const struct toy *t)
{
    struct buf b = {0};
    struct error err = {0};
    for (int64_t i = 0; i < t->data.count; i++) {
        const struct example *x = &t->data.example[i];
        buf_puts(&b, "{\"input_ids\": [");
        for (int64_t k = 0; k < x->count; k++) {
            buf_printf(&b, "%s%d", k ? ", " : "", (int)t->data.id[x->first + k]);
        }
        buf_puts(&b, "], \"labels\": [");
        for (int64_t k = 0; k < x->count; k++) {
            const int64_t at = x->first + k;
            buf_printf(&b, "%s%d", k ? ", " : "", t->data.learn[at] ? (int)t->data.id[at] : -100);
        }
        buf_puts(&b, "]}\n");
    }
    check_ok(file_write(toy_path(t->base, "data.jsonl"), b.data, b.size, &err), &err);
    buf_free(&b);
}

// What `eval` says of the model and data of a command line.
static inline double pairs_loss(const char *line)
{
    struct options o;
    struct error err = {0};
    struct text_setup text;
    struct dataset d;
    struct model_setup setup;
    struct model m;
    struct loss_score s;
    check_ok(pairs_options(&o, COMMAND_EVAL, line, &err), &err);
    check_ok(text_open(&text, &o, &err), &err);
    check_ok(data_open(&d, &o, &text, &o.config.data, false, &err), &err);
    check_ok(setup_model(&setup, &o, false, &err), &err);
    setup.max_tokens = 64;
    check_ok(model_open(&m, &setup, &err) && model_allocate(&m, &err), &err);
    check_ok(score_loss(&s, &m, &d, NULL, &err), &err);
    mem_free(s.usage);
    model_close(&m);
    dataset_close(&d);
    text_close(&text);
    options_close(&o);
    return s.loss;
}

static inline void pairs_merge(const char *line)
{
    struct options o;
    struct error err = {0};
    struct output io = {.quiet = true};
    check_ok(pairs_options(&o, COMMAND_MERGE, line, &err), &err);
    check_ok(command_merge(&o, &io, &err) == STATUS_DONE, &err);
    options_close(&o);
}

// The surrogate of a straight-through routing (METHODS, "densemixer"): the choices and the unchosen experts'
// probabilities p0 of the first pass are kept, and an unchosen expert's slot weighs p - p0 (over the sum of
// the chosen p0 where the config renormalises). At the first pass's weights the value is that of top-k,
// and the slope of the loss is the gradient that the method defines.
struct surrogate {
    bool recorded;
    const struct model_config *config;
    float p0[8][PAIRS_TOKENS][16], sum0[8][PAIRS_TOKENS];
    int32_t order[8][PAIRS_TOKENS][16]; // chosen first
};
static struct surrogate surrogate;

static inline int64_t surrogate_slots(const struct routing_state *st, int64_t layer, bool training)
{
    (void)st, (void)layer, (void)training;
    return surrogate.config->n_experts;
}

static inline void surrogate_record(int64_t layer, int64_t n, const float *p)
{
    const int64_t E = surrogate.config->n_experts, K = surrogate.config->experts_per_tok;
    int32_t *order = surrogate.order[layer][n];
    for (int32_t e = 0; e < E; e++) {
        int32_t at = e;
        for (; at > 0 && p[order[at - 1]] < p[e]; at--) {
            order[at] = order[at - 1];
        }
        order[at] = e;
    }
    surrogate.sum0[layer][n] = 0;
    for (int64_t e = 0; e < E; e++) {
        surrogate.p0[layer][n][e] = p[e];
        if (e < K) surrogate.sum0[layer][n] += p[order[e]];
    }
}

static inline void surrogate_token(const struct route *route, int64_t layer, int64_t n,
                                   const float *p)
{
    const struct model_config *c = surrogate.config;
    const int32_t *order = surrogate.order[layer][n];
    float sum = 0;
    for (int64_t s = 0; s < c->experts_per_tok; s++) {
        sum += p[order[s]];
    }
    for (int64_t s = 0; s < c->n_experts; s++) {
        const int32_t e = order[s];
        const bool chosen = s < c->experts_per_tok;
        float w = chosen ? p[e] : p[e] - surrogate.p0[layer][n][e];
        if (c->renormalize_topk) w /= chosen ? sum : surrogate.sum0[layer][n];
        data_i32(route->expert)[n * c->n_experts + s] = e;
        row_f32(route->weight, n)[s] = w;
    }
}

static inline void surrogate_select(struct routing_state *st, const struct route *route,
                                    const struct route_input *in)
{
    (void)st;
    float p[PAIRS_TOKENS * 16];
    const struct tensor all = tensor_2d(p, DTYPE_F32, in->z.dim[0], in->z.dim[1]);
    cpu_ops.softmax_forward(all, in->z);
    for (int64_t n = 0; n < in->z.dim[0]; n++) {
        if (!surrogate.recorded) surrogate_record(in->layer, n, row_f32(all, n));
        surrogate_token(route, in->layer, n, row_f32(all, n));
    }
}

static const struct routing surrogate_routing = {
    .name = "surrogate", .slots = surrogate_slots, .select = surrogate_select};

// The experts of all slots, to see that a small step changed no choice.
static inline double pairs_choices(const struct model *m)
{
    double sum = 0, factor = 1;
    for (int64_t l = 0; l < m->config.n_layers; l++) {
        const struct tensor e = model_route(m, l).expert;
        for (int64_t i = 0; e.data && i < tensor_count(e); i++) {
            factor = fmod(factor * 1.37 + 0.11, 3.1);
            sum += factor * data_i32(e)[i];
        }
    }
    return sum;
}

static inline double pairs_loss_of(struct model *m, const struct batch *b, double *choices)
{
    const struct routing *own = m->setup.routing;
    if (own->zero_slots) m->setup.routing = &surrogate_routing;
    model_forward(m, b, NULL, true);
    model_loss(m, b, 0);
    *choices = pairs_choices(m);
    m->setup.routing = own;
    const double loss = model_take_loss(m) / (double)b->supervised;
    return loss + model_take_router_loss(m);
}

// The change of the loss along the gradient of a leaf, against the gradient's norm. False: not compared.
static inline bool pairs_check_leaf(struct model *m, const struct batch *b, struct leaf *f,
                                    bool refresh, double choices)
{
    const int64_t n = tensor_count(f->value);
    float *value = data_f32(f->value), *grad = data_f32(f->grad);
    double norm = 0, side[2], now[2];
    for (int64_t i = 0; i < n; i++) {
        norm += (double)grad[i] * (double)grad[i];
    }
    norm = sqrt(norm);
    if (norm < 3e-3) return false; // lost in the rounding of a float32 loss
    float *before = mem_alloc((size_t)n * sizeof *before);
    memcpy(before, value, (size_t)n * sizeof *before);
    const double step = 2e-3;
    for (int k = 0; k < 2; k++) {
        for (int64_t i = 0; i < n; i++) {
            value[i] = (float)((double)before[i] + (k ? -step : step) * (double)grad[i] / norm);
        }
        if (refresh) model_refresh(m);
        side[k] = pairs_loss_of(m, b, &now[k]);
    }
    memcpy(value, before, (size_t)n * sizeof *before);
    mem_free(before);
    if (refresh) model_refresh(m);
    if (now[0] != choices || now[1] != choices) return false;
    const double slope = (side[0] - side[1]) / (2 * step);
    if (!(fabs(slope - norm) < 0.004 * norm + 2e-4)) {
        fail_msg("%s: slope %.6g, gradient %.6g", f->name, slope, norm);
    }
    return true;
}

static inline bool pairs_is_zero(struct tensor x)
{
    for (int64_t i = 0; i < tensor_count(x); i++) {
        if (data_f32(x)[i] != 0) return false;
    }
    return true;
}

static inline void pairs_batch(struct batch *b)
{
    struct error err = {0};
    const uint8_t learn[PAIRS_TOKENS] = {0, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1};
    int32_t id[PAIRS_TOKENS];
    for (int32_t i = 0; i < PAIRS_TOKENS; i++) {
        id[i] = (i * 7 + 3) % (TOY_VOCAB - 1);
    }
    *b = (struct batch){0};
    check_ok(batch_reserve(b, PAIRS_TOKENS, &err), &err);
    batch_append(b, id, learn, 11);
    batch_append(b, id + 11, learn + 11, PAIRS_TOKENS - 11);
}

// Returns how many of how many leaves with a gradient were compared.
// norm_held: the tuning treats what its refresh computes from matrices as a constant (dora's row norms).
static inline int64_t pairs_check_gradients_of(struct model *m, const struct batch *b,
                                               bool norm_held, int64_t *of)
{
    double choices;
    surrogate.config = &m->config;
    surrogate.recorded = false;
    const double weight = m->router_loss_weight;
    m->router_loss_weight = 1;
    model_take_router_loss(m);
    pairs_loss_of(m, b, &choices);
    surrogate.recorded = true;
    model_zero_grad(m);
    model_forward(m, b, NULL, true);
    model_loss(m, b, 1.0F / (float)b->supervised);
    model_backward(m, b);
    model_take_loss(m);
    model_take_router_loss(m);
    int64_t compared = 0, idle = 0; // experts that no token came to
    for (int64_t i = 0; i < m->leaves.count; i++) {
        struct leaf *f = &m->leaves.leaf[i];
        idle += pairs_is_zero(f->grad);
        compared += pairs_check_leaf(m, b, f, !norm_held || f->value.rank == 1, choices);
    }
    model_zero_grad(m);
    m->router_loss_weight = weight;
    *of = m->leaves.count - idle;
    return compared;
}

static inline void pairs_check_gradients(struct model *m, bool norm_held)
{
    struct batch b;
    int64_t of;
    pairs_batch(&b);
    const int64_t compared = pairs_check_gradients_of(m, &b, norm_held, &of);
    assert_true(compared > 0 && compared * 4 >= of);
    batch_free(&b);
}
