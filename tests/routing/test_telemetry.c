// test_telemetry.c - what metrics.jsonl says of the experts, against values worked out by hand.
#include "support.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "routing/routing.h"
#include "routing/telemetry.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { E = 4, TOKENS = 4 };

static double value_at(const json_t *report, const char *key, size_t i)
{
    const json_t *list = json_object_get(report, key);
    if (!json_is_array(list) || i >= json_array_size(list)) fail_msg("no %s[%zu]", key, i);
    return json_number_value(json_array_get(list, i));
}

static void check_value(const json_t *report, const char *key, size_t i, double want)
{
    const double got = value_at(report, key, i);
    if (!(fabs(got - want) <= 1e-6)) fail_msg("%s[%zu]: %.9g, expected %.9g", key, i, got, want);
}

// --- the load

struct expected {
    double top_share, cover80, gini, entropy, dead;
};

static void check_load(const float *load, int64_t experts, int64_t K, const struct expected *x)
{
    const struct model_config c = {
        .n_layers = 1, .n_experts = experts, .experts_per_tok = K, .moe_layer = {true}};
    json_t *out = json_object();
    telemetry_add(out, &c, load);
    check_value(out, "top_share", 0, x->top_share);
    check_value(out, "cover80", 0, x->cover80);
    check_value(out, "gini", 0, x->gini);
    check_value(out, "entropy", 0, x->entropy);
    check_value(out, "dead", 0, x->dead);
    json_decref(out);
}

static void load_by_hand(void **state)
{
    (void)state;
    // Sorted 1 1 2 6: cumulated 1 2 4 10, gini (5 - 2 * 17 / 10) / 4; 6 + 2 are 80 % exactly.
    const float uneven[] = {2, 1, 6, 1};
    const double entropy = -(0.6 * log(0.6) + 0.2 * log(0.2) + 0.2 * log(0.1)) / log(4);
    check_load(uneven, 4, 2, &(struct expected){0.8, 2, 0.4, entropy, 0});
    check_load(uneven, 4, 1, &(struct expected){0.6, 2, 0.4, entropy, 0});
    // Sorted 0 0 1 3: cumulated 0 0 1 4, gini (5 - 2 * 5 / 4) / 4; 3 of 4 are 75 %.
    const float dead[] = {3, 0, 0, 1};
    const double two = -(0.75 * log(0.75) + 0.25 * log(0.25)) / log(4);
    check_load(dead, 4, 1, &(struct expected){0.75, 2, 0.625, two, 2});
    const float nearly[] = {799, 201}; // gini (3 - 2 * 1.201) / 2
    const double both = -(0.799 * log(0.799) + 0.201 * log(0.201)) / log(2);
    check_load(nearly, 2, 1, &(struct expected){0.799, 2, 0.299, both, 0});
}

static void level_load(void **state)
{
    (void)state;
    float load[10];
    for (int e = 0; e < 10; e++) {
        load[e] = 7;
    }
    check_load(load, 10, 3, &(struct expected){0.3, 8, 0, 1, 0}); // 8 of 10 are 80 %
    check_load(load, 7, 7, &(struct expected){1, 6, 0, 1, 0});    // 5 of 7 are 71 %
}

static void one_expert_has_all(void **state)
{
    (void)state;
    const float load[] = {0, 0, 9, 0, 0};
    check_load(load, 5, 2, &(struct expected){1, 1, 0.8, 0, 4});
}

static void no_load(void **state)
{
    (void)state;
    const float load[] = {0, 0, 0};
    check_load(load, 3, 2, &(struct expected){0, 0, 0, 0, 3});
}

static void a_single_expert(void **state)
{
    (void)state;
    const float load[] = {5}, none[] = {0};
    check_load(load, 1, 1, &(struct expected){1, 1, 0, 0, 0});
    check_load(none, 1, 1, &(struct expected){0, 0, 0, 0, 1});
}

static void a_value_for_each_moe_layer(void **state)
{
    (void)state;
    const struct model_config c = {.n_layers = 4,
                                   .n_experts = 2,
                                   .experts_per_tok = 1,
                                   .moe_layer = {false, true, false, true}};
    const float usage[] = {0, 0, 3, 1, 0, 0, 0, 2};
    json_t *out = json_object();
    telemetry_add(out, &c, usage);
    const char *key;
    json_t *list;
    json_object_foreach(out, key, list)
    {
        assert_int_equal(json_array_size(list), 2);
    }
    check_value(out, "top_share", 0, 0.75);
    check_value(out, "top_share", 1, 1);
    check_value(out, "dead", 1, 1);
    json_decref(out);
}

// --- a routing's own numbers

// Layer 1 of two is the MoE layer. Three tokens prefer the experts 0 1 2 3, the last one 3 2 1 0.
static const float likes[] = {0.4F, 0.3F, 0.2F, 0.1F};

