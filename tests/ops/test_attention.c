// Attention over spans against torch in float64: causal, packed, windows, interleaved documents, rows
// that attend to nothing, and a cache.
#include "ops_test.h"

#include <stdio.h>

static struct tensor entry(struct fixture *f, const char *name, const char *key)
{
    char path[64];
    snprintf(path, sizeof path, "%s.%s", name, key);
    return get(f, path);
}

static void backward(struct fixture *f, const char *name, enum dtype t, const char *how)
{
    const struct attention_saved s = {as(t, entry(f, name, "do")), as(t, entry(f, name, "o")),
                                      entry(f, name, "lse"),       as(t, entry(f, name, "q")),
                                      as(t, entry(f, name, "k")),  as(t, entry(f, name, "v"))};
    const struct attention_grads d = {like(t, s.q), like(t, s.k), like(t, s.v)};
    fill(d.dq, NAN);
    fill(d.dk, NAN);
    fill(d.dv, NAN);
    const int64_t D = data_i32(entry(f, name, "head_dim"))[0];
    cpu_ops.attention_backward(&d, &s, entry(f, name, "span"), D, 0.4f);
    const double limit = t == DTYPE_F32 ? 2e-6 : 2e-2;
    char what[64];
    snprintf(what, sizeof what, "%s %s dq", name, how);
    check_close(what, d.dq, entry(f, name, "dq"), limit);
    snprintf(what, sizeof what, "%s %s dk", name, how);
    check_close(what, d.dk, entry(f, name, "dk"), limit);
    snprintf(what, sizeof what, "%s %s dv", name, how);
    check_close(what, d.dv, entry(f, name, "dv"), limit);
}

static void one_case(struct fixture *f, const char *name, enum dtype t)
{
    const struct tensor q = as(t, entry(f, name, "q")), k = as(t, entry(f, name, "k"));
    const struct tensor v = as(t, entry(f, name, "v")), o = like(t, q);
    const struct tensor lse = like(DTYPE_F32, entry(f, name, "lse"));
    const int64_t D = data_i32(entry(f, name, "head_dim"))[0];
    fill(o, NAN);
    cpu_ops.attention_forward(o, lse, q, k, v, entry(f, name, "span"), D, 0.4f);
    check_close(name, o, entry(f, name, "o"), t == DTYPE_F32 ? 1e-6 : 1e-2);
    check_close(name, lse, entry(f, name, "lse"), t == DTYPE_F32 ? 1e-6 : 1e-2);
    const struct tensor again = like(t, q);
    cpu_ops.attention_forward(again, tensor_absent(), q, k, v, entry(f, name, "span"), D, 0.4f);
    assert_true(same_bytes(o, again));

    cpu_configure(1, CPU_PRODUCTS_AUTO); // a task per part and head
    backward(f, name, t, "by parts");
    cpu_configure(64, CPU_PRODUCTS_AUTO); // a task per tile
    backward(f, name, t, "by tiles");
    cpu_configure(2, CPU_PRODUCTS_AUTO);
}

static void test_all_cases(void **state)
{
    (void)state;
    static const char *const cases[] = {"causal", "packed", "window", "interleaved",
                                        "empty",  "cache",  "decode"};
    struct fixture f;
    fixture_open(&f, "ops/attention.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        one_case(&f, cases[i], DTYPE_F32);
        one_case(&f, cases[i], DTYPE_BF16);
    }
    fixture_close(&f);
}

// Sizes beyond one tile in both directions, against sums in double.
struct large {
    int64_t N, H, G, D;
    struct tensor q, k, v, o, lse, span;
};

static double score(const struct large *a, int64_t n, int64_t h, int64_t m)
{
    double s = 0;
    const float *q = row_f32(a->q, n) + h * a->D, *k = row_f32(a->k, m) + h / (a->H / a->G) * a->D;
    for (int64_t d = 0; d < a->D; d++) {
        s += (double)q[d] * (double)k[d];
    }
    return 0.3 * s;
}

