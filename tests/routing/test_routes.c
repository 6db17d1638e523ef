// tests/routing/test_routes.c - what the route of every policy promises (METHODS, "Routing"), on random
// shapes, logits and biases: which experts, how often, in which order, and with which weights.
#include "routing_test.h"

enum { DRAWS = 300, MOST_EXPERTS = 24, MOST_TOKENS = 20 };

// A random layer: its shape, logits and bias. coarse: logits of few levels, so that experts tie.
struct draw {
    struct shape shape;
    float z[MOST_TOKENS * MOST_EXPERTS], bias[MOST_EXPERTS];
    char file[1200], count[16];
    int64_t r; // condensers, at most K
};

static void make_draw(struct draw *d, struct rng *r, bool coarse)
{
    const int64_t E = 2 + rng_below(r, MOST_EXPERTS - 1);
    *d = (struct draw){
        .shape = {1 + rng_below(r, MOST_TOKENS), E, 1 + rng_below(r, E), rng_below(r, 2) == 1}};
    for (int64_t i = 0; i < d->shape.N * E; i++) {
        d->z[i] = (float)(coarse ? (double)rng_below(r, 4) : rng_normal(r));
    }
    for (int64_t e = 0; e < E; e++) {
        d->bias[e] = (float)(0.3 * rng_normal(r));
    }
    d->r = 1 + rng_below(r, d->shape.K);
    snprintf(d->count, sizeof d->count, "%d", (int)d->r);
    snprintf(d->file, sizeof d->file, "%s/bias.json", test_dir());
    write_bias(d->file, d->bias, E);
}

// softmax(z + b) of a token; b may be NULL.
static void softmax(double *p, const float *z, const float *b, int64_t E)
{
    double sum = 0;
    for (int64_t e = 0; e < E; e++) {
        p[e] = exp((double)z[e] + (b ? (double)b[e] : 0));
        sum += p[e];
    }
    for (int64_t e = 0; e < E; e++) {
        p[e] /= sum;
    }
}

static int times(const int32_t *expert, int64_t n, int64_t e)
{
    int found = 0;
    for (int64_t s = 0; s < n; s++) {
        found += expert[s] == e;
    }
    return found;
}

// The first k of `expert` are distinct, come in descending order of the key, and none of the experts that
// are not among the first `all` has a larger key.
static void check_best(const int32_t *expert, int64_t k, int64_t all, const double *key, int64_t E)
{
    for (int64_t s = 0; s < k; s++) {
        assert_in_range(expert[s], 0, E - 1);
        assert_int_equal(times(expert, k, expert[s]), 1);
        if (s > 0) assert_true(key[expert[s]] <= key[expert[s - 1]] + 1e-6);
    }
    for (int64_t e = 0; k > 0 && e < E; e++) {
        if (!times(expert, all, e)) assert_true(key[e] <= key[expert[k - 1]] + 1e-6);
    }
}

// Weights are the p of their experts, divided by the sum of all slots where the model says so.
static void check_weights(const struct layer *l, int64_t n, int64_t S, const double *p)
{
    double sum = 0;
    for (int64_t s = 0; s < S; s++) {
        sum += p[experts_of(l, n)[s]];
    }
    for (int64_t s = 0; s < S; s++) {
        const double want = p[experts_of(l, n)[s]] / (l->shape.renormalize ? sum : 1);
        assert_true(fabs((double)weights_of(l, n)[s] - want) <= 1e-6);
    }
}

static void open_draw(struct layer *l, const struct draw *d, const char *routing,
                      struct routing_options o)
{
    o.condenser_count = d->count;
    layer_open(l, &d->shape, routing, &o);
    layer_route(l, d->z);
}

static void topk_takes_the_best(void **state)
{
    (void)state;
    struct rng r = {.seed = 1};
    for (int i = 0; i < DRAWS; i++) {
        struct draw d;
        struct layer l;
        double p[MOST_EXPERTS];
        make_draw(&d, &r, false);
        open_draw(&l, &d, "topk", (struct routing_options){0});
        for (int64_t n = 0; n < d.shape.N; n++) {
            softmax(p, d.z + n * d.shape.E, NULL, d.shape.E);
            check_best(experts_of(&l, n), d.shape.K, d.shape.K, p, d.shape.E);
            check_weights(&l, n, d.shape.K, p);
        }
        layer_close(&l);
    }
}

