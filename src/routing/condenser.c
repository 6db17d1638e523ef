// routing/condenser.c - ExpertCondenser (METHODS, "condenser"; arXiv 2604.23036). Phase 0 is `bias`: it
// learns which experts the long tail is. Then r experts of each layer become condensers C, active for every
// token, and phase 1 goes on from there. The slots of a token are the routed ones, then C:
//   paper      top (K - r) of the experts outside C by p + b;  K slots in all
//   released   top K of all by p = softmax(z + b);             K + r slots, an expert may be in twice
// The gate of a condenser is its p (router), sigmoid(v_c . x), the softmax of all v_c . x, or 1; v_c [C] is a
// leaf that starts as the router's row. Where the config renormalises, the whole active set is.
#include "routing/bias_state.h"
#include "routing/condenser_choice.h"
#include "routing/gates.h"
#include "routing/policies.h"

#include "base/file.h"
#include "base/mem.h"
#include "io/safetensors.h"

#include <math.h>
#include <stdio.h>

struct condenser_layer {
    struct tensor experts; // (most) I32: the condensers
    int64_t gate;          // index of its leaf in `leaves`, -1: none
};

struct routing_state {
    struct gates gates;
    struct bias_state bias;
    const struct model_config *config;
    struct routing_options options;
    struct leaves *leaves;
    int64_t most; // the largest r of a layer
    bool chosen;  // the condensers stand
    struct condensers set;
    struct condenser_layer *layer; // (n_layers)
    struct tensor routed, forced;  // (max N, K), (max N, most) I32 scratch
    struct tensor own, down; // (max N, most) F32 scratch: condensers' gates and their gradient
    struct tensor rest;      // (max N, K) F32 scratch: the routed slots'
};

static bool released(const struct routing_state *st)
{
    return st->options.condenser_preset == CONDENSER_RELEASED;
}

static bool learnt_gate(const struct routing_state *st)
{
    return st->options.condenser_gate == CONDENSER_SIGMOID ||
           st->options.condenser_gate == CONDENSER_SOFTMAX;
}

static int64_t phases(const struct routing_options *r)
{
    return r->bias_file || r->condenser_experts ? 1 : 2;
}

static bool open_layers(struct routing_state *st, struct arena *a, struct leaves *out,
                        struct error *err)
{
    const struct model_config *c = st->config;
    for (int64_t l = 0; l < c->n_layers; l++) {
        struct condenser_layer *x = &st->layer[l];
        x->gate = -1;
        if (!c->moe_layer[l]) continue;
        a->purpose = PURPOSE_DATA;
        x->experts = arena_1d(a, DTYPE_I32, st->most);
        if (!learnt_gate(st)) continue;
        char name[NAME_MAX_LENGTH];
        snprintf(name, sizeof name, "model.layers.%lld.mlp.condenser_gate", (long long)l);
        if (!leaves_add(out, a, name, tensor_2d(NULL, DTYPE_F32, st->most, c->width), DTYPE_F32,
                        err)) {
            return false;
        }
        x->gate = out->count - 1;
    }
    return true;
}

static bool open_state(struct routing_state **out, const struct ops *o,
                       const struct model_config *c, const struct routing_options *r,
                       int64_t max_tokens, struct arena *a, struct leaves *leaves,
                       struct error *err)
{
    struct routing_state *st = *out ? *out : mem_zalloc(1, sizeof *st);
    if (!st) return fail(err, "no memory for the routing's state");
    *out = st;
    st->config = c;
    st->options = *r;
    st->leaves = leaves;
    st->most = condenser_most(r, c);
    if (r->bias_in == BIAS_IN_DEFAULT) {
        st->options.bias_in = released(st) ? BIAS_IN_LOGITS : BIAS_IN_SELECTION;
    }
    if (!st->layer) st->layer = mem_zalloc((size_t)c->n_layers, sizeof *st->layer);
    if (!st->layer) return fail(err, "no memory for the routing's state");
    const int64_t K = c->experts_per_tok;
    gates_open(&st->gates, o, c, max_tokens, K + st->most, a);
    if (!bias_state_open(&st->bias, o, c, &st->options, max_tokens, a, err)) return false;
    a->purpose = PURPOSE_SCRATCH;
    st->routed = arena_1d(a, DTYPE_I32, max_tokens * K);
    st->forced = arena_1d(a, DTYPE_I32, max_tokens * st->most);
    st->own = arena_1d(a, DTYPE_F32, max_tokens * st->most);
    st->down = arena_1d(a, DTYPE_F32, max_tokens * st->most);
    st->rest = arena_1d(a, DTYPE_F32, max_tokens * K);
    if (!open_layers(st, a, leaves, err)) return false;
    return arena_measuring(a) || !r->bias_file || bias_state_load(&st->bias, r->bias_file, c, err);
}

static void close_state(struct routing_state *st)
{
    if (!st) return;
    bias_state_close(&st->bias);
    condensers_free(&st->set);
    mem_free(st->layer);
    mem_free(st);
}

