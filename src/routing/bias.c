// routing/bias.c - auxiliary-loss-free routing (METHODS, "bias"). A float32 bias b per layer enters either
// the choice alone, or the logits:
//   selection   S = top K of p + b, gates from p          (the paper)
//   logits      p = softmax(z + b) for choice and gates   (the released code)
// and moves after each optimizer step:  b_e += rate * sign(u_e - mean u), u the use of the experts. This
// sign sparsifies: busy experts get busier, the long tail goes quiet; `balance` negates it.
#include "routing/bias_state.h"
#include "routing/gates.h"
#include "routing/policies.h"

#include "base/mem.h"

struct routing_state {
    struct gates gates;
    struct bias_state bias;
    const struct model_config *config;
};

static bool bias_check(const struct routing_options *r, const struct model_config *c,
                       struct error *err)
{
    if (r->bias_rate < 0) return fail(err, "--bias-rate: %g, at least 0 expected", r->bias_rate);
    if (!r->bias_file && !bias_source_readable(&r->source)) return true;
    float *values =
        r->bias_file ? bias_file_read(r->bias_file, c, err) : bias_source_read(&r->source, c, err);
    mem_free(values);
    return values != NULL;
}

static void bias_close(struct routing_state *st)
{
    if (st) bias_state_close(&st->bias);
    mem_free(st);
}

static bool bias_open(struct routing_state **out, const struct ops *o, const struct model_config *c,
                      const struct routing_options *r, int64_t max_tokens, struct arena *a,
                      struct leaves *leaves, struct error *err)
{
    (void)leaves;
    struct routing_state *st = *out ? *out : mem_zalloc(1, sizeof *st);
    if (!st) return fail(err, "no memory for the routing's state");
    *out = st;
    st->config = c;
    gates_open(&st->gates, o, c, max_tokens, c->experts_per_tok, a);
    if (!bias_state_open(&st->bias, o, c, r, max_tokens, a, err)) return false;
    return arena_measuring(a) || !r->bias_file || bias_state_load(&st->bias, r->bias_file, c, err);
}

static int64_t bias_slots(const struct routing_state *st, int64_t layer, bool training)
{
    (void)layer, (void)training;
    return st->config->experts_per_tok;
}

static void bias_select(struct routing_state *st, const struct route *route,
                        const struct route_input *in)
{
    struct tensor p = gates_probabilities(&st->gates, in->z);
    if (in->training) bias_state_plain(&st->bias, p, st->config->experts_per_tok);
    if (bias_state_logits(&st->bias, in->layer, in->z)) p = gates_probabilities(&st->gates, in->z);
    st->gates.ops->topk(route->expert, bias_state_key(&st->bias, in, p));
    gates_forward(&st->gates, route->weight, p, route->expert);
    if (!in->training) return;
    bias_state_count(&st->bias, in->layer, p, route->expert);
    bias_state_compare(&st->bias, in->layer, route->expert);
}

static void bias_backward(struct routing_state *st, struct tensor dz, struct tensor dx,
                          struct tensor dweight, const struct route *route,
                          const struct route_input *in)
{
    (void)dx;
    gates_backward(&st->gates, dz, dweight, in->z, route->expert);
}

static void bias_after_micro_batch(struct routing_state *st)
{
    bias_state_move(&st->bias, BIAS_EVERY_MICRO_BATCH);
}

static void bias_after_step(struct routing_state *st, bool applied)
{
    bias_state_end_step(&st->bias, applied);
}

static void bias_report(struct routing_state *st, json_t *out, const float *usage)
{
    (void)usage;
    bias_state_report(&st->bias, out);
}

static void bias_experts(const struct routing_state *st, json_t *out)
{
    bias_state_values(&st->bias, out);
}

static bool bias_save(const struct routing_state *st, const char *dir, struct error *err)
{
    const struct routing_options o = {.bias_in = (int)st->bias.in};
    return routing_describe(&routing_bias, &o, dir, err) &&
           bias_state_save(&st->bias, dir, st->config->architecture, err);
}

static bool bias_load(struct routing_state *st, const struct routing_source *from,
                      struct error *err)
{
    return bias_state_load_from(&st->bias, from, st->config, err);
}

// The released code has the bias in the logits.
static bool bias_recognises(const struct routing_source *s, struct routing_options *r)
{
    if (!s->bias || s->experts) return false;
    r->bias_in = BIAS_IN_LOGITS;
    return true;
}

static const struct routing_stated *const stated[] = {&stated_bias_in, NULL};

const struct routing routing_bias = {
    .name = "bias",
    .help = "a bias follows the experts' use; no extra loss",
    .needs_experts = true,
    .stated = stated,
    .recognises = bias_recognises,
    .check = bias_check,
    .open = bias_open,
    .close = bias_close,
    .slots = bias_slots,
    .select = bias_select,
    .backward = bias_backward,
    .after_micro_batch = bias_after_micro_batch,
    .after_step = bias_after_step,
    .report = bias_report,
    .experts = bias_experts,
    .save = bias_save,
    .load = bias_load,
};