static void ties_go_to_the_lower_index(void **state)
{
    (void)state;
    static const char *const names[] = {"topk", "bias", "densemixer"};
    struct rng r = {.seed = 2};
    for (int i = 0; i < DRAWS; i++) {
        struct draw d;
        struct layer l;
        make_draw(&d, &r, true);
        open_draw(&l, &d, names[i % 3], (struct routing_options){0});
        for (int64_t n = 0; n < d.shape.N; n++) {
            const int32_t *e = experts_of(&l, n);
            const float *z = d.z + n * d.shape.E;
            check_best(e, d.shape.K, d.shape.K, (double[MOST_EXPERTS]){0}, d.shape.E);
            for (int64_t s = 1; s < d.shape.K; s++) {
                assert_true(z[e[s]] < z[e[s - 1]] || (z[e[s]] == z[e[s - 1]] && e[s] > e[s - 1]));
            }
            const int32_t last = e[d.shape.K - 1];
            for (int32_t x = 0; x < d.shape.E; x++) {
                if (times(e, d.shape.K, x)) continue;
                assert_true(z[x] < z[last] || (z[x] == z[last] && x > last));
            }
        }
        layer_close(&l);
    }
}

// `selection`: the choice sees p + b, the weights p. `logits`: both see softmax(z + b).
static void bias_enters_where_it_should(void **state)
{
    (void)state;
    struct rng r = {.seed = 3};
    for (int i = 0; i < DRAWS; i++) {
        struct draw d;
        struct layer l;
        double p[MOST_EXPERTS], key[MOST_EXPERTS];
        const bool logits = i % 2;
        make_draw(&d, &r, false);
        open_draw(&l, &d, "bias",
                  (struct routing_options){.bias_file = d.file,
                                           .bias_in = logits ? BIAS_IN_LOGITS : BIAS_IN_SELECTION});
        for (int64_t n = 0; n < d.shape.N; n++) {
            softmax(p, d.z + n * d.shape.E, logits ? d.bias : NULL, d.shape.E);
            for (int64_t e = 0; e < d.shape.E; e++) {
                key[e] = p[e] + (logits ? 0 : (double)d.bias[e]);
            }
            check_best(experts_of(&l, n), d.shape.K, d.shape.K, key, d.shape.E);
            check_weights(&l, n, d.shape.K, p);
        }
        layer_close(&l);
    }
}

// Are these r slots the experts of the r lowest biases, in ascending order?
static void check_condensers(const int32_t *expert, const struct draw *d)
{
    for (int64_t i = 0; i < d->r; i++) {
        int64_t lower = 0;
        for (int64_t e = 0; e < d->shape.E; e++) {
            lower += d->bias[e] < d->bias[expert[i]];
        }
        assert_true(lower < d->r);
        if (i > 0) assert_true(expert[i] > expert[i - 1]);
    }
}

// K experts a token, none twice: the best K - r outside the condensers, then the condensers.
static void paper_runs_k_experts_once(void **state)
{
    (void)state;
    struct rng r = {.seed = 4};
    for (int i = 0; i < DRAWS; i++) {
        struct draw d;
        struct layer l;
        double p[MOST_EXPERTS], key[MOST_EXPERTS];
        make_draw(&d, &r, false);
        open_draw(&l, &d, "condenser", (struct routing_options){.bias_file = d.file});
        const int64_t K = d.shape.K, E = d.shape.E;
        assert_int_equal(l.route.expert.dim[1], K);
        for (int64_t n = 0; n < d.shape.N; n++) {
            const int32_t *e = experts_of(&l, n);
            softmax(p, d.z + n * E, NULL, E);
            for (int64_t x = 0; x < E; x++) {
                key[x] = p[x] + (double)d.bias[x];
            }
            for (int64_t s = 0; s < K; s++) {
                assert_int_equal(times(e, K, e[s]), 1);
            }
            check_best(e, K - d.r, K, key, E);
            check_condensers(e + K - d.r, &d);
            check_weights(&l, n, K, p);
        }
        layer_close(&l);
    }
}

