// routing/condenser_state.c - see condenser_state.h.
#include "routing/condenser_state.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/safetensors.h"
#include "routing/policies.h"

#include <math.h>
#include <stdio.h>

bool condenser_released(const struct routing_state *st)
{
    return st->options.condenser_preset == CONDENSER_RELEASED;
}

bool condenser_learnt_gate(const struct routing_state *st)
{
    return st->options.condenser_gate == CONDENSER_SIGMOID ||
           st->options.condenser_gate == CONDENSER_SOFTMAX;
}

int64_t condenser_phases(const struct routing_options *r)
{
    const bool learnt = r->bias_file || r->condenser_experts || r->source.bias || r->source.experts;
    return learnt ? 1 : 2;
}

static bool condensers_fit(const struct condensers *s, int64_t most, const char *where,
                           struct error *err)
{
    for (int64_t l = 0; l < MAX_LAYERS; l++) {
        if (s->count[l] <= most) continue;
        return fail(err, "%s: layer %lld: %lld condensers, at most %lld expected", where,
                    (long long)l, (long long)s->count[l], (long long)most);
    }
    return true;
}

// The condensers that stand from the start: the user names them, or the model's folder. Then
// they say how large everything is; `open` comes twice.
static bool read_given(struct routing_state *st, const struct routing_options *r, struct error *err)
{
    st->most = condenser_most(r, st->config);
    if (!r->condenser_experts && !r->source.experts) return true;
    if (!st->given && !condensers_named(&st->set, r, st->config, err)) return false;
    st->given = true;
    st->most = 0;
    for (int64_t l = 0; l < st->config->n_layers; l++) {
        if (st->set.count[l] > st->most) st->most = st->set.count[l];
    }
    return true;
}

static void **pointer_table(const struct routing_state *st, struct arena *a, struct tensor t)
{
    a->purpose = PURPOSE_DATA;
    void **table = arena_bytes(a, sizeof *table);
    if (table) st->gates.ops->upload(table, &t.data, sizeof t.data);
    return table;
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
        if (!condenser_learnt_gate(st)) continue;
        char name[NAME_MAX_LENGTH];
        snprintf(name, sizeof name, "model.layers.%lld.mlp.condenser_gate", (long long)l);
        out->section = section_of(l, true);
        const struct leaf *f = leaves_add(
            out, a, name, tensor_2d(NULL, DTYPE_F32, st->most, c->width), DTYPE_F32, err);
        if (!f) return false;
        x->gate = out->count - 1;
        x->value = pointer_table(st, a, f->value);
        x->grad = pointer_table(st, a, f->grad);
    }
    return true;
}

