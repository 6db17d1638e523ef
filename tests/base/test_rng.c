// The generator is Philox 4x32-10 with the word order of its authors (kat_vectors of Random123), of whose
// four words rng_at gives the first two; and what is drawn from it has the distribution it says.
#include "support.h"

#include "base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t words(uint32_t first, uint32_t second)
{
    return (uint64_t)second << 32 | first;
}

static void agrees_with_the_published_vectors(void **state)
{
    (void)state;
    assert_true(rng_at(0, 0, 0) == words(0x6627e8d5, 0xe169c58d));
    assert_true(rng_at(UINT64_MAX, UINT64_MAX, UINT64_MAX) == words(0x408f276d, 0x41c83b0e));
    // counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0
    assert_true(rng_at(words(0xa4093822, 0x299f31d0), words(0x13198a2e, 0x03707344),
                       words(0x243f6a88, 0x85a308d3)) == words(0xd16cfe09, 0x94fdcceb));
}

static void draws_follow_from_the_position(void **state)
{
    (void)state;
    struct rng r = {.seed = 5, .stream = 6, .counter = 7};
    assert_true(rng_next(&r) == rng_at(5, 6, 7));
    assert_true(rng_next(&r) == rng_at(5, 6, 8));
    assert_int_equal(r.counter, 9);
    struct rng again = {.seed = 5, .stream = 6, .counter = 9};
    assert_true(rng_uniform(&r) == rng_uniform(&again));
    assert_true(rng_normal(&r) == rng_normal(&again));
    assert_int_equal(r.counter, 12);
}

static void uniform_and_normal_have_their_moments(void **state)
{
    (void)state;
    const int N = 200000;
    struct rng r = {.seed = 1};
    double u1 = 0, u2 = 0, n1 = 0, n2 = 0, n4 = 0;
    for (int i = 0; i < N; i++) {
        const double u = rng_uniform(&r), z = rng_normal(&r);
        assert_true(u >= 0 && u < 1);
        u1 += u, u2 += u * u;
        n1 += z, n2 += z * z, n4 += z * z * z * z;
    }
    const double e = 5 / sqrt(N); // five standard errors, times the deviation of each
    assert_true(fabs(u1 / N - 0.5) < e * 0.29 && fabs(u2 / N - 1.0 / 3) < e * 0.3);
    assert_true(fabs(n1 / N) < e && fabs(n2 / N - 1) < e * 1.42 && fabs(n4 / N - 3) < e * 9.8);
}

static void below_is_unbiased(void **state)
{
    (void)state;
    const int N = 60000;
    struct rng r = {.seed = 2};
    int count[6] = {0};
    for (int i = 0; i < N; i++) {
        const int64_t x = rng_below(&r, 6);
        assert_true(x >= 0 && x < 6);
        count[x]++;
    }
    double chi = 0;
    for (int i = 0; i < 6; i++) {
        chi += pow(count[i] - N / 6.0, 2) / (N / 6.0);
    }
    assert_true(chi < 25.7); // 5 degrees of freedom: one in ten thousand
    assert_int_equal(rng_below(&r, 1), 0);
    // Just over half of 2^63: a modulo would favour the lower numbers two to one.
    const int64_t n = (INT64_C(1) << 62) + (INT64_C(1) << 61);
    int low = 0;
    for (int i = 0; i < 3000; i++) {
        low += rng_below(&r, n) < n / 2;
    }
    assert_true(low > 1350 && low < 1650);
}

static void a_shuffle_is_a_fair_permutation(void **state)
{
    (void)state;
    enum { N = 24000 };
    struct rng r = {.seed = 3};
    int at[4][4] = {{0}};
    for (int i = 0; i < N; i++) {
        int64_t x[4] = {0, 1, 2, 3};
        bool seen[4] = {false};
        rng_shuffle(&r, x, 4);
        for (int k = 0; k < 4; k++) {
            assert_false(seen[x[k]]);
            seen[x[k]] = true;
            at[x[k]][k]++;
        }
    }
    for (int i = 0; i < 16; i++) {
        assert_true(abs(at[i / 4][i % 4] - N / 4) < 5 * 68); // five deviations of sqrt(N p (1 - p))
    }
}

