// tests/routing/test_subset.c - a routing without some of a layer's experts: as if they had been cut out of the
// model (subset.h).
#include "routing_test.h"

#include "routing/subset.h"

enum { TOKENS = 5, EXPERTS = 6, CHOSEN = 2 };

static const struct shape shape = {.N = TOKENS, .E = EXPERTS, .K = CHOSEN, .renormalize = false};

static void fill_logits(float z[TOKENS * EXPERTS])
{
    struct rng r = {.seed = 3};
    for (int i = 0; i < TOKENS * EXPERTS; i++) {
        z[i] = (float)rng_normal(&r);
    }
}

struct cut {
    struct layer l;
    struct routing_subset s;
};

static void cut_open(struct cut *c, const char *routing, const struct routing_options *o)
{
    struct error err = {0};
    layer_open(&c->l, &shape, routing, o);
    check_ok(
        routing_subset_open(&c->s, &cpu_ops, &c->l.config, c->l.routing, c->l.state, TOKENS, &err),
        &err);
}

static void cut_close(struct cut *c)
{
    routing_subset_close(&c->s);
    routing_subset_close(&c->s); // twice is safe
    layer_close(&c->l);
}

static void cut_route(struct cut *c, const float *z)
{
    memcpy(c->l.z.data, z, tensor_bytes(c->l.z));
    const struct route_input in = layer_input(&c->l, false);
    c->s.table.select(c->s.state, &c->l.route, &in);
}

static bool among(const int32_t *list, int64_t n, int32_t e)
{
    for (int64_t i = 0; i < n; i++) {
        if (list[i] == e) return true;
    }
    return false;
}

// The best of the rest by z, and weights of a softmax over the rest.
static void check_cut(const struct cut *c, const float *z, const int32_t *out, int64_t n)
{
    for (int64_t t = 0; t < TOKENS; t++) {
        const int32_t *e = experts_of(&c->l, t);
        const float *row = z + t * EXPERTS;
        double sum = 0;
        for (int32_t k = 0; k < EXPERTS; k++) {
            if (!among(out, n, k)) sum += exp((double)row[k]);
        }
        for (int s = 0; s < CHOSEN; s++) {
            assert_false(among(out, n, e[s]));
            assert_true(fabs((double)weights_of(&c->l, t)[s] - exp((double)row[e[s]]) / sum) <
                        1e-6);
        }
        for (int32_t k = 0; k < EXPERTS; k++) {
            if (!among(out, n, k) && !among(e, CHOSEN, k)) assert_true(row[k] <= row[e[1]]);
        }
    }
}

static void the_rest_is_routed_as_a_smaller_model(void **state)
{
    (void)state;
    static const int32_t out[] = {4, 0, 3, 5};
    static const char *const names[] = {"topk", "bias"};
    float z[TOKENS * EXPERTS];
    fill_logits(z);
    for (int i = 0; i < 2; i++) {
        struct cut c;
        cut_open(&c, names[i], &(struct routing_options){0});
        assert_string_equal(c.s.table.name, names[i]);
        assert_int_equal(c.s.table.slots(c.s.state, 0, false), CHOSEN);
        cut_route(&c, z);
        check_cut(&c, z, out, 0); // nothing at first
        for (int64_t n = 4; n >= 0; n--) {
            routing_subset_exclude(&c.s, 0, out, n);
            cut_route(&c, z);
            check_cut(&c, z, out, n);
        }
        cut_close(&c);
    }
}

// A bias in the selection would choose an expert whose p is 0.
static void a_bias_does_not_bring_them_back(void **state)
{
    (void)state;
    static const float bias[EXPERTS] = {0, 9, 0, 0, 9, 0};
    static const int32_t out[] = {1};
    float z[TOKENS * EXPERTS];
    char path[1200];
    struct cut c;
    fill_logits(z);
    snprintf(path, sizeof path, "%s/bias.json", test_dir());
    write_bias(path, bias, EXPERTS);
    cut_open(&c, "bias", &(struct routing_options){.bias_file = path});
    routing_subset_exclude(&c.s, 0, out, 1);
    cut_route(&c, z);
    for (int64_t t = 0; t < TOKENS; t++) {
        assert_int_equal(experts_of(&c.l, t)[0], 4); // the other favourite
        assert_int_not_equal(experts_of(&c.l, t)[1], 1);
    }
    cut_close(&c);
}

static void what_the_policy_has_is_passed_on(void **state)
{
    (void)state;
    int64_t n = -1;
    struct cut c;
    cut_open(&c, "condenser", &(struct routing_options){.condenser_experts = "5,2"});
    const int32_t *e = c.s.table.always(c.s.state, 0, &n);
    assert_int_equal(n, 2);
    assert_true(e[0] == 2 && e[1] == 5);
    assert_null(c.s.table.active);
    cut_close(&c);
    cut_open(&c, "densemixer", &(struct routing_options){0});
    assert_int_equal(c.s.table.active(c.s.state, 0), CHOSEN);
    assert_int_equal(c.s.table.slots(c.s.state, 0, true), EXPERTS);
    assert_null(c.s.table.always);
    cut_close(&c);
}

static void *nothing(size_t bytes)
{
    (void)bytes;
    return NULL;
}

static void no_memory_is_an_error(void **state)
{
    (void)state;
    struct ops full = cpu_ops;
    struct layer l;
    struct routing_subset s;
    struct error err = {0};
    full.allocate = nothing;
    layer_open(&l, &shape, "topk", &(struct routing_options){0});
    check_error(routing_subset_open(&s, &full, &l.config, l.routing, l.state, TOKENS, &err), &err,
                "no memory for the excluded experts of 5 tokens");
    routing_subset_close(&s);
    mem_fail_at(1, false);
    check_error(routing_subset_open(&s, &cpu_ops, &l.config, l.routing, l.state, TOKENS, &err),
                &err, "no memory for the routing's state");
    routing_subset_close(&s);
    layer_close(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rest_is_routed_as_a_smaller_model),
        cmocka_unit_test(a_bias_does_not_bring_them_back),
        cmocka_unit_test(what_the_policy_has_is_passed_on),
        cmocka_unit_test(no_memory_is_an_error),
    };
    return cmocka_run_group_tests_name("routing subset", tests, NULL, NULL);
}
