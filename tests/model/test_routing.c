// tests/model/test_routing.c - what every routing promises (METHODS, "Routing"), on the tiny models of the
// parity fixtures: invariants of routes, what must be equal bit for bit, and gradients against central
// differences of the loss with the choices held.
#include "parity.h"

#include "base/crc32c.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const models[] = {"olmoe-gqa", "qwen-dense", "qwen-all", "qwen3-moe"};
enum { MODELS = 4 };

static const struct parity_case *case_of(const char *name)
{
    for (int i = 0; i < parity_n_cases; i++) {
        if (!strcmp(parity_cases[i].name, name)) return &parity_cases[i];
    }
    fail_msg("no case %s", name);
    return NULL;
}

static struct routing_options defaults(void)
{
    return (struct routing_options){.aux_coef = -1,
                                    .z_coef = -1,
                                    .bias_rate = 1e-3,
                                    .phase2_rate = 5e-5,
                                    .condenser_count = "2",
                                    .condenser_max = 4,
                                    .condenser_gini_power = 1};
}

// A bias file with values that differ, for the MoE layers of a model.
static const char *bias_file(const struct parity *p, const struct model_setup *s, double size)
{
    static char path[4096];
    struct model m;
    parity_model(&m, s);
    struct buf b = {0};
    struct rng r = {.seed = 7};
    const char *comma = "";
    buf_puts(&b, "{\"moe_bias_states\":{");
    for (int64_t l = 0; l < m.config.n_layers; l++) {
        if (!m.config.moe_layer[l]) continue;
        buf_printf(&b, "%s\"base_model.model.model.layers.%lld.mlp\":{\"bias_values\":[", comma,
                   (long long)l);
        for (int64_t e = 0; e < m.config.n_experts; e++) {
            buf_printf(&b, "%s%.6f", e ? "," : "", size * rng_normal(&r));
        }
        buf_puts(&b, "]}");
        comma = ",";
    }
    buf_puts(&b, "}}");
    model_close(&m);
    struct error err;
    snprintf(path, sizeof path, "%s/%s.json", test_dir(), p->name);
    check_ok(file_write(path, b.data, b.size, &err), &err);
    buf_free(&b);
    return path;
}

// One setup under test. The first four differentiate their own loss; the others are held to more.
struct variant {
    const char *routing;
    void (*change)(struct routing_options *o);
    bool file; // starts from a bias
};

static void in_logits(struct routing_options *o)
{
    o->bias_in = BIAS_IN_LOGITS;
}

static void released(struct routing_options *o)
{
    o->condenser_preset = CONDENSER_RELEASED;
}

static void sigmoid_gate(struct routing_options *o)
{
    o->condenser_gate = CONDENSER_SIGMOID;
}

static void softmax_gate(struct routing_options *o)
{
    o->condenser_gate = CONDENSER_SOFTMAX;
    o->condenser_preset = CONDENSER_RELEASED;
}

static void one_gate(struct routing_options *o)
{
    o->condenser_gate = CONDENSER_ONE;
}

static void all_slots(struct routing_options *o)
{
    o->condenser_count = "3";
}

static void unchanged(struct routing_options *o)
{
    (void)o;
}

static const struct variant variants[] = {
    {"topk", unchanged, false},        {"bias", unchanged, true},
    {"bias", in_logits, true},         {"condenser", unchanged, true},
    {"condenser", released, true},     {"condenser", sigmoid_gate, true},
    {"condenser", softmax_gate, true}, {"condenser", one_gate, true},
    {"condenser", all_slots, true},
};
enum { VARIANTS = (int)(sizeof variants / sizeof *variants) };

static void open_variant(struct model *m, const struct parity *p, const char *model,
                         const struct variant *v)
{
    struct error err;
    struct model_setup s = parity_setup(p, case_of(model), DTYPE_F32);
    const char *file = v->file ? bias_file(p, &s, 0.05) : NULL;
    s.routing = routing_find(v->routing, &err);
    s.routing_options = defaults();
    v->change(&s.routing_options);
    s.routing_options.bias_file = file;
    parity_model(m, &s);
    check_ok(model_begin_phase(m, 0, &err), &err);
}

// A checksum of all choices of experts.
static uint32_t choices(const struct model *m)
{
    uint32_t sum = 0;
    for (int64_t l = 0; l < m->config.n_layers; l++) {
        const struct route r = model_route(m, l);
        if (r.expert.data) sum = crc32c(sum, r.expert.data, tensor_bytes(r.expert));
    }
    return sum;
}

static double loss_of(struct model *m, const struct batch *b, uint32_t *chosen)
{
    model_forward(m, b, NULL, true);
    *chosen = choices(m);
    model_loss(m, b, 0.0F);
    return model_take_loss(m) / (double)b->supervised;
}