static int64_t slots(const struct routing_state *st, int64_t layer, bool training)
{
    (void)training;
    const int64_t K = st->config->experts_per_tok;
    if (!released(st)) return K;
    return K + (st->chosen ? st->set.count[layer] : st->most);
}

// Puts the chosen experts where the ops read them.
static void place_condensers(struct routing_state *st)
{
    const struct ops *o = st->gates.ops;
    st->chosen = true;
    for (int64_t l = 0; l < st->config->n_layers; l++) {
        if (!st->config->moe_layer[l]) continue;
        o->upload(st->layer[l].experts.data, st->set.expert[l],
                  (size_t)st->set.count[l] * sizeof(int32_t));
    }
}

// v_c starts as the router's row of its expert.
static bool start_gates(struct routing_state *st, const struct router_rows *rows, struct error *err)
{
    const int64_t C = st->config->width;
    float *row = mem_alloc((size_t)C * sizeof *row);
    if (!row) return fail(err, "no memory for the condensers' gates");
    for (int64_t l = 0; l < st->config->n_layers; l++) {
        if (st->layer[l].gate < 0) continue;
        const struct tensor v = st->leaves->leaf[st->layer[l].gate].value;
        for (int64_t i = 0; i < st->set.count[l]; i++) {
            rows->get(rows->user, l, st->set.expert[l][i], row);
            st->gates.ops->upload(tensor_rows(v, i, 1).data, row, (size_t)C * sizeof *row);
        }
    }
    mem_free(row);
    return true;
}

static bool choose(struct routing_state *st, struct error *err)
{
    const int64_t E = st->config->n_experts, L = st->config->n_layers;
    float *bias = mem_zalloc((size_t)(L * E), 2 * sizeof *bias), *usage = bias + L * E;
    if (!bias) return fail(err, "no memory for the choice of condensers");
    for (int64_t l = 0; l < L; l++) {
        const struct bias_layer *x = &st->bias.layer[l];
        if (!x->moe) continue;
        st->gates.ops->download(bias + l * E, x->b.data, tensor_bytes(x->b));
        st->gates.ops->download(usage + l * E, x->phase.data, tensor_bytes(x->phase));
        st->gates.ops->zero(x->phase);
    }
    const bool ok = condenser_choose(&st->set, &st->options, st->config, bias, usage, err);
    mem_free(bias);
    return ok;
}

static bool condensers_fit(const struct routing_state *st, const char *file, struct error *err)
{
    for (int64_t l = 0; l < st->config->n_layers; l++) {
        if (st->set.count[l] <= st->most) continue;
        return fail(err, "%s: %lld condensers in layer %lld, at most %lld expected", file,
                    (long long)st->set.count[l], (long long)l, (long long)st->most);
    }
    return true;
}

static bool begin(struct routing_state *st, int64_t phase, const struct router_rows *rows,
                  struct error *err)
{
    if (phase + 1 < phases(&st->options)) return true; // the bias learns first
    const char *file = st->options.condenser_experts;
    if (!(file ? condensers_read(&st->set, file, st->config, err) : choose(st, err))) return false;
    if (!condensers_fit(st, file, err)) return false;
    bias_state_rate(&st->bias, st->options.phase2_rate, st->options.bias_sign);
    place_condensers(st);
    return start_gates(st, rows, err);
}

static int64_t count_of(const struct routing_state *st, int64_t layer)
{
    return st->chosen ? st->set.count[layer] : 0;
}

static struct tensor part(struct tensor scratch, int64_t N, int64_t k)
{
    return tensor_2d(scratch.data, scratch.dtype, N, k);
}

// The gates v_c . x of a layer's condensers as a bank of one matrix (r,C).
struct own_rows {
    void *pointer[1];
    struct matrices m;
};

static struct matrices *own_rows(struct own_rows *w, const struct routing_state *st, int64_t layer,
                                 bool grad)
{
    const struct leaf *f = &st->leaves->leaf[st->layer[layer].gate];
    w->pointer[0] = grad ? f->grad.data : f->value.data;
    w->m = (struct matrices){1, count_of(st, layer), f->value.dim[1], DTYPE_F32, w->pointer};
    return &w->m;
}

