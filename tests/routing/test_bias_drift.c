// tests/routing/test_bias_drift.c - what a moving bias does to the experts' load over many steps of random
// logits in which some experts are favoured: `sparsify` silences the tail, `balance` levels it; and what
// must not move it at all.
#include "routing_test.h"

enum { STEPS = 400, WINDOW = 50 };

static const struct shape shape = {.N = 64, .E = 12, .K = 3};

// Logits of a step: expert e is favoured by skew[e].
static void make_logits(float *z, const float *skew, struct rng *r)
{
    for (int64_t i = 0; i < shape.N * shape.E; i++) {
        z[i] = skew[i % shape.E] + (float)rng_normal(r);
    }
}

struct load {
    double share[64]; // of all slots, by expert
    double most, least;
    int64_t silent; // experts without a token
};

static void add_route(struct load *x, const struct layer *l)
{
    const int64_t slots = tensor_count(l->route.expert);
    for (int64_t i = 0; i < slots; i++) {
        x->share[data_i32(l->route.expert)[i]] += 1.0 / (double)(slots * WINDOW);
    }
}

static void finish(struct load *x)
{
    x->least = 1;
    for (int64_t e = 0; e < shape.E; e++) {
        x->most = fmax(x->most, x->share[e]);
        x->least = fmin(x->least, x->share[e]);
        x->silent += x->share[e] <= 0;
    }
}

// The load of the last WINDOW of STEPS steps.
static struct load simulate(const struct routing_options *o)
{
    struct load last = {0};
    struct layer l;
    struct rng r = {.seed = 11};
    float skew[64], z[64 * 64];
    for (int64_t e = 0; e < shape.E; e++) {
        skew[e] = 1.5F * (float)e / (float)shape.E;
    }
    layer_open(&l, &shape, "bias", o);
    for (int step = 0; step < STEPS; step++) {
        make_logits(z, skew, &r);
        layer_route(&l, z);
        l.routing->after_step(l.state, true);
        if (step >= STEPS - WINDOW) add_route(&last, &l);
    }
    layer_close(&l);
    finish(&last);
    return last;
}

// Where the bias enters, and what is counted: four combinations.
static struct routing_options combination(int i, enum bias_sign sign)
{
    return (struct routing_options){.bias_in = i % 2 ? BIAS_IN_LOGITS : BIAS_IN_SELECTION,
                                    .bias_usage = i / 2 ? BIAS_USAGE_COUNT : BIAS_USAGE_SOFT,
                                    .bias_sign = (int)sign};
}

static void sparsify_silences_the_tail(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct routing_options o = combination(i, BIAS_SPARSIFY);
        const struct load before = simulate(&o);
        assert_int_equal(before.silent, 0);
        o.bias_rate = 0.05;
        const struct load after = simulate(&o);
        print_message("sparsify %d: %d silent; most %.3f -> %.3f\n", i, (int)after.silent,
                      before.most, after.most);
        for (int64_t e = 0; e < shape.E / 2; e++) {
            assert_true(after.share[e] <= 0); // the less favoured half
        }
        assert_true(after.most > 1.4 * before.most);
    }
}

// Not for `soft` in `selection` (i = 0): the sum of p does not feel the choice, so that bias never rests.
static void balance_levels_the_load(void **state)
{
    (void)state;
    const double level = 1.0 / (double)shape.E;
    for (int i = 1; i < 4; i++) {
        struct routing_options o = combination(i, BIAS_BALANCE);
        const struct load before = simulate(&o);
        o.bias_rate = i % 2 ? 0.01 : 0.001;
        const struct load after = simulate(&o);
        print_message("balance %d: %.3f to %.3f -> %.3f to %.3f\n", i, before.least, before.most,
                      after.least, after.most);
        assert_true(before.least < 0.5 * level && before.most > 1.5 * level);
        assert_true(after.least > 0.9 * level && after.most < 1.1 * level);
    }
}

// The saved state after three steps; between them, perhaps, what must leave no trace.
static void three_steps(struct buf *saved, const struct routing_options *o, bool disturbed)
{
    struct layer l;
    struct rng r = {.seed = 12};
    struct error err = {0};
    float skew[64] = {0}, z[64 * 64], other[64 * 64];
    char path[1200];
    make_logits(other, skew, &(struct rng){.seed = 13});
    layer_open(&l, &shape, "bias", o);
    for (int step = 0; step < 3; step++) {
        make_logits(z, skew, &r);
        if (disturbed) {
            memcpy(l.z.data, other, tensor_bytes(l.z));
            const struct route_input in = layer_input(&l, false);
            l.routing->select(l.state, &l.route, &in); // an evaluation
            layer_route(&l, other);
            l.routing->after_step(l.state, false); // a step that was skipped
        }
        layer_route(&l, z);
        l.routing->after_step(l.state, true);
    }
    const char *dir = test_dir();
    check_ok(l.routing->save(l.state, dir, &err), &err);
    snprintf(path, sizeof path, "%s/moe_bias_states.json", dir);
    check_ok(file_read(&saved->data, &saved->size, path, 1 << 20, &err), &err);
    layer_close(&l);
}

static void only_steps_that_count_leave_a_trace(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct routing_options o = combination(i, BIAS_SPARSIFY);
        struct buf a = {0}, b = {0};
        o.bias_rate = 0.01;
        three_steps(&a, &o, false);
        three_steps(&b, &o, true);
        assert_int_equal(a.size, b.size);
        assert_memory_equal(a.data, b.data, a.size);
        buf_free(&a);
        buf_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sparsify_silences_the_tail),
        cmocka_unit_test(balance_levels_the_load),
        cmocka_unit_test(only_steps_that_count_leave_a_trace),
    };
    return cmocka_run_group_tests_name("bias drift", tests, NULL, NULL);
}