static void filled_normals_are_box_muller(void **state)
{
    (void)state;
    enum { N = 10001 };
    static float x[N], part[N];
    rng_fill_normal(x, N, 0.5f, 8, 9, 100);
    for (int i = 0; i + 1 < N; i += 2) {
        const uint64_t bits = rng_at(8, 9, 50 + (uint64_t)i / 2);
        const double u = ((double)((uint32_t)bits >> 9) + 0.5) * 0x1p-23;
        const double angle = 6.283185307179586 * (double)(bits >> 40) * 0x1p-24;
        const double radius = 0.5 * sqrt(-2 * log(u));
        assert_true(fabs((double)x[i] - radius * cos(angle)) < 2e-6);
        assert_true(fabs((double)x[i + 1] - radius * sin(angle)) < 2e-6);
    }
    rng_fill_normal(part, 333, 0.5f, 8, 9, 2100); // any piece of it, alone
    assert_memory_equal(part, x + 2000, 333 * sizeof *x);
}

// The same on every compiler and machine: a sum over bits, kept from the first version.
static void filled_normals_never_change(void **state)
{
    (void)state;
    static float x[4096];
    rng_fill_normal(x, 4096, 0.02f, 1, 2, 0);
    uint64_t hash = 0xcbf29ce484222325U;
    for (int i = 0; i < 4096; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        hash = (hash ^ bits) * 0x100000001b3U;
    }
    assert_true(hash == UINT64_C(0xb6da7325cd13e26e));
}

static void filled_uniforms_are_the_words_of_the_stream(void **state)
{
    (void)state;
    enum { N = 100001 };
    static float x[N], part[77];
    double mean = 0, square = 0;
    rng_fill_uniform(x, N, 0.25f, 3, 4, 60);
    for (int i = 0; i < N; i++) {
        const uint64_t bits = rng_at(3, 4, 30 + (uint64_t)i / 2) >> (i % 2 ? 32 : 0);
        const double want = (((double)((uint32_t)bits >> 8) + 0.5) * 0x1p-23 - 1) * 0.25;
        assert_true(fabs((double)x[i] - want) < 2e-8 && fabsf(x[i]) < 0.25f);
        mean += (double)x[i] / (double)N, square += (double)x[i] * (double)x[i] / (double)N;
    }
    assert_true(fabs(mean) < 0.003 && fabs(square - 0.0625 / 3) < 3e-4);
    rng_fill_uniform(part, 77, 0.25f, 3, 4, 60 + 500); // any piece of it, alone
    assert_memory_equal(part, x + 500, sizeof part);
}

static void many_are_those_of_one_by_one(void **state)
{
    (void)state;
    uint64_t x[77];
    const uint64_t first = UINT64_C(0xffffffff) - 30; // over the border of the lower word
    rng_fill(x, 77, UINT64_C(0x123456789abcdef0), UINT64_C(0xfedcba9876543210), first);
    for (uint64_t i = 0; i < 77; i++) {
        assert_true(x[i] ==
                    rng_at(UINT64_C(0x123456789abcdef0), UINT64_C(0xfedcba9876543210), first + i));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_the_published_vectors),
        cmocka_unit_test(many_are_those_of_one_by_one),
        cmocka_unit_test(draws_follow_from_the_position),
        cmocka_unit_test(uniform_and_normal_have_their_moments),
        cmocka_unit_test(below_is_unbiased),
        cmocka_unit_test(a_shuffle_is_a_fair_permutation),
        cmocka_unit_test(filled_normals_are_box_muller),
        cmocka_unit_test(filled_normals_never_change),
        cmocka_unit_test(filled_uniforms_are_the_words_of_the_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