// The change of the loss along the gradient of a leaf, against the gradient's norm. False: not compared,
// because the gradient is lost in a float32 loss or the step changed a choice.
static bool check_leaf(struct model *m, const struct batch *b, struct leaf *f, uint32_t chosen)
{
    const int64_t n = tensor_count(f->value);
    float *value = data_f32(f->value), *grad = data_f32(f->grad);
    double norm = 0;
    for (int64_t i = 0; i < n; i++) {
        norm += (double)grad[i] * (double)grad[i];
    }
    norm = sqrt(norm);
    if (norm < 1e-3) return false;
    float *before = mem_alloc((size_t)n * sizeof *before);
    memcpy(before, value, (size_t)n * sizeof *before);
    const double step = 1e-3;
    double side[2];
    uint32_t now[2];
    for (int k = 0; k < 2; k++) {
        for (int64_t i = 0; i < n; i++) {
            value[i] = (float)((double)before[i] + (k ? -step : step) * (double)grad[i] / norm);
        }
        side[k] = loss_of(m, b, &now[k]);
    }
    memcpy(value, before, (size_t)n * sizeof *before);
    mem_free(before);
    if (now[0] != chosen || now[1] != chosen) return false;
    const double slope = (side[0] - side[1]) / (2 * step);
    if (!(fabs(slope - norm) < 0.01 * norm + 1e-3)) {
        fail_msg("%s: slope %.6g, gradient %.6g", f->name, slope, norm);
    }
    return true;
}

static void gradients_are_slopes(void **state)
{
    (void)state;
    for (int i = 0; i < MODELS * VARIANTS; i++) {
        struct parity p;
        struct model m;
        parity_open(&p, models[i % MODELS]);
        open_variant(&m, &p, models[i % MODELS], &variants[i / MODELS]);
        const struct batch *b = &p.batch[0];
        model_forward(&m, b, NULL, true);
        model_loss(&m, b, 1.0F / (float)b->supervised);
        model_backward(&m, b);
        model_take_loss(&m);
        const uint32_t chosen = choices(&m);
        int64_t compared = 0;
        for (int64_t l = 0; l < m.leaves.count; l++) {
            compared += check_leaf(&m, b, &m.leaves.leaf[l], chosen);
        }
        assert_true(compared >= 8);
        model_close(&m);
        parity_close(&p);
    }
}

static int times(const int32_t *expert, int64_t S, int32_t e)
{
    int n = 0;
    for (int64_t s = 0; s < S; s++) {
        n += expert[s] == e;
    }
    return n;
}

// Every slot names an expert; `paper` runs K, none twice; `released` runs K + r, its condensers last.
static void routes_hold_what_they_promise(void **state)
{
    (void)state;
    for (int i = 0; i < MODELS * VARIANTS; i++) {
        struct parity p;
        struct model m;
        const struct variant *v = &variants[i / MODELS];
        parity_open(&p, models[i % MODELS]);
        open_variant(&m, &p, models[i % MODELS], v);
        const bool grows = m.setup.routing_options.condenser_preset == CONDENSER_RELEASED;
        const int64_t K = m.config.experts_per_tok;
        model_forward(&m, &p.batch[0], NULL, true);
        for (int64_t l = 0; l < m.config.n_layers; l++) {
            if (!m.config.moe_layer[l]) continue;
            const struct route r = model_route(&m, l);
            const int64_t S = r.expert.dim[1];
            assert_int_equal(S, grows ? K + 2 : K);
            for (int64_t n = 0; n < r.expert.dim[0]; n++) {
                const int32_t *expert = data_i32(r.expert) + n * S;
                for (int64_t s = 0; s < S; s++) {
                    assert_true(expert[s] >= 0 && expert[s] < m.config.n_experts);
                    assert_true(times(expert, S, expert[s]) == 1 || grows);
                    assert_true(row_f32(r.weight, n)[s] > 0);
                }
                assert_int_equal(expert[S - 1],
                                 data_i32(r.expert)[S - 1] * (S > K) + expert[S - 1] * (S <= K));
            }
        }
        model_close(&m);
        parity_close(&p);
    }
}