bool condenser_open(struct routing_state **out, const struct ops *o, const struct model_config *c,
                    const struct routing_options *r, int64_t max_tokens, struct arena *a,
                    struct leaves *leaves, struct error *err)
{
    struct routing_state *st = *out ? *out : mem_zalloc(1, sizeof *st);
    if (!st) return fail(err, "no memory for the routing's state");
    *out = st;
    st->config = c;
    st->options = *r;
    st->leaves = leaves;
    if (!read_given(st, r, err)) return false;
    st->placed = !arena_measuring(a);
    if (r->bias_in == BIAS_IN_DEFAULT) {
        st->options.bias_in = condenser_released(st) ? BIAS_IN_LOGITS : BIAS_IN_SELECTION;
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

void condenser_close(struct routing_state *st)
{
    if (!st) return;
    bias_state_close(&st->bias);
    condensers_free(&st->set);
    mem_free(st->layer);
    mem_free(st);
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

bool condenser_begin(struct routing_state *st, int64_t phase, const struct router_rows *rows,
                     struct error *err)
{
    if (phase + 1 < condenser_phases(&st->options)) return true; // the bias learns first
    if (!st->given && !st->chosen && !choose(st, err)) return false;
    bias_state_rate(&st->bias, st->options.phase2_rate, st->options.bias_sign);
    place_condensers(st);
    return st->gates_loaded || start_gates(st, rows, err);
}

static bool save_gates(const struct routing_state *st, const char *dir, struct error *err)
{
    char path[SOURCE_PATH];
    const int64_t L = st->config->n_layers;
    struct st_named *named = mem_zalloc((size_t)L, sizeof *named);
    bool ok = named ? path_join(path, sizeof path, dir, condenser_gates_name, err)
                    : fail(err, "%s: no memory", dir);
    int64_t n = 0;
    for (int64_t l = 0; ok && l < L; l++) {
        if (st->layer[l].gate < 0) continue;
        const struct leaf *f = &st->leaves->leaf[st->layer[l].gate];
        struct tensor v = tensor_rows(f->value, 0, st->set.count[l]);
        v.data = mem_alloc(tensor_bytes(v));
        if (!v.data) ok = fail(err, "%s: no memory", path);
        if (ok) st->gates.ops->download(v.data, f->value.data, tensor_bytes(v));
        named[n++] = (struct st_named){f->name, v};
    }
    ok = ok && safetensors_write(path, named, n, NULL, err);
    for (int64_t i = 0; i < n; i++) {
        mem_free(named[i].tensor.data);
    }
    mem_free(named);
    return ok;
}

bool condenser_save(const struct routing_state *st, const char *dir, struct error *err)
{
    if (!routing_describe(&routing_condenser, &st->options, dir, err) ||
        !bias_state_save(&st->bias, dir, st->config->architecture, err)) {
        return false;
    }
    if (!st->chosen) return true;
    return condensers_write(&st->set, dir, st->config, err) &&
           (!condenser_learnt_gate(st) || save_gates(st, dir, err));
}

static bool finite_rows(const struct safetensors *file, const struct st_entry *e, struct error *err)
{
    for (int64_t i = 0; i < tensor_count(e->tensor); i++) {
        if (isfinite(data_f32(e->tensor)[i])) continue;
        return fail(err, "%s: %s: element %lld: a finite number expected", file->path, e->name,
                    (long long)i);
    }
    return true;
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
        const int64_t r = st->set.count[l], C = st->config->width;
        ok = (e && e->known && e->tensor.dtype == DTYPE_F32 && e->rank == 2 && e->shape[0] == r &&
              e->shape[1] == C) ||
             fail(err, "%s: %s: F32 [%lld, %lld] expected", path, f->name, (long long)r,
                  (long long)C);
        ok = ok && finite_rows(&file, e, err);
        if (ok) st->gates.ops->upload(f->value.data, e->tensor.data, tensor_bytes(e->tensor));
    }
    safetensors_close(&file);
    return ok;
}

static bool load_condensers(struct routing_state *st, const struct routing_source *from,
                            struct error *err)
{
    char where[SOURCE_PATH];
    st->chosen = false;
    if (!from->experts) return true; // phase 1, or they are still to be placed
    if (!condensers_read_from(&st->set, from, where, st->config, err)) return false;
    if (!condensers_fit(&st->set, st->most, where, err)) return false;
    place_condensers(st);
    bias_state_rate(&st->bias, st->options.phase2_rate, st->options.bias_sign);
    return true;
}

bool condenser_load(struct routing_state *st, const struct routing_source *from, struct error *err)
{
    char path[SOURCE_PATH];
    st->gates_loaded = false;
    if (!bias_state_load_from(&st->bias, from, st->config, err)) return false;
    if (!load_condensers(st, from, err)) return false;
    if (!st->chosen || !condenser_learnt_gate(st)) return true;
    if (!path_join(path, sizeof path, from->dir, condenser_gates_name, err)) return false;
    if (!from->gates) {
        log_warning("%s is missing: the condensers' gates start as the router's rows", path);
        return true;
    }
    st->gates_loaded = load_gates(st, path, err);
    return st->gates_loaded;
}
