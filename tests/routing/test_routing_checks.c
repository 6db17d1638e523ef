// tests/routing/test_routing_checks.c - which options go with a model, said from its config alone: what is
// refused, in which words, and what is just allowed.
#include "support.h"

#include "routing/condenser_choice.h"
#include "routing/routing.h"

#include <math.h>

// Layer 0 is dense.
static const struct model_config model = {.architecture = "toy",
                                          .n_layers = 4,
                                          .n_experts = 8,
                                          .experts_per_tok = 2,
                                          .moe_layer = {false, true, true, true}};

struct check {
    struct routing_options options;
    const char *words; // of the refusal; NULL: allowed
};

static void check_all(const char *routing, const struct model_config *c, const struct check *check,
                      size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct error err = {0};
        struct routing_options o = check[i].options;
        if (!o.condenser_count) o.condenser_count = "1";
        const bool ok = routing_check(routing_find(routing, &err), &o, c, &err);
        print_message("%s %d: %s\n", routing, (int)i, ok ? "allowed" : err.msg);
        if (check[i].words) {
            check_error(ok, &err, check[i].words);
        } else {
            check_ok(ok, &err);
        }
    }
}
#define CHECK_ALL(routing, config, list)                                                           \
    check_all(routing, config, list, sizeof(list) / sizeof *(list))

static void numbers_of_condensers(void **state)
{
    (void)state;
#define COUNT(text) .condenser_count = (text), .bias_rate = 1
    static const char list[] = "one number, or 3 (one for each MoE layer) expected";
    static const struct check paper[] = {
        {{COUNT("0")}, NULL},
        {{COUNT("2")}, NULL},
        {{COUNT("1,2,0")}, NULL},
        {{COUNT("3")},
         "--condenser-count: 3 in layer 1, but a token runs 2 experts and the preset"},
        {{COUNT("2,2,3")}, "--condenser-count: 3 in layer 3, but a token runs 2"},
        {{COUNT("9")}, "--condenser-count: 9 in layer 1, but it has 8 experts"},
        {{COUNT("1,2")}, "--condenser-count: '1,2'; one number, or 3"},
        {{COUNT("1,1,1,1")}, list},
        {{COUNT("")}, list},
        {{COUNT("1,")}, list},
        {{COUNT(",1")}, list},
        {{COUNT("1,,1")}, list},
        {{COUNT("1;1;1")}, list},
        {{COUNT("-1")}, list},
        {{COUNT("+1")}, list},
        {{COUNT("/")}, list}, // beside the digits
        {{COUNT(":")}, list},
        {{COUNT("1x")}, list},
        {{COUNT("1073741824")}, "1073741824 in layer 1, but it has 8"},
        {{COUNT("1073741825")}, list}, // no number that anything has
    };
#undef COUNT
#define RELEASED(text)                                                                             \
    .condenser_preset = CONDENSER_RELEASED, .condenser_count = (text), .bias_rate = 1
    static const struct check released[] = {
        {{RELEASED("8")}, NULL},
        {{RELEASED("8,0,8")}, NULL},
        {{RELEASED("9")}, "--condenser-count: 9 in layer 1, but it has 8 experts"},
    };
#undef RELEASED
    CHECK_ALL("condenser", &model, paper);
    CHECK_ALL("condenser", &model, released);
}

