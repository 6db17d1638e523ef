// Every one of the 65,536 values of both half types is converted to float exactly, and every float that
// lies between two of them, or half-way, rounds as IEEE says: to the nearest, ties to the even one.
#include "support.h"

#include "base/dtype.h"

#include <math.h>
#include <string.h>

struct half {
    int exponent_bits, mantissa_bits;
    float (*to_f32)(uint16_t h);
    uint16_t (*from_f32)(float f);
};

static float bf16_to(uint16_t h)
{
    return f32_from_bf16(h);
}

static uint16_t bf16_from(float f)
{
    return bf16_from_f32(f);
}

static const struct half halves[] = {{8, 7, bf16_to, bf16_from},
                                     {5, 10, f32_from_f16, f16_from_f32}};

// The value of a bit pattern, from the definition of the format and not from shifts of it.
static double value_of(const struct half *t, uint16_t h)
{
    const int exponent = (h & 0x7fff) >> t->mantissa_bits;
    const int bias = (1 << (t->exponent_bits - 1)) - 1;
    const double mantissa = (h & ((1 << t->mantissa_bits) - 1)) * ldexp(1, -t->mantissa_bits);
    const double sign = h & 0x8000 ? -1 : 1;
    if (exponent == (1 << t->exponent_bits) - 1)
        return mantissa > 0 ? (double)NAN : sign * HUGE_VAL;
    if (exponent == 0) return sign * ldexp(mantissa, 1 - bias);
    return sign * ldexp(1 + mantissa, exponent - bias);
}

static void every_value_is_exact_and_comes_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        const struct half *t = &halves[i];
        for (uint32_t h = 0; h < 65536; h++) {
            const double want = value_of(t, (uint16_t)h);
            const float got = t->to_f32((uint16_t)h);
            const uint16_t back = t->from_f32(got);
            if (isnan(want)) {
                assert_true(isnan(got) && isnan(t->to_f32(back)));
                assert_int_equal(back & 0x8000, h & 0x8000);
                continue;
            }
            assert_true((double)got == want && !signbit(got) == !(h & 0x8000));
            assert_int_equal(back, h);
        }
    }
}

static void check_rounding(const struct half *t, uint16_t low)
{
    const uint16_t high = (uint16_t)(low + 1), even = low & 1 ? high : low;
    const double a = value_of(t, low);
    // One step above the largest finite value counts as where infinity begins.
    const double b =
        isfinite(value_of(t, high)) ? value_of(t, high) : 2 * a - value_of(t, (uint16_t)(low - 1));
    const float middle = (float)((a + b) / 2); // one bit more than the halves have: exact
    assert_int_equal(t->from_f32(middle), even);
    assert_int_equal(t->from_f32(nextafterf(middle, 0)), low);
    assert_int_equal(t->from_f32(nextafterf(middle, INFINITY)), high);
    assert_int_equal(t->from_f32(-middle), even | 0x8000);
    assert_int_equal(t->from_f32(-nextafterf(middle, 0)), low | 0x8000);
    assert_int_equal(t->from_f32(-nextafterf(middle, INFINITY)), high | 0x8000);
}

static void what_lies_between_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        const struct half *t = &halves[i];
        const int infinity = ((1 << t->exponent_bits) - 1) << t->mantissa_bits;
        for (int low = 0; low < infinity; low++) {
            check_rounding(t, (uint16_t)low);
        }
        assert_int_equal(t->from_f32(HUGE_VALF), infinity);
        assert_int_equal(t->from_f32(-3.4028234e38f), infinity | 0x8000); // the largest float
    }
}

