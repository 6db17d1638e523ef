// AdamW on leaves in fewer bits: 8-bit states against the rule of bitsandbytes and torchao
// (fixtures/ops/adamw_states.safetensors, written by fixtures/make_states.py), stochastic rounding by its
// mean, and by what it must not change.
#include "ops_test.h"

#include "base/codes.h"
#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>

static const struct adamw fast = {1e-2, 0.9, 0.95, 1e-8, 0, 0.1, 0.05};

// A leaf of n elements with moments of a type.
static struct adamw_leaf leaf(enum dtype w, enum dtype states, int64_t n)
{
    struct adamw_leaf x = {.w = make(w, 1, n),
                           .m = make(states, 1, n),
                           .v = make(states, 1, n),
                           .m_scale = tensor_absent(),
                           .v_scale = tensor_absent(),
                           .copy = tensor_absent(),
                           .grad = make(DTYPE_F32, 1, n),
                           .decays = true};
    if (states != DTYPE_U8) return x;
    x.m_scale = make(DTYPE_F32, 1, ceil_div(n, CODE_BLOCK));
    x.v_scale = make(DTYPE_F32, 1, ceil_div(n, CODE_BLOCK));
    return x;
}

static void codes_are_the_published_ones(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, "ops/adamw_states.safetensors");
    const struct tensor with = fixture_get(&f, "signed"), without = fixture_get(&f, "unsigned");
    for (int i = 0; i < CODES; i++) {
        const double a = (double)codes_signed()[i], b = (double)data_f32(with)[i];
        const double c = (double)codes_unsigned()[i], d = (double)data_f32(without)[i];
        assert_true(fabs(a - b) <= 2e-7 * fabs(b) && fabs(c - d) <= 2e-7 * fabs(d));
    }
    fixture_close(&f);
}

static void eight_bits_follow_the_reference(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, "ops/adamw_states.safetensors");
    const struct tensor w = fixture_get(&f, "w");
    const struct adamw_leaf x = leaf(DTYPE_F32, DTYPE_U8, tensor_count(w));
    memcpy(x.w.data, w.data, tensor_bytes(w));
    for (int i = 0; i < 12; i++) {
        char key[32];
        struct adamw p = {1e-2, 0.9, 0.95, 1e-8, 0.1, 1 - pow(0.9, i + 1), 1 - pow(0.95, i + 1)};
        snprintf(key, sizeof key, "grad.%d", i);
        memcpy(x.grad.data, fixture_get(&f, key).data, tensor_bytes(x.grad));
        adamw_one(&x, &p, 1, 0, 0);
        snprintf(key, sizeof key, "w.%d", i);
        if (fixture_has(&f, key)) check_close(key, x.w, fixture_get(&f, key), 3e-7);
    }
    // A rounding error before the encoding may move a value over a border now and then, by one code.
    const struct tensor *codes[] = {&x.m, &x.v};
    const char *names[] = {"m", "v"};
    int64_t off = 0;
    for (int k = 0; k < 2; k++) {
        const uint8_t *got = codes[k]->data, *want = fixture_get(&f, names[k]).data;
        for (int64_t i = 0; i < tensor_count(w); i++) {
            assert_true(abs(got[i] - want[i]) <= 1);
            off += got[i] != want[i];
        }
    }
    assert_true(off <= 4);
    check_close("m_scale", x.m_scale, fixture_get(&f, "m_scale"), 1e-6);
    check_close("v_scale", x.v_scale, fixture_get(&f, "v_scale"), 1e-6);
    fixture_close(&f);
}

static uint8_t nearest(const float *code, float x)
{
    int best = 0;
    for (int i = 1; i < CODES; i++) {
        const double now = fabs((double)code[i] - (double)x);
        if (now < fabs((double)code[best] - (double)x)) best = i;
    }
    return (uint8_t)best;
}