// What the telemetry is made of: the slots of weight above 0, once for each forward pass in training.
static void usage_counts_the_rows(void **state)
{
    (void)state;
    static const struct variant all[] = {{"topk", unchanged, false},
                                         {"densemixer", unchanged, false},
                                         {"condenser", unchanged, true},
                                         {"condenser", released, true}};
    for (int i = 0; i < MODELS * 4; i++) {
        struct parity p;
        struct model m;
        parity_open(&p, models[i % MODELS]);
        open_variant(&m, &p, models[i % MODELS], &all[i / MODELS]);
        const struct batch *b = &p.batch[0];
        const int64_t E = m.config.n_experts, count = m.config.n_layers * E;
        float *usage = mem_alloc((size_t)count * sizeof *usage);
        float *want = mem_zalloc((size_t)count, sizeof *want);
        model_forward(&m, b, NULL, true);
        for (int64_t l = 0; l < m.config.n_layers; l++) {
            const struct route r = model_route(&m, l);
            for (int64_t s = 0; r.expert.data && s < tensor_count(r.expert); s++) {
                want[l * E + data_i32(r.expert)[s]] += 2.0F * (data_f32(r.weight)[s] > 0);
            }
        }
        model_loss(&m, b, 1.0F / (float)b->supervised);
        model_backward(&m, b);
        model_forward(&m, b, NULL, true);
        model_forward(&m, b, NULL, false);
        model_take_usage(&m, usage);
        assert_memory_equal(usage, want, (size_t)count * sizeof *usage);
        model_take_usage(&m, usage);
        for (int64_t e = 0; e < count; e++) {
            assert_true(usage[e] == 0);
        }
        mem_free(usage);
        mem_free(want);
        model_close(&m);
        parity_close(&p);
    }
}

static const struct variant plain = {"topk", unchanged, false};

// logits, then gradients of all leaves
static struct buf outcome(const struct parity *p, const char *model, const struct variant *v,
                          bool gradients)
{
    struct model m;
    struct buf all = {0};
    open_variant(&m, p, model, v);
    const struct batch *b = &p->batch[0];
    model_forward(&m, b, NULL, true);
    const struct tensor logits = parity_logits(&m, b);
    buf_append(&all, logits.data, tensor_bytes(logits));
    mem_free(logits.data);
    model_loss(&m, b, 1.0F / (float)b->supervised);
    model_backward(&m, b);
    for (int64_t i = 0; gradients && i < m.leaves.count; i++) {
        buf_append(&all, m.leaves.leaf[i].grad.data, tensor_bytes(m.leaves.leaf[i].grad));
    }
    model_close(&m);
    return all;
}

static void same_bytes(const struct variant *a, const struct variant *b, bool gradients)
{
    for (int i = 0; i < MODELS; i++) {
        struct parity p;
        parity_open(&p, models[i]);
        struct buf one = outcome(&p, models[i], a, gradients);
        struct buf two = outcome(&p, models[i], b, gradients);
        assert_int_equal(one.size, two.size);
        assert_memory_equal(one.data, two.data, one.size);
        buf_free(&one);
        buf_free(&two);
        parity_close(&p);
    }
}

static void topk_is_a_bias_of_zero(void **state)
{
    (void)state;
    same_bytes(&plain, &(struct variant){"bias", unchanged, false}, true);
}

static void first_phase_of_condenser_is_bias(void **state)
{
    (void)state;
    same_bytes(&plain, &(struct variant){"condenser", unchanged, false}, true);
    same_bytes(&plain, &(struct variant){"condenser", released, false}, true);
}

static void densemixer_has_the_value_of_topk(void **state)
{
    (void)state;
    same_bytes(&plain, &(struct variant){"densemixer", unchanged, false}, false);
}

// Logits by a model that begins from a bias file, and by one that reads what the first left behind.
static void state_travels_in_files(void **state)
{
    (void)state;
    for (int i = 0; i < VARIANTS; i++) {
        struct parity p;
        struct model m, again;
        struct error err;
        char path[4096];
        if (!variants[i].file) continue;
        parity_open(&p, models[0]);
        open_variant(&m, &p, models[0], &variants[i]);
        snprintf(path, sizeof path, "%s/state", test_dir());
        check_ok(dir_make(path, &err), &err);
        check_ok(m.setup.routing->save(m.routing_state, path, &err), &err);
        struct model_setup s = m.setup;
        s.routing_options.bias_file = NULL;
        parity_model(&again, &s);
        struct routing_source from;
        routing_source_find(&from, path, NULL, NULL);
        check_ok(s.routing->load(again.routing_state, &from, &err), &err);
        model_forward(&m, &p.batch[0], NULL, false);
        model_forward(&again, &p.batch[0], NULL, false);
        const struct tensor a = parity_logits(&m, &p.batch[0]);
        const struct tensor b = parity_logits(&again, &p.batch[0]);
        assert_memory_equal(a.data, b.data, tensor_bytes(a));
        mem_free(a.data);
        mem_free(b.data);
        model_close(&m);
        model_close(&again);
        parity_close(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_slopes),
        cmocka_unit_test(routes_hold_what_they_promise),
        cmocka_unit_test(usage_counts_the_rows),
        cmocka_unit_test(topk_is_a_bias_of_zero),
        cmocka_unit_test(first_phase_of_condenser_is_bias),
        cmocka_unit_test(densemixer_has_the_value_of_topk),
        cmocka_unit_test(state_travels_in_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