static void thirds_and_totals(void **state)
{
    (void)state;
#define THIRDS(text) .condenser_thirds = (text), .bias_rate = 1
#define TOTAL(n, most) .condenser_total = (n), .condenser_max = (most), .bias_rate = 1
    static const char three[] = "three numbers expected: early,middle,late";
    static const struct check checks[] = {
        {{THIRDS("0,1,2")}, NULL},
        {{THIRDS("1,2")}, three},
        {{THIRDS("1,2,0,1")}, three},
        {{THIRDS("1,2,0,1,1")}, three},
        {{THIRDS("1,2,")}, three},
        {{THIRDS("0,1,3")}, "--condenser-thirds: 3 in layer 2, but a token runs 2"},
        {{THIRDS("3,1,1")}, NULL}, // the first third is the dense layer
        {{THIRDS("0,1,2"), .condenser_total = 1},
         "--condenser-thirds and --condenser-total exclude each other"},
        {{THIRDS("0,1,2"), .condenser_experts = "1"},
         "--condenser-experts and --condenser-thirds exclude each other"},
        {{TOTAL(1, 1), .condenser_experts = "1"},
         "--condenser-experts and --condenser-total exclude each other"},
        {{TOTAL(6, 2)}, NULL},
        {{TOTAL(6, 100)}, NULL},
        {{TOTAL(7, 100)}, "--condenser-total: 7, but 2 in each of 3 layers are all that may be"},
        {{TOTAL(3, 1)}, NULL},
        {{TOTAL(4, 1)}, "--condenser-total: 4, but 1 in each of 3 layers"},
        {{TOTAL(24, 8), .condenser_preset = CONDENSER_RELEASED}, NULL},
        {{TOTAL(25, 9), .condenser_preset = CONDENSER_RELEASED}, "8 in each of 3 layers"},
    };
#undef THIRDS
#undef TOTAL
    CHECK_ALL("condenser", &model, checks);
}

static void experts_by_name(void **state)
{
    (void)state;
    static const char form[] = "experts as 3,7 for every MoE layer or as 3,7;1,4";
    static const struct check checks[] = {
        {{.condenser_experts = "7"}, NULL},
        {{.condenser_experts = "3,0"}, NULL},
        {{.condenser_experts = "7;0,1;1"}, NULL},
        {{.condenser_experts = "8"}, "layer 1: an expert from 0 to 7 expected"},
        {{.condenser_experts = "7;0;1,8"}, "layer 3: an expert from 0 to 7 expected"},
        {{.condenser_experts = "3,3"}, "layer 1 names expert 3 twice"},
        {{.condenser_experts = "1;2;4,4"}, "layer 3 names expert 4 twice"},
        {{.condenser_experts = "1,2,3"}, "--condenser-experts: 3 in layer 1, but a token runs 2"},
        {{.condenser_experts = "3;7"}, "'3;7' has 2 lists; one, or 3"},
        {{.condenser_experts = "3;7;1;"}, "has 4 lists"},
        {{.condenser_experts = "3,,7"}, form},
        {{.condenser_experts = "3,"}, form},
        {{.condenser_experts = ",3"}, form},
        {{.condenser_experts = ""}, form},
        {{.condenser_experts = "3;;1"}, form},
        {{.condenser_experts = "/no/such/file.json"}, "/no/such/file.json"},
    };
    CHECK_ALL("condenser", &model, checks);
}

static void phase_1_must_leave_something_to_choose_by(void **state)
{
    (void)state;
    static const char still[] = "--bias-rate: 0, but the condensers are chosen by the bias";
    static const char all[] = "found --bias-usage count where a token runs all experts";
    static const char one[] = "found one expert in a layer";
    struct model_config every = model, single = model;
    every.experts_per_tok = 8;
    single.n_experts = single.experts_per_tok = 1;
#define PHASE_1 .phase1_epochs = 1
#define USED PHASE_1, .condenser_choice = CHOICE_LEAST_USED
    static const struct check rates[] = {
        {{PHASE_1, .bias_rate = 1e-9}, NULL},
        {{PHASE_1}, still},
        {{PHASE_1, .condenser_choice = CHOICE_HIGHEST_BIAS}, still},
        {{USED}, NULL},
        {{PHASE_1, .condenser_choice = CHOICE_MOST_USED}, NULL},
        {{USED, .condenser_total = 3, .condenser_max = 1, .condenser_share = SHARE_BIAS_STD},
         still},
        {{USED, .condenser_total = 3, .condenser_max = 1, .condenser_share = SHARE_USAGE_GINI},
         NULL},
        {{.phase1_epochs = 0}, NULL}, // there is none
        {{PHASE_1, .condenser_experts = "1"}, NULL},
    };
    static const struct check every_runs[] = {
        {{PHASE_1, .bias_rate = 1, .bias_usage = BIAS_USAGE_COUNT}, all},
        {{PHASE_1, .bias_rate = 1, .bias_usage = BIAS_USAGE_SOFT}, NULL},
        {{USED, .bias_usage = BIAS_USAGE_COUNT, .condenser_total = 3, .condenser_max = 1,
          .condenser_share = SHARE_USAGE_GINI},
         all},
    };
    static const struct check one_expert[] = {{{PHASE_1, .bias_rate = 1}, one}};
#undef PHASE_1
#undef USED
    CHECK_ALL("condenser", &model, rates);
    CHECK_ALL("condenser", &every, every_runs);
    CHECK_ALL("condenser", &single, one_expert);
}

