// tests/model/test_esft_model.c - ESFT on the tiny models of the parity fixtures: scores against the routes of
// transformers, what learns under each option, and gradients equal to full tuning's, bit for bit, in both
// layouts of experts and under every routing.
#include "parity.h"

#include "base/file.h"
#include "base/mem.h"
#include "tuning/esft.h"

#include <stdio.h>
#include <string.h>

static void write_choice(char path[1024], const char *text)
{
    struct error err = {0};
    snprintf(path, 1024, "%s/expert_cfg.json", test_dir());
    check_ok(file_write(path, text, strlen(text), &err), &err);
}

static struct model_setup esft_setup(const struct parity *p, const struct parity_case *c,
                                     const char *selection)
{
    struct error err = {0};
    struct model_setup s = parity_setup(p, c, DTYPE_F32);
    s.tuning = tuning_find("esft", &err);
    s.tuning_options = (struct tuning_options){.selection = selection, .esft_top_p = 0.2};
    s.routing_options = (struct routing_options){.aux_coef = -1,
                                                 .z_coef = -1,
                                                 .bias_rate = 1e-3,
                                                 .condenser_count = "1",
                                                 .condenser_max = 4,
                                                 .condenser_gini_power = 1};
    return s;
}

// The sums that transformers' routes of batch 0 give.
static void add_reference(double *slots, double *mass, const struct parity *p, int64_t layer)
{
    const struct tensor expert = parity_of_layer(p, "routes", layer);
    const struct tensor weight = parity_of_layer(p, "route_weights", layer);
    for (int64_t i = 0; i < tensor_count(expert); i++) {
        slots[data_i32(expert)[i]] += 1;
        mass[data_i32(expert)[i]] += (double)data_f32(weight)[i];
    }
}

static void check_choice(const struct esft_selection *s, int64_t l, const double *x, int64_t E)
{
    double score[64];
    int32_t order[64];
    assert_true(esft_scores(score, x, E));
    assert_int_equal(s->count[l], esft_choose(order, score, E, 0.4));
    assert_memory_equal(s->expert + l * E, order, (size_t)s->count[l] * sizeof *order);
}

static void scores_are_those_of_transformers(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * parity_n_moe_cases; i++) {
        struct parity p;
        struct model m;
        struct error err = {0};
        struct esft_selection s;
        char path[1024];
        const bool gate = i % 2;
        const struct parity_case *c = &parity_cases[i / 2];
        parity_open(&p, c->name);
        struct model_setup setup = esft_setup(&p, c, NULL);
        setup.tuning = &tuning_esft_scores;
        setup.tuning_options.esft_score = gate ? ESFT_GATE : ESFT_TOKEN;
        setup.tuning_options.esft_top_p = 0.4;
        parity_model(&m, &setup);
        assert_int_equal(m.leaves.count, 0);
        model_forward(&m, &p.batch[0], NULL, true);
        snprintf(path, sizeof path, "%s/chosen.json", test_dir());
        check_ok(setup.tuning->finish(m.tuning_state, path, &err), &err);
        check_ok(esft_selection_read(&s, path, &m.config, &err), &err);
        for (int64_t l = 0; l < m.config.n_layers; l++) {
            double slots[64] = {0}, mass[64] = {0};
            assert_int_equal(s.count[l] >= 0, m.config.moe_layer[l]);
            if (!m.config.moe_layer[l]) continue;
            add_reference(slots, mass, &p, l);
            check_choice(&s, l, gate ? mass : slots, m.config.n_experts);
        }
        esft_selection_close(&s);
        model_close(&m);
        parity_close(&p);
    }
}

static void run(struct model *m, const struct batch *b, const struct model_setup *s)
{
    struct error err = {0};
    parity_model(m, s);
    check_ok(model_begin_phase(m, 0, &err), &err);
    model_forward(m, b, NULL, true);
    model_loss(m, b, 1.0F / (float)b->supervised);
    model_backward(m, b);
}

static const struct leaf *leaf_of(const struct model *m, const char *name)
{
    for (int64_t i = 0; i < m->leaves.count; i++) {
        if (!strcmp(m->leaves.leaf[i].name, name)) return &m->leaves.leaf[i];
    }
    return NULL;
}

// The last MoE layer's experts 1 and 0, and nothing else.
static void choice_of(char *text, size_t size, const struct parity *p, const struct parity_case *c)
{
    struct model m;
    const struct model_setup s = parity_setup(p, c, DTYPE_F32);
    parity_model(&m, &s);
    int64_t last = m.config.n_layers - 1;
    while (!m.config.moe_layer[last]) {
        last--;
    }
    snprintf(text, size, "{\"experts\": {\"%d\": [1, 0]}}", (int)last);
    model_close(&m);
}

