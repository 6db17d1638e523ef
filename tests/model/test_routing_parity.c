// tests/model/test_routing_parity.c - every routing against an independent implementation in Python inside
// transformers' own models (fixtures/make_routing.py): loss, the router's losses, logits, choices, slot
// weights and every parameter's gradient; with and without norm_topk_prob, with and without a shared expert.
#include "parity.h"

#include "base/file.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct {
    struct parity_case folder;
    const char *condensers; // of each MoE layer, as in make_routing.py
} models[] = {
    {{"olmoe", "v5"}, "1,2"},
    {{"olmoe-norm", "v5"}, "1,4,2"},
    {{"qwen", "v5"}, "2,1"},
    {{"qwen-norm", "v5"}, "3,1"},
};

enum place { NOWHERE, SELECTION, LOGITS };
static const char *const place_names[] = {NULL, "selection", "logits"};

struct variant {
    const char *name, *routing;
    enum place bias;    // where it enters, and which of the fixture's it is
    double aux, z;      // coefficients, as in make_routing.py; below 0: the routing's default
    int preset, gate;   // of condenser
    bool micro_batches; // all batches are one step
};

static const struct variant variants[] = {
    {"aux", "aux", NOWHERE, 0.07, -1, 0, 0, false},
    {"aux-micro", "aux", NOWHERE, 0.07, 0.03, 0, 0, true},
    {"selection", "bias", SELECTION, -1, -1, 0, 0, false},
    {"logits", "bias", LOGITS, -1, -1, 0, 0, false},
    {"losses", "bias", SELECTION, 0.07, 0.03, 0, 0, false},
    {"densemixer", "densemixer", NOWHERE, -1, -1, 0, 0, false},
    {"paper-router", "condenser", SELECTION, -1, -1, CONDENSER_PAPER, CONDENSER_ROUTER, false},
    {"paper-sigmoid", "condenser", SELECTION, -1, -1, CONDENSER_PAPER, CONDENSER_SIGMOID, false},
    {"paper-softmax", "condenser", SELECTION, -1, -1, CONDENSER_PAPER, CONDENSER_SOFTMAX, false},
    {"paper-one", "condenser", SELECTION, -1, -1, CONDENSER_PAPER, CONDENSER_ONE, false},
    {"released-router", "condenser", LOGITS, -1, -1, CONDENSER_RELEASED, CONDENSER_ROUTER, false},
    {"released-sigmoid", "condenser", LOGITS, -1, -1, CONDENSER_RELEASED, CONDENSER_SIGMOID, false},
    {"released-softmax", "condenser", LOGITS, -1, -1, CONDENSER_RELEASED, CONDENSER_SOFTMAX, false},
    {"released-one", "condenser", LOGITS, -1, -1, CONDENSER_RELEASED, CONDENSER_ONE, false},
};

enum {
    MODELS = (int)(sizeof models / sizeof *models),
    VARIANTS = (int)(sizeof variants / sizeof *variants)
};

// The fixture's bias in the released layout; nine digits bring a float back.
static void write_bias(const struct parity *p, const char *path, enum place place, int64_t layers)
{
    struct buf b = {0};
    struct error err = {0};
    const char *comma = "";
    buf_puts(&b, "{\"moe_bias_states\":{");
    for (int64_t l = 0; l < layers; l++) {
        char name[64];
        snprintf(name, sizeof name, "%s.bias.%d", place_names[place], (int)l);
        if (!fixture_has(&p->reference, name)) continue; // a dense layer
        const struct tensor bias = fixture_get(&p->reference, name);
        buf_printf(&b, "%s\"model.layers.%d.mlp\":{\"bias_values\":", comma, (int)l);
        for (int64_t e = 0; e < tensor_count(bias); e++) {
            buf_printf(&b, "%c%.9g", e ? ',' : '[', (double)data_f32(bias)[e]);
        }
        buf_puts(&b, "]}");
        comma = ",";
    }
    buf_puts(&b, "}}");
    check_ok(file_write(path, b.data, b.size, &err), &err);
    buf_free(&b);
}

static struct routing_options options_of(const struct variant *v, int model)
{
    return (struct routing_options){.aux_coef = v->aux,
                                    .z_coef = v->z,
                                    .bias_in = v->bias == LOGITS ? BIAS_IN_LOGITS : BIAS_IN_DEFAULT,
                                    .bias_rate = 1e-3,
                                    .phase2_rate = 5e-5,
                                    .condenser_preset = v->preset,
                                    .condenser_gate = v->gate,
                                    .condenser_count = models[model].condensers};
}

static void open_variant(struct model *m, struct parity *p, int model, const struct variant *v,
                         bool recompute)
{
    struct error err = {0};
    char path[4096];
    parity_open_in(p, "routing", models[model].folder.name);
    struct model_setup s = parity_setup(p, &models[model].folder, DTYPE_F32);
    s.routing = routing_find(v->routing, &err);
    s.routing_options = options_of(v, model);
    s.recompute = recompute;
    if (v->bias != NOWHERE) {
        snprintf(path, sizeof path, "%s/moe_bias_states.json", test_dir());
        write_bias(p, path, v->bias, MAX_LAYERS);
        s.routing_options.bias_file = path;
    }
    parity_model(m, &s);
    check_ok(model_begin_phase(m, 0, &err), &err);
}

