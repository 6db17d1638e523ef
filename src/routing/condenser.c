// routing/condenser.c - ExpertCondenser (METHODS, "condenser"; arXiv 2604.23036). Phase 0 is `bias`: it
// learns which experts the long tail is. Then r experts of each layer become condensers C, active for every
// token, and phase 1 goes on from there. The slots of a token are the routed ones, then C:
//   paper      top (K - r) of the experts outside C by p + b;  K slots in all
//   released   top K of all by p = softmax(z + b);             K + r slots, an expert may be in twice
// The gate of a condenser is its p (router), sigmoid(v_c . x), the softmax of all v_c . x, or 1; v_c [C] is a
// leaf that starts as the router's row. Where the config renormalises, the whole active set is.
#include "routing/condenser_state.h"
#include "routing/policies.h"

#include <math.h>

static int64_t count_of(const struct routing_state *st, int64_t layer)
{
    return st->chosen ? st->set.count[layer] : 0; // none while the bias learns
}

static int64_t slots(const struct routing_state *st, int64_t layer, bool training)
{
    (void)training;
    const int64_t K = st->config->experts_per_tok;
    if (!condenser_released(st)) return K;
    return K + (st->placed ? count_of(st, layer) : st->most);
}

static const int32_t *always(const struct routing_state *st, int64_t layer, int64_t *count)
{
    *count = count_of(st, layer);
    return st->set.expert[layer];
}

static struct tensor part(struct tensor scratch, int64_t N, int64_t k)
{
    return tensor_2d(scratch.data, scratch.dtype, N, k);
}

// The gates v_c . x of a layer's condensers as a bank of one matrix (r,C): values, or gradients.
static struct matrices own_rows(const struct routing_state *st, int64_t layer, bool grad)
{
    const struct condenser_layer *x = &st->layer[layer];
    return (struct matrices){1, count_of(st, layer), st->config->width, DTYPE_F32,
                             grad ? x->grad : x->value};
}

static void own_gates(const struct routing_state *st, struct tensor own,
                      const struct route_input *in)
{
    const struct matrices v = own_rows(st, in->layer, false);
    const struct ops *o = st->gates.ops;
    o->matmul_forward(own, in->x, &v, tensor_absent(), false);
    if (st->options.condenser_gate == CONDENSER_SIGMOID) {
        o->sigmoid_forward(own, own);
    } else {
        o->softmax_forward(own, own);
    }
}

// The slots' weights before renormalisation.
static void raw_weights(const struct routing_state *st, struct tensor weight, struct tensor p,
                        struct tensor expert, const struct route_input *in)
{
    const struct ops *o = st->gates.ops;
    const int64_t r = count_of(st, in->layer), N = p.dim[0];
    o->pick_forward(weight, p, expert);
    if (!r || st->options.condenser_gate == CONDENSER_ROUTER) return;
    const struct tensor own = part(st->own, N, r);
    if (condenser_learnt_gate(st)) {
        own_gates(st, own, in);
    } else {
        o->fill(own, 1);
    }
    o->place_columns(weight, own, weight.dim[1] - r);
}

// The key without the condensers (paper); `forced` (N,r) names them for every token.
static struct tensor without(const struct routing_state *st, struct tensor key,
                             struct tensor forced)
{
    const struct ops *o = st->gates.ops;
    if (condenser_released(st) || !forced.dim[1]) return key;
    const struct tensor masked = tensor_rows(st->bias.key, 0, key.dim[0]);
    if (key.data != masked.data) o->convert(masked, key);
    o->put(masked, forced, -INFINITY);
    return masked;
}

static void select_slots(struct routing_state *st, const struct route *route,
                         const struct route_input *in)
{
    const struct ops *o = st->gates.ops;
    const int64_t N = in->z.dim[0], S = route->expert.dim[1], r = count_of(st, in->layer);
    struct tensor p = gates_probabilities(&st->gates, in->z);
    const struct tensor routed = part(st->routed, N, S - r), forced = part(st->forced, N, r);
    o->repeat_row(forced, tensor_rows(st->layer[in->layer].experts, 0, r));
    if (in->training) bias_state_plain(&st->bias, without(st, p, forced), S - r);
    if (bias_state_logits(&st->bias, in->layer, in->z)) p = gates_probabilities(&st->gates, in->z);
    o->topk(routed, without(st, bias_state_key(&st->bias, in, p), forced));
    o->place_columns(route->expert, routed, 0);
    o->place_columns(route->expert, forced, S - r);
    raw_weights(st, route->weight, p, route->expert, in);
    gates_renormalize(&st->gates, route->weight);
    if (!in->training) return;
    bias_state_count(&st->bias, in->layer, p, routed);
    bias_state_compare(&st->bias, in->layer, routed);
}