// K + r slots: the best K of all, then the condensers. One that is in both keeps both weights, each its p,
// so that it counts twice.
static void released_counts_a_duplicate_twice(void **state)
{
    (void)state;
    struct rng r = {.seed = 5};
    int64_t twice = 0, once = 0;
    for (int i = 0; i < DRAWS; i++) {
        struct draw d;
        struct layer l;
        double p[MOST_EXPERTS];
        make_draw(&d, &r, false);
        open_draw(
            &l, &d, "condenser",
            (struct routing_options){.bias_file = d.file, .condenser_preset = CONDENSER_RELEASED});
        const int64_t K = d.shape.K, E = d.shape.E, S = K + d.r;
        assert_int_equal(l.route.expert.dim[1], S);
        for (int64_t n = 0; n < d.shape.N; n++) {
            const int32_t *e = experts_of(&l, n);
            softmax(p, d.z + n * E, d.bias, E);
            check_best(e, K, K, p, E);
            check_condensers(e + K, &d);
            check_weights(&l, n, S, p);
            for (int64_t s = K; s < S; s++) {
                twice += times(e, S, e[s]) == 2;
                once += times(e, S, e[s]) == 1;
            }
        }
        layer_close(&l);
    }
    assert_true(twice > 100 && once > 100);
}

static void same_gradient(struct layer *a, struct layer *b, struct rng *r)
{
    const struct route_input in_a = layer_input(a, true), in_b = layer_input(b, true);
    struct tensor d[2], dz[2];
    for (int i = 0; i < 2; i++) {
        d[i] = host(DTYPE_F32, a->shape.N, a->shape.K);
        dz[i] = host(DTYPE_F32, a->shape.N, a->shape.E);
    }
    for (int64_t i = 0; i < tensor_count(d[0]); i++) {
        data_f32(d[0])[i] = data_f32(d[1])[i] = (float)rng_normal(r);
    }
    a->routing->backward(a->state, dz[0], tensor_absent(), d[0], &a->route, &in_a);
    b->routing->backward(b->state, dz[1], tensor_absent(), d[1], &b->route, &in_b);
    assert_memory_equal(dz[0].data, dz[1].data, tensor_bytes(dz[0]));
    for (int i = 0; i < 2; i++) {
        mem_free(d[i].data);
        mem_free(dz[i].data);
    }
}

static void a_bias_of_zero_is_topk(void **state)
{
    (void)state;
    struct rng r = {.seed = 6};
    for (int i = 0; i < DRAWS; i++) {
        struct draw d;
        struct layer a, b;
        make_draw(&d, &r, i % 3 == 0);
        open_draw(&a, &d, "topk", (struct routing_options){0});
        open_draw(&b, &d, "bias",
                  (struct routing_options){.bias_in = i % 2 ? BIAS_IN_LOGITS : BIAS_IN_SELECTION});
        assert_memory_equal(a.route.expert.data, b.route.expert.data, tensor_bytes(a.route.expert));
        assert_memory_equal(a.route.weight.data, b.route.weight.data, tensor_bytes(a.route.weight));
        same_gradient(&a, &b, &r);
        layer_close(&a);
        layer_close(&b);
    }
}

// E slots, every expert once; the first K are topk's bit for bit, the others weigh nothing.
static void densemixer_begins_with_topk(void **state)
{
    (void)state;
    struct rng r = {.seed = 7};
    for (int i = 0; i < DRAWS; i++) {
        struct draw d;
        struct layer a, b;
        make_draw(&d, &r, i % 3 == 0);
        open_draw(&a, &d, "topk", (struct routing_options){0});
        open_draw(&b, &d, "densemixer", (struct routing_options){0});
        const int64_t K = d.shape.K, E = d.shape.E;
        assert_int_equal(b.route.expert.dim[1], E);
        assert_int_equal(b.routing->slots(b.state, 0, false), K); // evaluation is topk
        for (int64_t n = 0; n < d.shape.N; n++) {
            assert_memory_equal(experts_of(&a, n), experts_of(&b, n), (size_t)K * sizeof(int32_t));
            assert_memory_equal(weights_of(&a, n), weights_of(&b, n), (size_t)K * sizeof(float));
            for (int64_t e = 0; e < E; e++) {
                assert_int_equal(times(experts_of(&b, n), E, e), 1);
                assert_true(e < K || weights_of(&b, n)[e] == 0.0F);
            }
        }
        layer_close(&a);
        layer_close(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(topk_takes_the_best),
        cmocka_unit_test(ties_go_to_the_lower_index),
        cmocka_unit_test(bias_enters_where_it_should),
        cmocka_unit_test(paper_runs_k_experts_once),
        cmocka_unit_test(released_counts_a_duplicate_twice),
        cmocka_unit_test(a_bias_of_zero_is_topk),
        cmocka_unit_test(densemixer_begins_with_topk),
    };
    return cmocka_run_group_tests_name("routes", tests, NULL, NULL);
}