// One step over the batches of the variant, weighed as the trainer does it.
static void run(struct model *m, const struct parity *p, int batches)
{
    int64_t tokens = 0, supervised = 0;
    for (int i = 0; i < batches; i++) {
        tokens += p->batch[i].n;
        supervised += p->batch[i].supervised;
    }
    for (int i = 0; i < batches; i++) {
        m->router_loss_weight = (double)p->batch[i].n / (double)tokens;
        model_forward(m, &p->batch[i], NULL, true);
        model_loss(m, &p->batch[i], 1.0F / (float)supervised);
        model_backward(m, &p->batch[i]);
    }
}

static struct tensor of_variant(const struct parity *p, const char *name)
{
    char full[128];
    snprintf(full, sizeof full, "%s%s", p->prefix, name);
    return fixture_get(&p->reference, full);
}

static void check_number(const char *what, double got, struct tensor want)
{
    const double w = (double)*data_f32(want);
    if (!(fabs(got - w) <= 1e-5 * fabs(w))) fail_msg("%s: %.8g, %.8g expected", what, got, w);
}

static void check_losses(const struct parity *p, struct model *m, int batches)
{
    int64_t supervised = 0;
    for (int i = 0; i < batches; i++) {
        supervised += p->batch[i].supervised;
    }
    check_number("loss", model_take_loss(m) / (double)supervised, of_variant(p, "loss"));
    check_number("router loss", model_take_router_loss(m), of_variant(p, "router_loss"));
}

// The reference's slots, in its order; those that follow have weight 0.
static void check_routes(const struct parity *p, const struct model *m)
{
    for (int64_t l = 0; l < m->config.n_layers; l++) {
        if (!m->config.moe_layer[l]) continue;
        const struct route r = model_route(m, l);
        const struct tensor experts = parity_of_layer(p, "routes", l);
        const struct tensor weights = parity_of_layer(p, "route_weights", l);
        const int64_t N = experts.dim[0], K = experts.dim[1], S = r.expert.dim[1];
        assert_int_equal(r.expert.dim[0], N);
        assert_in_range(S, K, m->config.n_experts + K);
        for (int64_t n = 0; n < N; n++) {
            assert_memory_equal(data_i32(r.expert) + n * S, data_i32(experts) + n * K,
                                (size_t)K * sizeof(int32_t));
            check_close("slot weights", tensor_1d(row_f32(r.weight, n), DTYPE_F32, K),
                        tensor_1d(row_f32(weights, n), DTYPE_F32, K), 1e-5);
            for (int64_t s = K; s < S; s++) {
                assert_true(row_f32(r.weight, n)[s] == 0.0F);
            }
        }
    }
}

static double check_gradients(const struct parity *p, const struct model *m)
{
    double worst = 0;
    int64_t got = 0, want = 0;
    for (int64_t i = 0; i < m->leaves.count; i++) {
        const struct leaf *l = &m->leaves.leaf[i];
        const struct tensor reference = parity_gradient(p, l->name);
        check_close(l->name, l->grad, reference, 1e-4);
        worst = fmax(worst, relative_error(l->grad, reference));
        got += tensor_count(l->grad);
    }
    for (int64_t i = 0; i < p->reference.st.count; i++) {
        const struct st_entry *e = &p->reference.st.entry[i];
        const size_t n = strlen(p->prefix);
        if (!strncmp(e->name, p->prefix, n) && !strncmp(e->name + n, "grad.", 5))
            want += tensor_count(e->tensor);
    }
    assert_int_equal(got, want); // every gradient of the reference belongs to a leaf
    return worst;
}

static void check_logits(const struct parity *p, struct model *m)
{
    const struct tensor logits = parity_logits(m, &p->batch[0]);
    check_close("logits", logits, of_variant(p, "logits"), 1e-5);
    mem_free(logits.data);
}

static void check_variant(int model, const struct variant *v, bool recompute)
{
    struct parity p;
    struct model m;
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%s.", v->name);
    open_variant(&m, &p, model, v, recompute);
    p.prefix = prefix;
    run(&m, &p, v->micro_batches ? PARITY_BATCHES : 1);
    const double worst = check_gradients(&p, &m);
    check_losses(&p, &m, v->micro_batches ? PARITY_BATCHES : 1);
    if (!recompute) print_message("%s %s: worst gradient %.1e\n", p.name, v->name, worst);
    if (!v->micro_batches) {
        check_routes(&p, &m);
        check_logits(&p, &m);
        model_forward(&m, &p.batch[0], NULL, false); // in evaluation the same
        check_logits(&p, &m);
    }
    model_close(&m);
    parity_close(&p);
}

static void matches_the_formulas(void **state)
{
    (void)state;
    for (int i = 0; i < MODELS * VARIANTS; i++) {
        check_variant(i / VARIANTS, &variants[i % VARIANTS], false);
        check_variant(i / VARIANTS, &variants[i % VARIANTS], true);
    }
}

int main(void)
{
    cpu_configure(1, CPU_PRODUCTS_AUTO); // tiny products
    const struct CMUnitTest tests[] = {cmocka_unit_test(matches_the_formulas)};
    return cmocka_run_group_tests_name("routing parity", tests, NULL, NULL);
}