// With beta1 = beta2 = 0 the moments are g and g^2: values over all decades, borders between codes, 0.
static void every_value_gets_its_nearest_code(void **state)
{
    (void)state;
    const int64_t n = 64 * CODE_BLOCK;
    const struct adamw_leaf x = leaf(DTYPE_F32, DTYPE_U8, n);
    const struct adamw p = {.lr = 0, .eps = 1e-8, .correction1 = 1, .correction2 = 1};
    float *g = data_f32(x.grad);
    struct rng r = {.seed = 4};
    for (int64_t i = 0; i < n; i++) {
        g[i] = (float)((rng_uniform(&r) - 0.5) * pow(10, -8 * rng_uniform(&r)));
        if (i % 3 == 0) g[i] = (codes_signed()[i % 255] + codes_signed()[i % 255 + 1]) / 2;
        if (i % CODE_BLOCK == 7) g[i] = -1; // the scale
        if (i % CODE_BLOCK == 8) g[i] = 0;
    }
    const struct tensor kept = as(DTYPE_F32, x.grad); // an update takes it
    adamw_one(&x, &p, 1, 0, 0);
    g = data_f32(kept);
    const uint8_t *m = x.m.data, *v = x.v.data;
    for (int64_t i = 0; i < n; i++) {
        const float square = g[i] * g[i];
        uint8_t a = nearest(codes_signed(), g[i]), b = nearest(codes_unsigned(), square);
        if (a == 127 && g[i] < 0) a--; // a sign is kept,
        if (b == 0 && square > 0) b++; // and a v above 0
        const float border = (codes_signed()[a] + codes_signed()[a + (m[i] > a) - (m[i] < a)]) / 2;
        const bool between = m[i] != a && fabsf(border - g[i]) <= 1e-7f * fabsf(g[i]);
        if ((m[i] != a && !between) || v[i] != b) {
            fail_msg("%.9g: codes %d and %d, expected %d and %d", (double)g[i], m[i], v[i], a, b);
        }
    }
}

static void check_share(const char *what, double count, double share, int64_t n)
{
    const double deviation = sqrt((double)n * share * (1 - share));
    assert_true(share > 0.02 && share < 0.98);
    if (fabs(count - share * (double)n) < 4 * deviation) return;
    fail_msg("%s: %.0f of %d rounded up, a share of %.4f expected", what, count, (int)n, share);
}

// What many elements of one gradient become: the mean over them is the value itself, its two neighbours in
// BF16 are all that occurs, and m, v and w are rounded independently of each other.
static void stochastic_rounding_has_the_right_mean(void **state)
{
    (void)state;
    enum { N = 16384 };
    static bool up[3][N];
    const struct adamw_leaf x = leaf(DTYPE_BF16, DTYPE_BF16, N);
    const float g = 0.7123f;
    const struct adamw p = {.lr = 0.3 / 128, .eps = 1e-30, .correction1 = 1, .correction2 = 1};
    for (int64_t i = 0; i < N; i++) {
        data_f32(x.grad)[i] = -g;
        ((uint16_t *)x.w.data)[i] = bf16_from_f32(1);
    }
    adamw_one(&x, &p, 1, 11, 12); // m = -g, v = g^2, w = 1 + lr; a step of BF16 at 1: 1/128
    const struct tensor *got[] = {&x.m, &x.v, &x.w};
    const float want[] = {-g, g * g, 1 + 0.3f / 128};
    double share[3];
    for (int k = 0; k < 3; k++) {
        const float low = f32_from_bits(f32_bits(want[k]) & 0xffff0000U);
        const float high = f32_from_bits((f32_bits(want[k]) & 0xffff0000U) + 0x10000U);
        share[k] = (double)((want[k] - low) / (high - low));
        double ups = 0;
        for (int64_t i = 0; i < N; i++) {
            const float y = f32_from_bf16(((uint16_t *)got[k]->data)[i]);
            assert_true(y == low || y == high);
            up[k][i] = y == high;
            ups += up[k][i];
        }
        check_share("one", ups, share[k], N);
    }
    for (int k = 0; k < 3; k++) {
        const int other = (k + 1) % 3;
        double both = 0;
        for (int64_t i = 0; i < N; i++) {
            both += up[k][i] && up[other][i];
        }
        check_share("two", both, share[k] * share[other], N);
    }
}