// All pairs of types through one list of values that every type holds exactly.
static void converts_between_all_types(void **state)
{
    (void)state;
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F64};
    const double values[] = {0, 1, -2, 0.375, -96, 0x1p-14, 0x1p-20, 65280};
    enum { N = sizeof values / sizeof *values };
    double reference[4][N]; // storage, aligned for the widest
    for (int t = 0; t < 4; t++) {
        dtype_convert(reference[t], types[t], values, DTYPE_F64, N);
    }
    for (int from = 0; from < 4; from++) {
        for (int to = 0; to < 4; to++) {
            double out[N], back[N];
            dtype_convert(out, types[to], reference[from], types[from], N);
            assert_memory_equal(out, reference[to], N * dtype_size(types[to]));
            dtype_convert(back, DTYPE_F64, out, types[to], N);
            assert_memory_equal(back, values, sizeof values);
        }
    }
}

// The border lies half a unit beyond the largest number, and conversion agrees with it.
static void what_would_become_infinite_is_found(void **state)
{
    (void)state;
    const struct {
        enum dtype type;
        float holds, lost;
    } borders[] = {{DTYPE_F16, 0x1.ffdffep15F, 0x1.ffep15F},
                   {DTYPE_BF16, 0x1.fefffep127F, 0x1.ffp127F}};
    for (int i = 0; i < 2; i++) {
        float values[] = {1, NAN, INFINITY, -borders[i].holds, 0}, lost = 0;
        assert_true(dtype_holds(borders[i].type, values, 5, &lost));
        values[4] = -borders[i].lost;
        assert_false(dtype_holds(borders[i].type, values, 5, &lost));
        assert_true(lost == -borders[i].lost && dtype_holds(DTYPE_F32, values, 5, &lost));
        uint16_t out[5];
        float back[5];
        dtype_convert(out, borders[i].type, values, DTYPE_F32, 5);
        dtype_convert(back, DTYPE_F32, out, borders[i].type, 5);
        assert_true(isfinite(back[3]) && isinf(back[4]));
    }
}

static void sizes_and_names(void **state)
{
    (void)state;
    assert_int_equal(dtype_size(DTYPE_F32), 4);
    assert_int_equal(dtype_size(DTYPE_BF16), 2);
    assert_int_equal(dtype_size(DTYPE_F16), 2);
    assert_int_equal(dtype_size(DTYPE_F64), 8);
    assert_int_equal(dtype_size(DTYPE_I32), 4);
    assert_int_equal(dtype_size(DTYPE_I64), 8);
    assert_int_equal(dtype_size(DTYPE_U8), 1);
    assert_string_equal(dtype_name(DTYPE_BF16), "BF16");
    assert_string_equal(dtype_name(DTYPE_U8), "U8");
}

// The largest numbers are finite, the next bit pattern is not; one of many is seen.
static void what_is_not_finite_is_seen(void **state)
{
    (void)state;
    float f[] = {0, -3.4028234e38F, 1e-45F, 1, 2};
    uint16_t b[] = {0, 0x7f7f, 0xff7f, 1, 2}, h[] = {0, 0x7bff, 0xfbff, 1, 2};
    assert_true(dtype_finite(f, DTYPE_F32, 5));
    assert_true(dtype_finite(b, DTYPE_BF16, 5));
    assert_true(dtype_finite(h, DTYPE_F16, 5));
    f[4] = NAN, b[2] = 0xff80, h[1] = 0x7c01;
    assert_false(dtype_finite(f, DTYPE_F32, 5));
    assert_false(dtype_finite(b, DTYPE_BF16, 5));
    assert_false(dtype_finite(h, DTYPE_F16, 5));
    assert_true(dtype_finite(f, DTYPE_F32, 4));
    f[0] = -INFINITY;
    assert_false(dtype_finite(f, DTYPE_F32, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value_is_exact_and_comes_back),
        cmocka_unit_test(what_lies_between_rounds_to_nearest_even),
        cmocka_unit_test(converts_between_all_types),
        cmocka_unit_test(what_would_become_infinite_is_found),
        cmocka_unit_test(sizes_and_names),
        cmocka_unit_test(what_is_not_finite_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