struct toy {
    const struct routing *routing;
    struct routing_state *state;
    struct model_config config;
    struct leaves leaves;
    struct arena arena;
    int32_t expert[TOKENS * 2 * E];
    float weight[TOKENS * 2 * E];
    float usage[2 * E]; // rows that each expert got
};

static struct routing_options options(void)
{
    return (struct routing_options){.aux_coef = -1, .condenser_count = "1", .condenser_max = 4};
}

static void toy_open(struct toy *b, const char *routing, int64_t K, const struct routing_options *r)
{
    struct error err = {""};
    *b = (struct toy){.routing = routing_find(routing, &err)};
    assert_non_null(b->routing);
    b->config = (struct model_config){.architecture = "Toy",
                                      .width = 2,
                                      .n_layers = 2,
                                      .n_experts = E,
                                      .experts_per_tok = K,
                                      .moe_layer = {false, true}};
    for (int placing = 0; placing < 2; placing++) {
        b->arena.used = 0;
        check_ok(b->routing->open(&b->state, &cpu_ops, &b->config, r, TOKENS, &b->arena, &b->leaves,
                                  &err),
                 &err);
        if (placing) break;
        b->arena.capacity = b->arena.used;
        b->arena.base = cpu_ops.allocate(b->arena.capacity);
        assert_non_null(b->arena.base);
    }
    if (b->routing->begin) check_ok(b->routing->begin(b->state, 0, NULL, &err), &err);
}

static void toy_close(struct toy *b)
{
    b->routing->close(b->state);
    cpu_ops.release(b->arena.base, b->arena.capacity);
    leaves_free(&b->leaves);
}

static void forward(struct toy *b, bool training)
{
    float z[TOKENS * E], x[TOKENS * 2] = {0};
    for (int n = 0; n < TOKENS; n++) {
        for (int e = 0; e < E; e++) {
            z[n * E + e] = logf(likes[n < 3 ? e : E - 1 - e]);
        }
    }
    const int64_t S = b->routing->slots(b->state, 1, training);
    const struct route route = {tensor_2d(b->expert, DTYPE_I32, TOKENS, S),
                                tensor_2d(b->weight, DTYPE_F32, TOKENS, S)};
    const struct route_input in = {.layer = 1,
                                   .x = tensor_2d(x, DTYPE_F32, TOKENS, 2),
                                   .z = tensor_2d(z, DTYPE_F32, TOKENS, E),
                                   .training = training};
    b->routing->select(b->state, &route, &in);
    for (int64_t i = 0; training && i < TOKENS * S; i++) {
        b->usage[E + b->expert[i]] += b->weight[i] > 0;
    }
}

static json_t *report(struct toy *b)
{
    json_t *out = json_object();
    telemetry_add(out, &b->config, b->usage);
    b->routing->report(b->state, out, b->usage);
    memset(b->usage, 0, sizeof b->usage);
    return out;
}

static const char *bias_file(const char *values)
{
    static char path[4096];
    struct buf text = {0};
    struct error err = {""};
    snprintf(path, sizeof path, "%s/bias.json", test_dir());
    buf_printf(&text, "{\"moe_bias_states\":{\"model.layers.1.mlp\":{\"bias_values\":[%s]}}}",
               values);
    check_ok(file_write(path, text.data, text.size, &err), &err);
    buf_free(&text);
    return path;
}

static int warnings;
static char last_warning[512];

static void keep_warning(enum log_level level, const char *line, void *user)
{
    (void)user;
    warnings += level == LOG_WARNING;
    snprintf(last_warning, sizeof last_warning, "%s", line);
}

// With K = 1 the first three tokens go to expert 1 (0.3 beats 0.4 - 0.15), the last one stays at 3.
static void bias_in_the_selection(void **state)
{
    (void)state;
    struct toy b;
    struct routing_options r = options();
    r.bias_file = bias_file("-0.15, 0, 0, 0.05");
    toy_open(&b, "bias", 1, &r);
    forward(&b, true);
    json_t *out = report(&b);
    check_value(out, "bias_min", 0, -0.15);
    check_value(out, "bias_max", 0, 0.05);
    check_value(out, "bias_changed", 0, 0.75);
    check_value(out, "top_share", 0, 0.75);
    check_value(out, "dead", 0, 2);
    assert_null(json_object_get(out, "condenser_load"));
    json_decref(out);
    forward(&b, false); // evaluation counts nothing, and a report begins anew
    out = report(&b);
    check_value(out, "bias_changed", 0, 0);
    json_decref(out);
    toy_close(&b);
}