// Drawn by seed, stream and element alone; what BF16 holds exactly stays as it is.
static void draws_depend_on_their_place_only(void **state)
{
    (void)state;
    const int64_t n = 5000;
    struct adamw_leaf x[4];
    static const uint64_t seed[] = {1, 1, 2, 1}, stream[] = {5, 5, 5, 6};
    for (int k = 0; k < 4; k++) {
        x[k] = leaf(DTYPE_BF16, DTYPE_BF16, n);
        for (int step = 0; step < 3; step++) {
            fill_random(x[k].grad, (uint32_t)step);
            x[k].stream = stream[k];
            adamw_one(&x[k], &fast, 1, seed[k], (uint64_t)step);
        }
    }
    assert_true(same_bytes(x[0].w, x[1].w) && same_bytes(x[0].m, x[1].m));
    assert_false(same_bytes(x[0].w, x[2].w) || same_bytes(x[0].m, x[2].m));
    assert_false(same_bytes(x[0].w, x[3].w) || same_bytes(x[0].v, x[3].v));
    fill(x[0].grad, 0);
    const struct adamw still = {
        .lr = 0, .beta1 = 1, .beta2 = 1, .correction1 = 1, .correction2 = 1};
    const struct tensor before = as(DTYPE_F32, x[0].w), m = as(DTYPE_F32, x[0].m);
    adamw_one(&x[0], &still, 1, 3, 4);
    assert_true(same_bytes(before, as(DTYPE_F32, x[0].w)));
    assert_true(same_bytes(m, as(DTYPE_F32, x[0].m)));
    for (uint32_t r = 0; r < 0x10000U; r += 0x111) {
        assert_int_equal(bf16_from_f32_random(1.5f, r), bf16_from_f32(1.5f));
        assert_int_equal(bf16_from_f32_random(INFINITY, r), 0x7f80);
        assert_true(isnan(f32_from_bf16(bf16_from_f32_random(-NAN, r))));
    }
}

// Float32 states under a BF16 value: the moments are those of adamw bit for bit.
static void states_and_value_are_independent(void **state)
{
    (void)state;
    const int64_t n = 3000;
    const struct adamw_leaf a = leaf(DTYPE_F32, DTYPE_F32, n), b = leaf(DTYPE_BF16, DTYPE_F32, n);
    struct adamw_leaf c = leaf(DTYPE_F32, DTYPE_BF16, n);
    c.copy = make(DTYPE_BF16, 1, n);
    fill_random(a.grad, 1);
    memcpy(b.grad.data, a.grad.data, tensor_bytes(a.grad));
    memcpy(c.grad.data, a.grad.data, tensor_bytes(a.grad));
    adamw_one(&a, &fast, 0.5f, 1, 2);
    adamw_one(&b, &fast, 0.5f, 1, 2);
    adamw_one(&c, &fast, 0.5f, 1, 2);
    assert_true(same_bytes(a.m, b.m) && same_bytes(a.v, b.v));
    check_close("w in bf16", b.w, a.w, 5e-3);
    assert_true(same_bytes(a.w, c.w)); // the first step's states are used before they are rounded
    assert_true(same_bytes(c.copy, as(DTYPE_BF16, c.w)));
    check_close("m in bf16", c.m, a.m, 5e-3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(codes_are_the_published_ones, release_all),
        cmocka_unit_test_teardown(eight_bits_follow_the_reference, release_all),
        cmocka_unit_test_teardown(every_value_gets_its_nearest_code, release_all),
        cmocka_unit_test_teardown(stochastic_rounding_has_the_right_mean, release_all),
        cmocka_unit_test_teardown(draws_depend_on_their_place_only, release_all),
        cmocka_unit_test_teardown(states_and_value_are_independent, release_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