static void rates_are_not_negative(void **state)
{
    (void)state;
    static const struct check bias[] = {
        {{.bias_rate = 0}, NULL},
        {{.bias_rate = -0.5}, "--bias-rate: -0.5, at least 0 expected"},
        {{.bias_file = "/no/such/file.json"}, "/no/such/file.json"},
    };
    static const struct check condenser[] = {
        {{.bias_rate = -0.5, .phase2_rate = -2}, "--bias-rate: -0.5, at least 0 expected"},
        {{.bias_rate = 1, .phase2_rate = -2}, "--phase2-rate: -2, at least 0 expected"},
        {{.bias_rate = 1, .bias_file = "/no/such/file.json"}, "/no/such/file.json"},
    };
    CHECK_ALL("bias", &model, bias);
    CHECK_ALL("condenser", &model, condenser);
}

static void a_model_without_experts_has_no_router(void **state)
{
    (void)state;
    static const char experts[] = "but the model (toy) has no experts; topk expected";
    struct model_config dense = model;
    dense.moe_layer[1] = dense.moe_layer[2] = dense.moe_layer[3] = false;
    static const struct check any[] = {{{0}, experts}};
    static const struct check topk[] = {
        {{0}, NULL},
        {{.aux_coef = -1, .z_coef = -1}, NULL},
        {{.aux_coef = 0.5}, "--aux-coef: the model (toy) has no experts"},
        {{.z_coef = 0.5}, "--z-coef: the model (toy) has no experts"},
    };
    CHECK_ALL("topk", &dense, topk);
    for (int i = 0; routings[i]; i++) {
        if (routings[i]->needs_experts) CHECK_ALL(routings[i]->name, &dense, any);
    }
    assert_int_equal(routing_layers(&dense), 0);
    assert_int_equal(routing_layers(&model), 3);
}

static void an_unknown_name_is_an_error(void **state)
{
    (void)state;
    struct error err = {0};
    check_error(routing_find("condensers", &err) != NULL, &err,
                "routing 'condensers' is not known");
}

// floor(L/3), floor(L/3), the rest, up to the last layer that has experts.
static void thirds_are_of_the_layers_up_to_the_last_with_experts(void **state)
{
    (void)state;
    static const struct {
        int64_t layers, last; // dense after it
        int64_t want[9];
    } cases[] = {{3, 3, {1, 2, 3}},
                 {4, 4, {1, 2, 3, 3}},
                 {5, 5, {1, 2, 3, 3, 3}},
                 {8, 8, {1, 1, 2, 2, 3, 3, 3, 3}},
                 {9, 9, {1, 1, 1, 2, 2, 2, 3, 3, 3}},
                 {9, 6, {1, 1, 2, 2, 3, 3, 0, 0, 0}},
                 {2, 2, {3, 3}}};
    const struct routing_options o = {.condenser_thirds = "1,2,3"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model_config c = {.n_layers = cases[i].layers, .n_experts = 8};
        int64_t count[MAX_LAYERS] = {0};
        struct error err = {0};
        for (int64_t l = 0; l < cases[i].last; l++) {
            c.moe_layer[l] = true;
        }
        check_ok(condenser_counts(count, &o, &c, &err), &err);
        for (int64_t l = 0; l < c.n_layers; l++) {
            assert_int_equal(count[l], cases[i].want[l]);
        }
        assert_int_equal(condenser_most(&o, &c), 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_of_condensers),
        cmocka_unit_test(thirds_and_totals),
        cmocka_unit_test(experts_by_name),
        cmocka_unit_test(phase_1_must_leave_something_to_choose_by),
        cmocka_unit_test(rates_are_not_negative),
        cmocka_unit_test(a_model_without_experts_has_no_router),
        cmocka_unit_test(an_unknown_name_is_an_error),
        cmocka_unit_test(thirds_are_of_the_layers_up_to_the_last_with_experts),
    };
    return cmocka_run_group_tests_name("routing checks", tests, NULL, NULL);
}
