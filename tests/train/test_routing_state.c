// test_routing_state.c - a routing's state in a run: it survives a stop in every phase, the best checkpoint has
// its own, and a run begins from the one that its model's folder holds.
#include "toy.h"

#include "io/json.h"

#include <signal.h>

// A run of condenser: the bias learns for some steps, then the condensers go on.
struct phases {
    struct toy toy;
    struct stage stage[2];
};

static void open_phases(struct phases *p, const char *routing, int64_t stages)
{
    struct error err;
    struct toy *t = &p->toy;
    toy_open(t);
    struct model_setup *s = &t->stage.setup;
    s->routing = routing_find(routing, &err);
    s->routing_options = (struct routing_options){.aux_coef = -1,
                                                  .z_coef = -1,
                                                  .bias_rate = 0.01,
                                                  .phase2_rate = 0.003,
                                                  .condenser_count = "2",
                                                  .condenser_gate = CONDENSER_SIGMOID};
    t->stage.options.max_steps = 3;
    p->stage[0] = p->stage[1] = t->stage;
    p->stage[1].options.max_steps = 4;
    p->stage[1].phase = 1;
    t->run.stage = p->stage;
    t->run.n_stages = stages;
}

static void raise_at(void *user, const struct train_step *s)
{
    if (s->step == *(const int64_t *)user) raise(SIGTERM);
}

static void stop_anywhere(int choice)
{
    struct phases p;
    struct error err = {0};
    char straight[1024];
    open_phases(&p, "condenser", 2);
    p.stage[0].setup.routing_options.condenser_choice = choice;
    struct toy *t = &p.toy;
    check_ok(toy_run(t, &err), &err);
    snprintf(straight, sizeof straight, "%s", t->out);
    for (int64_t at = 1; at < 7; at++) {
        const struct train_listener listener = {.user = &at, .step = raise_at};
        char name[64];
        snprintf(name, sizeof name, "../stopped-%d", (int)at);
        other_out(t, name);
        t->run.resume = false;
        t->run.listener = &listener;
        check_ok(toy_run(t, &err), &err);
        assert_int_equal(t->result.outcome, TRAIN_STOPPED);
        t->run.resume = true;
        t->run.listener = NULL;
        check_ok(toy_run(t, &err), &err);
        check_same_folder(toy_path(straight, "model"), toy_path(t->out, "model"));
        check_same_folder(toy_path(straight, "checkpoint-7"), toy_path(t->out, "checkpoint-7"));
    }
    assert_true(file_exists(toy_path(straight, "model/forced_experts_records.json")));
    assert_true(file_exists(toy_path(straight, "checkpoint-7/routing.json")));
    toy_close(t);
}

// The choice is by the bias and, where biases are equal, by the use: both must come back.
static void a_stop_in_any_phase_changes_nothing(void **state)
{
    (void)state;
    stop_anywhere(CHOICE_LOWEST_BIAS);
    stop_anywhere(CHOICE_LEAST_USED);
}

// The best is not the last, and each step moves the bias.
static void the_best_has_its_own_state(void **state)
{
    (void)state;
    struct phases p;
    struct error err = {0};
    open_phases(&p, "bias", 1);
    struct toy *t = &p.toy;
    t->run.validation = &t->validation;
    p.stage[0].options.lr = 3e-2;
    p.stage[0].options.max_steps = 60;
    p.stage[0].options.eval_every = 5;
    p.stage[0].options.patience = 3;
    p.stage[0].options.schedule = SCHEDULE_CONSTANT;
    toy_data_free(&t->data);
    toy_data(&t->data, 12, 8);
    t->run.keep_last = 1;
    t->run.export_best = true;
    check_ok(toy_run(t, &err), &err);
    assert_true(t->result.best_step > 0 && t->result.best_step < t->result.step);
    char best[64], last[64];
    snprintf(best, sizeof best, "checkpoint-%d/moe_bias_states.json", (int)t->result.best_step);
    snprintf(last, sizeof last, "checkpoint-%d/moe_bias_states.json", (int)t->result.step);
    check_same_file(toy_path(t->out, best), toy_path(t->out, "model/moe_bias_states.json"));
    char *a, *b;
    size_t n, m;
    check_ok(file_read(&a, &n, toy_path(t->out, best), 1 << 20, &err), &err);
    check_ok(file_read(&b, &m, toy_path(t->out, last), 1 << 20, &err), &err);
    assert_string_not_equal(a, b);
    mem_free(a);
    mem_free(b);
    toy_close(t);
}