static void check_gradients(const struct parity *p, const struct model_setup *esft, bool experts)
{
    struct model m, full;
    struct error err = {0};
    struct model_setup s = *esft;
    int64_t compared = 0;
    run(&m, &p->batch[0], esft);
    s.tuning = tuning_find("full", &err);
    run(&full, &p->batch[0], &s);
    for (int64_t i = 0; i < m.leaves.count; i++) {
        const struct leaf *f = &m.leaves.leaf[i], *want = leaf_of(&full, f->name);
        assert_non_null(want);
        if (memcmp(f->grad.data, want->grad.data, tensor_bytes(f->grad)) != 0) {
            fail_msg("%s, %s: %s: not the gradient of full tuning", p->name, s.routing->name,
                     f->name);
        }
        compared += strstr(f->name, ".experts.") != NULL;
    }
    if (experts) assert_int_equal(compared, 6);
    model_close(&full);
    model_close(&m);
}

static void gradients_are_those_of_full(void **state)
{
    (void)state;
    for (int i = 0; i < parity_n_moe_cases; i++) {
        struct parity p;
        char path[1024], text[256];
        parity_open(&p, parity_cases[i].name);
        choice_of(text, sizeof text, &p, &parity_cases[i]);
        write_choice(path, text);
        struct model_setup s = esft_setup(&p, &parity_cases[i], path);
        for (int k = 0; routings[k]; k++) {
            s.routing = routings[k];
            for (int options = 0; options < 8; options++) {
                s.recompute = options & 1;
                s.tuning_options.esft_shared_experts = options & 2;
                s.tuning_options.train = options & 4 ? "*.gate.weight" : NULL;
                check_gradients(&p, &s, true);
            }
        }
        parity_close(&p);
    }
}

// Counts leaves by part; the choice is as it stands in the file.
struct learning {
    int64_t experts, shared, others, all_shared, all_others;
};

static struct learning count_learning(const struct model *m)
{
    struct learning n = {0};
    for (int64_t i = 0; i < m->weights.count; i++) {
        const struct weight *w = &m->weights.weight[i];
        const bool expert = w->part == PART_EXPERT, shared = w->part == PART_SHARED;
        n.experts += expert && w->learns;
        n.shared += shared && w->learns;
        n.others += !expert && !shared && w->learns;
        n.all_shared += shared;
        n.all_others += !expert && !shared;
    }
    return n;
}

static void options_say_what_learns(void **state)
{
    (void)state;
    struct parity p;
    const struct parity_case *c = &parity_cases[4]; // a shared expert, and a dense layer
    char path[1024];
    assert_string_equal(c->name, "qwen-dense");
    parity_open(&p, c->name);
    for (int i = 0; i < 8; i++) {
        struct model m;
        struct learning n;
        const bool in_file = i & 4, shared = i & 1, others = i & 2;
        char text[256];
        snprintf(text, sizeof text,
                 "{\"experts\": {\"0\": [3], \"2\": [8, 1]}, \"shared_experts\": %s, "
                 "\"non_expert_modules\": %s}",
                 in_file && shared ? "true" : "false", in_file && others ? "true" : "false");
        write_choice(path, text);
        struct model_setup s = esft_setup(&p, c, path);
        s.tuning_options.esft_shared_experts = !in_file && shared;
        s.tuning_options.esft_non_expert_modules = !in_file && others;
        parity_model(&m, &s);
        n = count_learning(&m);
        assert_int_equal(n.experts, 9);
        assert_int_equal(n.shared, shared ? n.all_shared : 0);
        assert_int_equal(n.others, others ? n.all_others : 0);
        assert_true(n.all_shared > 0 && n.all_others > 0);
        assert_int_equal(m.leaves.count, n.experts + n.shared + n.others);
        for (int64_t k = 0; k < m.weights.count; k++) {
            const struct weight *w = &m.weights.weight[k];
            const bool chosen = (w->layer == 0 && w->expert == 3) ||
                                (w->layer == 2 && (w->expert == 8 || w->expert == 1));
            if (w->part == PART_EXPERT) assert_int_equal(w->learns, chosen);
        }
        model_close(&m);
    }
    parity_close(&p);
}

static void bad_choices_are_named(void **state)
{
    (void)state;
    struct parity p;
    struct model m;
    struct error err = {0};
    char path[1024];
    parity_open(&p, parity_cases[4].name);
    write_choice(path, "{\"experts\": {\"1\": [0]}}");
    struct model_setup s = esft_setup(&p, &parity_cases[4], path);
    check_error(model_open(&m, &s, &err), &err, "layer 1 has no experts");
    write_choice(path, "{\"experts\": {\"0\": [9]}}");
    check_error(model_open(&m, &s, &err), &err, "layer 0: expert 9; 0 to 8 expected");
    write_choice(path, "{\"experts\": {\"0\": []}}");
    check_error(model_open(&m, &s, &err), &err, "no expert is chosen");
    s.tuning_options.selection = "nowhere.json";
    check_error(model_open(&m, &s, &err), &err, "nowhere.json");
    s.tuning_options.selection = NULL;
    s.tuning_options.esft_top_p = 0;
    check_error(model_open(&m, &s, &err), &err, "esft_top_p is 0");
    parity_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_those_of_transformers),
        cmocka_unit_test(gradients_are_those_of_full),
        cmocka_unit_test(options_say_what_learns),
        cmocka_unit_test(bad_choices_are_named),
    };
    cpu_configure(1, CPU_PRODUCTS_AUTO);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
