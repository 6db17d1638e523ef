// The tables of 8 bits against what the paper says of them (arXiv 2110.02861, section 2): ascending, every decade
// from 1e-6 to 1 with twice as many values as the one below, the means of equal parts, 0 and 1.
#include "support.h"

#include "base/codes.h"

#include <math.h>

static int within(const float *code, double low, double high)
{
    int n = 0;
    for (int i = 0; i < CODES; i++) {
        n += (double)code[i] > low && (double)code[i] < high;
    }
    return n;
}

static void decades(const float *code, int least)
{
    double top = 1e-6;
    for (int i = 0; i < 7; i++, top *= 10) {
        assert_int_equal(within(code, 0.1 * top, top), least << i);
    }
    for (int i = 1; i < CODES; i++) {
        assert_true(code[i] > code[i - 1]);
    }
    assert_true(code[CODES - 1] == 1.0f);
}

static void values_are_means_of_equal_parts(void **state)
{
    (void)state;
    const float *s = codes_signed(), *u = codes_unsigned();
    decades(s, 1);
    decades(u, 2);
    assert_true(u[0] == 0 && s[127] == 0);
    // The only part of the lowest decade with signs; the halves of it without.
    assert_true(fabs((double)s[128] - 0.55e-6) < 1e-12);
    assert_true(fabs((double)u[1] - 0.325e-6) < 1e-12 && fabs((double)u[2] - 0.775e-6) < 1e-12);
    // The highest: 64 parts of [0.1, 1] with signs, 128 without.
    assert_true(fabs((double)s[CODES - 2] - (1 - 0.45 / 64)) < 1e-6);
    assert_true(fabs((double)u[CODES - 2] - (1 - 0.45 / 128)) < 1e-6);
    assert_true(fabs((double)s[CODES - 3] - (1 - 3 * 0.45 / 64)) < 1e-6);
}

static void signs_mirror(void **state)
{
    (void)state;
    const float *s = codes_signed();
    for (int i = 0; i < 127; i++) {
        assert_true(s[i] == -s[254 - i]);
    }
    assert_ptr_equal(codes_signed(), s);
    assert_ptr_not_equal(codes_unsigned(), s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_means_of_equal_parts),
        cmocka_unit_test(signs_mirror),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