// Gradient of the condensers' own gates, (N,r): into v_c and x.
static void own_backward(const struct routing_state *st, struct tensor dx, struct tensor dweight,
                         const struct route_input *in)
{
    const struct matrices v = own_rows(st, in->layer, false), dv = own_rows(st, in->layer, true);
    const struct ops *o = st->gates.ops;
    const int64_t r = count_of(st, in->layer), N = dweight.dim[0];
    const struct tensor own = part(st->own, N, r), d = part(st->down, N, r);
    own_gates(st, own, in);
    o->take_columns(d, dweight, dweight.dim[1] - r);
    if (st->options.condenser_gate == CONDENSER_SIGMOID) {
        o->sigmoid_backward(d, d, own);
    } else {
        o->softmax_backward(d, d, own);
    }
    o->matmul_dweight(&dv, d, in->x, tensor_absent());
    if (dx.data) o->matmul_dinput(dx, d, &v, tensor_absent(), true);
}

static void backward(struct routing_state *st, struct tensor dz, struct tensor dx,
                     struct tensor dweight, const struct route *route, const struct route_input *in)
{
    const struct ops *o = st->gates.ops;
    const int64_t N = in->z.dim[0], S = route->expert.dim[1], r = count_of(st, in->layer);
    const struct tensor p = gates_probabilities(&st->gates, in->z);
    if (st->gates.renormalize) {
        const struct tensor raw = part(st->gates.picked, N, S);
        raw_weights(st, raw, p, route->expert, in);
        gates_renormalize_backward(&st->gates, dweight, raw);
    }
    if (r && condenser_learnt_gate(st)) own_backward(st, dx, dweight, in);
    if (!r || st->options.condenser_gate == CONDENSER_ROUTER) {
        o->pick_backward(dz, dweight, route->expert);
    } else { // the condensers' weights do not come from p
        const struct tensor routed = part(st->routed, N, S - r), rest = part(st->rest, N, S - r);
        o->take_columns(routed, route->expert, 0);
        o->take_columns(rest, dweight, 0);
        o->pick_backward(dz, rest, routed);
    }
    o->softmax_backward(dz, dz, p);
}

static void after_micro_batch(struct routing_state *st)
{
    bias_state_move(&st->bias, BIAS_EVERY_MICRO_BATCH);
}

static void after_step(struct routing_state *st, bool applied)
{
    bias_state_end_step(&st->bias, applied);
}

// The share of the load that the condensers have.
static json_t *load_share(const struct routing_state *st, const float *usage)
{
    const int64_t E = st->config->n_experts;
    json_t *load = json_array();
    for (int64_t l = 0; l < st->config->n_layers; l++) {
        if (!st->config->moe_layer[l]) continue;
        double all = 0, forced = 0;
        for (int64_t e = 0; e < E; e++) {
            all += (double)usage[l * E + e];
        }
        for (int64_t i = 0; i < st->set.count[l]; i++) {
            forced += (double)usage[l * E + st->set.expert[l][i]];
        }
        json_array_append_new(load, json_real(all > 0 ? forced / all : 0));
    }
    return load;
}

static void report(struct routing_state *st, json_t *out, const float *usage)
{
    if (st->chosen) json_object_set_new(out, "condenser_load", load_share(st, usage));
    bias_state_report(&st->bias, out);
}

static void experts(const struct routing_state *st, json_t *out)
{
    bias_state_values(&st->bias, out);
    if (!st->chosen) return;
    json_t *all = json_array();
    for (int64_t l = 0; l < st->config->n_layers; l++) {
        if (!st->config->moe_layer[l]) continue;
        json_t *of = json_array();
        for (int64_t i = 0; i < st->set.count[l]; i++) {
            json_array_append_new(of, json_integer(st->set.expert[l][i]));
        }
        json_array_append_new(all, of);
    }
    json_object_set_new(out, "condensers", all);
}

// The released code's condensers come on top, with the bias in the logits.
static bool recognises(const struct routing_source *s, struct routing_options *r)
{
    if (!s->experts) return false;
    r->condenser_preset = CONDENSER_RELEASED;
    r->condenser_gate = CONDENSER_ROUTER;
    r->bias_in = BIAS_IN_LOGITS;
    return true;
}

static const struct routing_stated *const stated[] = {&stated_condenser_preset, &stated_bias_in,
                                                      &stated_condenser_gate, NULL};

const struct routing routing_condenser = {
    .name = "condenser",
    .help = "always-active experts keep what the tail knows",
    .needs_experts = true,
    .stated = stated,
    .recognises = recognises,
    .check = condenser_check,
    .phases = condenser_phases,
    .open = condenser_open,
    .close = condenser_close,
    .begin = condenser_begin,
    .slots = slots,
    .select = select_slots,
    .always = always,
    .backward = backward,
    .after_micro_batch = after_micro_batch,
    .after_step = after_step,
    .report = report,
    .experts = experts,
    .save = condenser_save,
    .load = condenser_load,
};