static json_t *json_of(const char *out, const char *name)
{
    struct error err = {0};
    json_t *j = json_parse_file(toy_path(out, name), 1 << 20, &err);
    check_ok(j != NULL, &err);
    return j;
}

static const json_t *layer_array(const json_t *file, const char *all, const char *name)
{
    const json_t *layers = json_object_get(file, all);
    return json_object_get(json_object_get(layers, "model.layers.1.mlp"), name);
}

// Two lowest biases; ties by use, then by index.
static void check_chosen(const json_t *bias, const json_t *experts)
{
    const json_t *b = layer_array(bias, "moe_bias_states", "bias_values");
    const json_t *u = layer_array(bias, "moe_bias_states", "usage_sums");
    const json_t *chosen = layer_array(experts, "forced_experts_records", "forced_expert_indices");
    assert_int_equal(json_array_size(chosen), 2);
    for (size_t i = 0; i < 2; i++) {
        const size_t e = (size_t)json_integer_value(json_array_get(chosen, i));
        size_t before = 0;
        for (size_t o = 0; o < json_array_size(b); o++) {
            const double x = json_number_value(json_array_get(b, o)),
                         y = json_number_value(json_array_get(b, e)),
                         v = json_number_value(json_array_get(u, o)),
                         w = json_number_value(json_array_get(u, e));
            before += x < y || (!(x > y) && (v < w || (!(v > w) && o < e)));
        }
        assert_true(before < 2);
    }
}

// bias, then condenser from its result (the choice from the bias, in one stage), then on from that one's.
static void a_run_begins_from_its_model_s_state(void **state)
{
    (void)state;
    struct phases p;
    struct error err = {0};
    char first[1024], second[1024], base[1024];
    open_phases(&p, "bias", 1);
    struct toy *t = &p.toy;
    check_ok(toy_run(t, &err), &err);
    snprintf(first, sizeof first, "%s", t->out);
    snprintf(base, sizeof base, "%s", toy_path(first, "model"));

    struct model_setup *s = &p.stage[0].setup;
    s->routing = routing_find("condenser", &err);
    s->dir = base;
    s->routing_options.phase2_rate = 0;
    other_out(t, "../second");
    check_ok(toy_run(t, &err), &err);
    snprintf(second, sizeof second, "%s", t->out);
    json_t *bias = json_of(first, "model/moe_bias_states.json");
    json_t *moved = json_of(second, "model/moe_bias_states.json");
    json_t *experts = json_of(second, "model/forced_experts_records.json");
    check_chosen(bias, experts);
    assert_true(json_equal(layer_array(bias, "moe_bias_states", "bias_values"),
                           layer_array(moved, "moe_bias_states", "bias_values")));
    json_decref(bias);
    json_decref(moved);
    json_decref(experts);

    // With nothing that learns fast, the third has the second's condensers and gates.
    snprintf(base, sizeof base, "%s", toy_path(second, "model"));
    p.stage[0].options.lr = 0;
    other_out(t, "../third");
    check_ok(toy_run(t, &err), &err);
    check_same_file(toy_path(second, "model/forced_experts_records.json"),
                    toy_path(t->out, "model/forced_experts_records.json"));
    check_same_file(toy_path(second, "model/condenser_gates.safetensors"),
                    toy_path(t->out, "model/condenser_gates.safetensors"));

    // A resume of such a run takes the checkpoint's state, not the folder's.
    p.stage[0].options.lr = 5e-3;
    p.stage[0].setup.routing_options.phase2_rate = 0.003;
    other_out(t, "../fourth");
    check_ok(toy_run(t, &err), &err);
    snprintf(first, sizeof first, "%s", t->out);
    int64_t at = 2;
    const struct train_listener listener = {.user = &at, .step = raise_at};
    other_out(t, "../fifth");
    t->run.listener = &listener;
    check_ok(toy_run(t, &err), &err);
    assert_int_equal(t->result.outcome, TRAIN_STOPPED);
    t->run.listener = NULL;
    t->run.resume = true;
    check_ok(toy_run(t, &err), &err);
    check_same_folder(toy_path(first, "model"), toy_path(t->out, "model"));
    toy_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stop_in_any_phase_changes_nothing),
        cmocka_unit_test(the_best_has_its_own_state),
        cmocka_unit_test(a_run_begins_from_its_model_s_state),
    };
    cpu_configure(1, CPU_PRODUCTS_AUTO);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