static void own_gates(const struct routing_state *st, struct tensor own,
                      const struct route_input *in)
{
    struct own_rows w;
    const struct ops *o = st->gates.ops;
    o->matmul_forward(own, in->x, own_rows(&w, st, in->layer, false), tensor_absent());
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
    if (learnt_gate(st)) {
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
    if (released(st) || !forced.dim[1]) return key;
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
    bias_state_logits(&st->bias, in->layer, in->z);
    const struct tensor p = gates_probabilities(&st->gates, in->z);
    const struct tensor routed = part(st->routed, N, S - r), forced = part(st->forced, N, r);
    o->repeat_row(forced, tensor_rows(st->layer[in->layer].experts, 0, r));
    o->topk(routed, without(st, bias_state_key(&st->bias, in->layer, p), forced));
    o->place_columns(route->expert, routed, 0);
    o->place_columns(route->expert, forced, S - r);
    raw_weights(st, route->weight, p, route->expert, in);
    gates_renormalize(&st->gates, route->weight);
    if (!in->training) return;
    bias_state_count(&st->bias, in->layer, p, routed);
    bias_state_compare(&st->bias, in->layer, routed, without(st, p, forced));
}

// Gradient of the condensers' own gates, (N,r): into v_c and x.
static void own_backward(const struct routing_state *st, struct tensor dx, struct tensor dweight,
                         const struct route_input *in)
{
    struct own_rows w, dw;
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
    o->matmul_dweight(own_rows(&dw, st, in->layer, true), d, in->x, tensor_absent());
    o->matmul_dinput(dx, d, own_rows(&w, st, in->layer, false), tensor_absent(), true);
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
    if (r && learnt_gate(st)) own_backward(st, dx, dweight, in);
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

static void report(struct routing_state *st, json_t *out, const float *usage)
{
    const int64_t E = st->config->n_experts;
    json_t *load = json_array();
    for (int64_t l = 0; st->chosen && l < st->config->n_layers; l++) {
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
    json_object_set_new(out, "condenser_load", load);
    bias_state_report(&st->bias, out);
}

static const char gates_file[] = "condenser_gates.safetensors";

static bool save_gates(const struct routing_state *st, const char *dir, struct error *err)
{
    char path[4096];
    const int64_t L = st->config->n_layers;
    struct st_named *named = mem_zalloc((size_t)L, sizeof *named);
    bool ok = named ? path_join(path, sizeof path, dir, gates_file, err)
                    : fail(err, "%s: no memory", dir);
    int64_t n = 0;
    for (int64_t l = 0; ok && l < L; l++) {
        if (st->layer[l].gate < 0) continue;
        const struct leaf *f = &st->leaves->leaf[st->layer[l].gate];
        named[n] = (struct st_named){f->name, f->value};
        named[n].tensor.data = mem_alloc(tensor_bytes(f->value));
        if (!named[n].tensor.data) ok = fail(err, "%s: no memory", path);
        if (ok)
            st->gates.ops->download(named[n].tensor.data, f->value.data, tensor_bytes(f->value));
        n++;
    }
    ok = ok && safetensors_write(path, named, n, NULL, err);
    for (int64_t i = 0; i < n; i++) {
        mem_free(named[i].tensor.data);
    }
    mem_free(named);
    return ok;
}

static bool save(const struct routing_state *st, const char *dir, struct error *err)
{
    if (!bias_state_save(&st->bias, dir, st->config->architecture, err)) return false;
    if (!st->chosen) return true;
    return condensers_write(&st->set, dir, st->config, err) &&
           (!learnt_gate(st) || save_gates(st, dir, err));
}

static bool load_gates(struct routing_state *st, const char *path, struct error *err)
{
    struct safetensors file;
    if (!safetensors_open(&file, path, err)) return false;
    bool ok = true;
    for (int64_t l = 0; ok && l < st->config->n_layers; l++) {
        if (st->layer[l].gate < 0) continue;
        const struct leaf *f = &st->leaves->leaf[st->layer[l].gate];
        const struct st_entry *e = safetensors_find(&file, f->name);
        ok = (e && e->known && e->tensor.dtype == DTYPE_F32 && e->rank == 2 &&
              e->shape[0] == f->value.dim[0] && e->shape[1] == f->value.dim[1]) ||
             fail(err, "%s: %s: F32 [%lld, %lld] expected", path, f->name,
                  (long long)f->value.dim[0], (long long)f->value.dim[1]);
        if (ok) st->gates.ops->upload(f->value.data, e->tensor.data, tensor_bytes(f->value));
    }
    safetensors_close(&file);
    return ok;
}

static bool load(struct routing_state *st, const char *dir, struct error *err)
{
    static const char *const records[] = {"forced_experts_records.json",
                                          "forced_experts_mapping.json", "forced_experts.json"};
    char path[4096];
    if (!bias_state_load_dir(&st->bias, dir, st->config, err)) return false;
    for (size_t i = 0; i < sizeof records / sizeof *records && !st->chosen; i++) {
        if (!path_join(path, sizeof path, dir, records[i], err)) return false;
        if (!file_exists(path)) continue;
        if (!condensers_read(&st->set, path, st->config, err)) return false;
        if (!condensers_fit(st, path, err)) return false;
        place_condensers(st);
        bias_state_rate(&st->bias, st->options.phase2_rate, st->options.bias_sign);
    }
    if (!st->chosen || !learnt_gate(st)) return true;
    return path_join(path, sizeof path, dir, gates_file, err) && load_gates(st, path, err);
}

const struct routing routing_condenser = {
    .name = "condenser",
    .help = "always-active experts keep what the tail knows",
    .check = condenser_check,
    .phases = phases,
    .open = open_state,
    .close = close_state,
    .begin = begin,
    .slots = slots,
    .select = select_slots,
    .backward = backward,
    .after_micro_batch = after_micro_batch,
    .after_step = after_step,
    .report = report,
    .save = save,
    .load = load,
};