// With K = 2 the order within the choice is no change: {0, 1} becomes {1, 2}, one of two, for three tokens.
static void one_choice_of_two(void **state)
{
    (void)state;
    struct toy b;
    struct routing_options r = options();
    r.bias_file = bias_file("-0.25, 0, 0, 0");
    toy_open(&b, "bias", 2, &r);
    forward(&b, true);
    forward(&b, true);
    json_t *out = report(&b);
    check_value(out, "bias_changed", 0, 0.375);
    json_decref(out);
    toy_close(&b);
    r.bias_file = bias_file("-0.15, 0, 0, 0"); // {1, 0} instead of {0, 1}
    toy_open(&b, "bias", 2, &r);
    forward(&b, true);
    out = report(&b);
    check_value(out, "bias_changed", 0, 0);
    json_decref(out);
    toy_close(&b);
}

// exp(b) weighs p: 0.4 * 0.5 falls behind 0.3.
static void bias_in_the_logits(void **state)
{
    (void)state;
    struct toy b;
    struct routing_options r = options();
    r.bias_in = BIAS_IN_LOGITS;
    r.bias_file = bias_file("-0.693147, 0, 0, 0");
    warnings = 0;
    log_set_sink(keep_warning, NULL);
    toy_open(&b, "bias", 1, &r);
    forward(&b, true);
    json_t *out = report(&b);
    log_set_sink(NULL, NULL);
    check_value(out, "bias_changed", 0, 0.75);
    assert_int_equal(warnings, 0);
    json_decref(out);
    toy_close(&b);
}

static void more_than_half_is_warned_of_once(void **state)
{
    (void)state;
    struct toy b;
    struct routing_options r = options();
    r.bias_file = bias_file("-0.15, 0, 0, 0");
    warnings = 0;
    log_set_sink(keep_warning, NULL);
    toy_open(&b, "bias", 1, &r);
    for (int step = 0; step < 3; step++) {
        forward(&b, true);
        json_decref(report(&b));
    }
    assert_int_equal(warnings, 1);
    assert_non_null(strstr(last_warning, "75 % of the choices in layer 1"));
    toy_close(&b);

    warnings = 0;
    r.bias_file = bias_file("-0.25, 0, 0, -0.25"); // {1, 2} for all, one of two: half is not more
    toy_open(&b, "bias", 2, &r);
    forward(&b, true);
    json_t *out = report(&b);
    check_value(out, "bias_changed", 0, 0.5);
    assert_int_equal(warnings, 0);
    json_decref(out);
    toy_close(&b);
    log_set_sink(NULL, NULL);
}

// K = 2, expert 3 a condenser. paper: the best other expert is routed, 0 0 0 2; the condenser has half of
// the 8 rows. Its own bias changes no choice.
static void condensers_within_the_budget(void **state)
{
    (void)state;
    struct toy b;
    struct routing_options r = options();
    r.condenser_experts = "3";
    r.bias_file = bias_file("0, 0, 0, 10");
    toy_open(&b, "condenser", 2, &r);
    forward(&b, true);
    json_t *out = report(&b);
    check_value(out, "condenser_load", 0, 0.5);
    check_value(out, "bias_changed", 0, 0);
    check_value(out, "top_share", 0, 7.0 / 8);
    check_value(out, "cover80", 0, 2);
    check_value(out, "dead", 0, 1);
    json_decref(out);
    toy_close(&b);
}

// released: {0, 1} three times and {3, 2}, and expert 3 for all: twice for the last token, 5 of 12 rows.
static void condensers_on_top(void **state)
{
    (void)state;
    struct toy b;
    struct routing_options r = options();
    r.condenser_preset = CONDENSER_RELEASED;
    r.condenser_experts = "3";
    toy_open(&b, "condenser", 2, &r);
    forward(&b, true);
    json_t *out = report(&b);
    check_value(out, "condenser_load", 0, 5.0 / 12);
    check_value(out, "top_share", 0, 8.0 / 12);
    check_value(out, "bias_changed", 0, 0);
    json_decref(out);
    toy_close(&b);
}

// While the bias learns there are no condensers, and no number for them.
static void phase_1_has_no_condensers(void **state)
{
    (void)state;
    struct toy b;
    const struct routing_options r = options();
    toy_open(&b, "condenser", 2, &r);
    forward(&b, true);
    json_t *out = report(&b);
    assert_null(json_object_get(out, "condenser_load"));
    check_value(out, "bias_changed", 0, 0);
    json_decref(out);
    toy_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(load_by_hand),
        cmocka_unit_test(level_load),
        cmocka_unit_test(one_expert_has_all),
        cmocka_unit_test(no_load),
        cmocka_unit_test(a_single_expert),
        cmocka_unit_test(a_value_for_each_moe_layer),
        cmocka_unit_test(bias_in_the_selection),
        cmocka_unit_test(one_choice_of_two),
        cmocka_unit_test(bias_in_the_logits),
        cmocka_unit_test(more_than_half_is_warned_of_once),
        cmocka_unit_test(condensers_within_the_budget),
        cmocka_unit_test(condensers_on_top),
        cmocka_unit_test(phase_1_has_no_condensers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