static void check_row(const struct large *a, int64_t n, int64_t h)
{
    const int64_t from = data_i32(a->span)[2 * n], to = data_i32(a->span)[2 * n + 1];
    double sum = 0, out[64] = {0};
    for (int64_t m = from; m <= to; m++) {
        const double p = exp(score(a, n, h, m));
        sum += p;
        const float *v = row_f32(a->v, m) + h / (a->H / a->G) * a->D;
        for (int64_t d = 0; d < a->D; d++) {
            out[d] += p * (double)v[d];
        }
    }
    const float *o = row_f32(a->o, n) + h * a->D;
    for (int64_t d = 0; d < a->D; d++) {
        assert_true(fabs((double)o[d] - out[d] / sum) < 2e-6);
    }
    assert_true(fabs((double)row_f32(a->lse, n)[h] - log(sum)) < 2e-6);
}

static struct large make_large(void)
{
    struct large a = {.N = 1400, .H = 4, .G = 2, .D = 20};
    a.q = random_tensor(DTYPE_F32, a.N, a.H * a.D, 1);
    a.k = random_tensor(DTYPE_F32, a.N, a.G * a.D, 2);
    a.v = random_tensor(DTYPE_F32, a.N, a.G * a.D, 3);
    a.o = make(DTYPE_F32, a.N, a.H * a.D);
    a.lse = make(DTYPE_F32, a.N, a.H);
    a.span = make(DTYPE_I32, a.N, 2);
    for (int64_t n = 0; n < a.N; n++) { // one document of 1200 rows, then one with a window of 90
        data_i32(a.span)[2 * n] = (int32_t)(n < 1200 ? 0 : max_i64(1200, n - 89));
        data_i32(a.span)[2 * n + 1] = (int32_t)n;
    }
    cpu_ops.attention_forward(a.o, a.lse, a.q, a.k, a.v, a.span, a.D, 0.3f);
    return a;
}

static void test_large_forward(void **state)
{
    (void)state;
    const struct large a = make_large();
    for (int64_t n = 0; n < a.N; n += 37) {
        check_row(&a, n, n % a.H);
    }
    check_row(&a, 1199, 3);
    check_row(&a, 1200, 0);
}

static double weighted_sum(const struct large *a, struct tensor weight)
{
    double sum = 0;
    cpu_ops.attention_forward(a->o, a->lse, a->q, a->k, a->v, a->span, a->D, 0.3f);
    for (int64_t i = 0; i < tensor_count(weight); i++) {
        sum += (double)data_f32(weight)[i] * (double)data_f32(a->o)[i];
    }
    return sum;
}

// <dO, o> moves by <dx, direction> per step along a direction: central differences on all of q, k, v.
static void test_large_backward(void **state)
{
    (void)state;
    const struct large a = make_large();
    const struct tensor dout = random_tensor(DTYPE_F32, a.N, a.H * a.D, 4);
    const struct attention_saved s = {dout, as(DTYPE_F32, a.o), as(DTYPE_F32, a.lse), a.q, a.k,
                                      a.v};
    const struct attention_grads d = {like(DTYPE_F32, a.q), like(DTYPE_F32, a.k),
                                      like(DTYPE_F32, a.v)};
    cpu_ops.attention_backward(&d, &s, a.span, a.D, 0.3f);
    const struct tensor input[] = {a.q, a.k, a.v}, grad[] = {d.dq, d.dk, d.dv};
    for (int i = 0; i < 3; i++) {
        const float step = 2e-3f;
        double expected = 0;
        // Along the gradient's sign every element counts, and none hides another.
        const struct tensor start = as(DTYPE_F32, input[i]);
        double value[2];
        for (int side = 0; side < 2; side++) {
            for (int64_t j = 0; j < tensor_count(start); j++) {
                const float sign = data_f32(grad[i])[j] < 0 ? -1.0f : 1.0f;
                data_f32(input[i])[j] = data_f32(start)[j] + (side ? step : -step) * sign;
            }
            value[side] = weighted_sum(&a, dout);
        }
        for (int64_t j = 0; j < tensor_count(start); j++) {
            expected += fabs((double)data_f32(grad[i])[j]);
        }
        memcpy(input[i].data, start.data, tensor_bytes(start));
        const double slope = (value[1] - value[0]) / (2 * (double)step);
        if (fabs(slope - expected) > 2e-3 * expected) {
            fail_msg("input %d: slope %.6g, gradient %.6g", i, slope, expected);
        }
    }
}

int main(void)
{
    cpu_configure(2, CPU_PRODUCTS_AUTO);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_all_cases, release_all),
        cmocka_unit_test_teardown(test_large_forward, release_all),
        cmocka_unit_test_teardown(test_large_backward, release_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
