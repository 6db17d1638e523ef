// tests/routing/test_condenser_choice.c - how many experts of each layer become condensers, and which,
// against values from Python (fixtures/make_routing.py, make_choices): random biases and uses of few
// levels, so that experts and whole layers tie; dense layers between; lists, thirds and shared totals.
#include "support.h"

#include "routing/condenser_choice.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum form { FORM_LIST, FORM_THIRDS, FORM_TOTAL }; // as make_routing.py numbers them
enum { FORM, RULE, SHARE, TOTAL, MOST, NUMBERS, OPTIONS };

struct choice {
    struct model_config config;
    struct routing_options options;
    char list[128];
    const float *bias, *usage; // (L,E)
    const int32_t *count;      // (L)
    const int32_t *experts;    // (L,E), -1 where there are no more
};

static const int32_t *row(const struct fixture *f, const char *name, int64_t i)
{
    const struct tensor t = fixture_get(f, name);
    return data_i32(t) + i * (tensor_count(t) / t.dim[0]);
}

static const float *real_row(const struct fixture *f, const char *name, int64_t i)
{
    const struct tensor t = fixture_get(f, name);
    return data_f32(t) + i * (tensor_count(t) / t.dim[0]);
}

static void choice_open(struct choice *c, const struct fixture *f, int64_t i)
{
    const struct tensor bias = fixture_get(f, "bias"); // (choices,L,E)
    const int32_t *o = row(f, "options", i), *numbers = row(f, "numbers", i);
    *c = (struct choice){.bias = real_row(f, "bias", i),
                         .usage = real_row(f, "usage", i),
                         .count = row(f, "count", i),
                         .experts = row(f, "experts", i)};
    c->config = (struct model_config){.n_layers = bias.dim[1], .n_experts = bias.dim[2]};
    c->config.experts_per_tok = c->config.n_experts;
    for (int64_t l = 0; l < c->config.n_layers; l++) {
        c->config.moe_layer[l] = row(f, "moe", i)[l];
    }
    int n = 0;
    for (int k = 0; k < o[NUMBERS]; k++) {
        n += snprintf(c->list + n, sizeof c->list - (size_t)n, "%s%d", k ? "," : "", numbers[k]);
    }
    c->options = (struct routing_options){.condenser_choice = o[RULE],
                                          .condenser_share = o[SHARE],
                                          .condenser_total = o[TOTAL],
                                          .condenser_max = o[MOST],
                                          .condenser_count = c->list,
                                          .condenser_gini_power = (double)*real_row(f, "power", i)};
    if (o[FORM] == FORM_THIRDS) c->options.condenser_thirds = c->list;
}

static void check_choice(const struct choice *c, const struct condensers *s, int64_t i)
{
    const int64_t E = c->config.n_experts;
    int64_t total = 0;
    for (int64_t l = 0; l < c->config.n_layers; l++) {
        total += s->count[l];
        if (s->count[l] != c->count[l])
            fail_msg("choice %d: %d in layer %d, %d expected", (int)i, (int)s->count[l], (int)l,
                     c->count[l]);
        for (int64_t k = 0; k < s->count[l]; k++) {
            if (s->expert[l][k] != c->experts[l * E + k])
                fail_msg("choice %d: layer %d: expert %d, %d expected", (int)i, (int)l,
                         s->expert[l][k], c->experts[l * E + k]);
        }
    }
    if (c->options.condenser_total > 0) assert_int_equal(total, c->options.condenser_total);
}

static void matches_python(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, "routing/choice.safetensors");
    for (int64_t i = 0; i < fixture_get(&f, "bias").dim[0]; i++) {
        struct choice c;
        struct condensers s = {0};
        struct error err = {0};
        choice_open(&c, &f, i);
        check_ok(condenser_check(&c.options, &c.config, &err), &err);
        check_ok(condenser_choose(&s, &c.options, &c.config, c.bias, c.usage, &err), &err);
        check_choice(&c, &s, i);
        for (int64_t l = 0; l < c.config.n_layers; l++) {
            assert_true(s.count[l] <= condenser_most(&c.options, &c.config));
        }
        condensers_free(&s);
    }
    fixture_close(&f);
}

static void gini_of_known_counts(void **state)
{
    (void)state;
    static const struct {
        double count[4], want;
    } known[] = {{{2, 2, 2, 2}, 0}, {{0, 8, 0, 0}, 0.75}, {{3, 1, 4, 2}, 0.25}, {{0, 0, 0, 0}, 0}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        double count[4];
        memcpy(count, known[i].count, sizeof count);
        assert_true(fabs(gini(count, 4) - known[i].want) <= 1e-15);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(matches_python),
                                       cmocka_unit_test(gini_of_known_counts)};
    return cmocka_run_group_tests_name("condenser choice", tests, NULL, NULL);
}
