// Ops on single elements, sums, and memory.
#include "ops_test.h"

static struct fixture ref;

static void add_and_bias(enum dtype t)
{
    const struct tensor a = as(t, get(&ref, "a")), b = as(t, get(&ref, "b"));
    const struct tensor y = like(t, a), bias = get(&ref, "bias");
    cpu_ops.add(y, a, b);
    check_close("add", y, get(&ref, "add"), limit_of[t]);
    const struct tensor in_place = as(t, b);
    cpu_ops.add(in_place, a, in_place);
    assert_true(same_bytes(in_place, y));

    const struct tensor biased = as(t, a), dbias = make(DTYPE_F32, 1, bias.dim[0]);
    cpu_ops.bias_forward(biased, bias);
    check_close("bias", biased, get(&ref, "biased"), limit_of[t]);
    const struct tensor again = as(t, a);
    cpu_ops.bias_forward(again, as(t, bias));
    check_close("bias of A's type", again, get(&ref, "biased"), limit_of[t]);
    fill(dbias, 2);
    cpu_ops.bias_backward(dbias, as(t, get(&ref, "dy")));
    check_close("dbias", minus(dbias, 2), get(&ref, "dbias"), limit_of[t]);
}

static void test_add_and_bias(void **state)
{
    (void)state;
    add_and_bias(DTYPE_F32);
    add_and_bias(DTYPE_BF16);
}

static void clamp_and_scale(enum dtype t)
{
    const struct tensor y = as(t, get(&ref, "a")), dy = as(t, get(&ref, "dy"));
    cpu_ops.clamp_forward(y, 0.75f);
    check_close("clamp", y, get(&ref, "clamped"), limit_of[t]);
    cpu_ops.clamp_backward(dy, y, 0.75f);
    // In BF16 a value just below the limit may round up to it.
    check_close("clamp backward", dy, get(&ref, "dclamped"), t == DTYPE_F32 ? 1e-6 : 0.1);
    const struct tensor x = as(t, get(&ref, "a"));
    cpu_ops.scale(x, -1.5f);
    check_close("scale", x, get(&ref, "scaled"), limit_of[t]);
}

static void test_clamp_and_scale(void **state)
{
    (void)state;
    clamp_and_scale(DTYPE_F32);
    clamp_and_scale(DTYPE_BF16);
    const struct tensor odd = make(DTYPE_BF16, 1, 2); // a limit that BF16 does not have
    fill(odd, 9);
    const struct tensor grad = like(DTYPE_BF16, odd), zero = like(DTYPE_BF16, odd);
    fill(grad, 1);
    cpu_ops.clamp_forward(odd, 8.01f);
    cpu_ops.clamp_backward(grad, odd, 8.01f);
    assert_true(same_bytes(grad, zero));
}

static void test_sums(void **state)
{
    (void)state;
    struct tensor out = make(DTYPE_F64, 1, 1);
    *(double *)out.data = 3;
    cpu_ops.sum(out, get(&ref, "a"));
    assert_true(fabs(*(double *)out.data - 3 - (double)*data_f32(get(&ref, "sum"))) < 1e-5);
    *(double *)out.data = -1;
    cpu_ops.sum_squares(out, get(&ref, "a"));
    assert_true(fabs(*(double *)out.data + 1 - (double)*data_f32(get(&ref, "squares"))) < 3e-4);
}

static void test_sigmoid(void **state)
{
    (void)state;
    const struct tensor x = get(&ref, "sigmoid_x"), y = like(DTYPE_F32, x), dy = get(&ref, "dy");
    cpu_ops.sigmoid_forward(y, x);
    check_close("sigmoid", y, get(&ref, "sigmoid"), 1e-6);
    cpu_ops.sigmoid_backward(dy, dy, y);
    check_close("sigmoid backward", dy, get(&ref, "dsigmoid"), 1e-6);
    const struct tensor far = make(DTYPE_F32, 1, 4);
    memcpy(far.data, (float[]){-200, 200, -INFINITY, NAN}, 16);
    cpu_ops.sigmoid_forward(far, far);
    assert_true(data_f32(far)[0] < 1e-30f && data_f32(far)[1] == 1.0f && data_f32(far)[2] == 0.0f);
    assert_true(isnan(data_f32(far)[3]));
}

static void test_exponential(void **state)
{
    (void)state;
    double worst = 0;
    for (double x = -86.9; x < 88; x += 0.00037) {
        const double want = exp((double)(float)x);
        worst = fmax(worst, fabs((double)exp_f32((float)x) - want) / want);
    }
    if (worst > 2e-7) fail_msg("relative error of exp_f32: %.3g", worst);
    assert_true(exp_f32(0) == 1.0f && exp_f32(-0.0f) == 1.0f);
    assert_true(exp_f32(-INFINITY) == 0.0f && exp_f32(-1e30f) == 0.0f && exp_f32(-100) == 0.0f);
    assert_true(isnan(exp_f32(NAN)));
}

static void test_convert(void **state)
{
    (void)state;
    const enum dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F64};
    const struct tensor x = get(&ref, "a");
    for (size_t i = 0; i < 4; i++) {
        for (size_t j = 0; j < 4; j++) {
            const struct tensor from = as(types[i], x), y = like(types[j], x);
            cpu_ops.convert(y, from);
            assert_true(same_bytes(y, as(types[j], from)));
        }
    }
    // All 16-bit floats, at an odd address.
    const struct tensor all = make(DTYPE_F16, 1, 65537), y = make(DTYPE_F32, 1, 65536);
    char *odd = (char *)all.data + 1;
    for (uint32_t h = 0; h < 65536; h++) {
        const uint16_t half = (uint16_t)h;
        memcpy(odd + 2 * h, &half, 2);
    }
    for (int bf16 = 0; bf16 < 2; bf16++) {
        cpu_ops.convert(y, tensor_1d(odd, bf16 ? DTYPE_BF16 : DTYPE_F16, 65536));
        for (uint32_t h = 0; h < 65536; h++) {
            const uint16_t half = (uint16_t)h;
            const float want = bf16 ? f32_from_bf16(half) : f32_from_f16(half);
            const float got = data_f32(y)[h];
            assert_true(f32_bits(got) == f32_bits(want) || (isnan(got) && isnan(want)));
        }
    }
}

static void test_memory(void **state)
{
    (void)state;
    const size_t sizes[] = {0, 1, 64, 4095, 4096, 3 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *p = cpu_ops.allocate(sizes[i]);
        assert_non_null(p);
        assert_true((uintptr_t)p % 64 == 0);
        for (size_t j = 0; j < sizes[i]; j += 61) {
            assert_true(p[j] == 0);
        }
        cpu_ops.release(p, sizes[i]);
    }
    assert_null(cpu_ops.allocate(SIZE_MAX));
    assert_null(cpu_ops.allocate(SIZE_MAX / 4));
    cpu_ops.release(NULL, 64);
    const struct tensor x = get(&ref, "a"), y = like(DTYPE_F32, x), zero = like(DTYPE_F32, x);
    cpu_ops.upload(y.data, x.data, tensor_bytes(x));
    assert_true(same_bytes(x, y));
    cpu_ops.zero(y);
    assert_true(same_bytes(y, zero));
    cpu_ops.download(y.data, x.data, tensor_bytes(x));
    assert_true(same_bytes(x, y));
    assert_true(cpu_scratch_bytes() > 0);
}

static int open_fixture(void **state)
{
    (void)state;
    fixture_open(&ref, "ops/elementwise.safetensors");
    return 0;
}

static int close_fixture(void **state)
{
    fixture_close(&ref);
    return release_all(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_add_and_bias, release_all),
        cmocka_unit_test_teardown(test_clamp_and_scale, release_all),
        cmocka_unit_test_teardown(test_sums, release_all),
        cmocka_unit_test_teardown(test_sigmoid, release_all),
        cmocka_unit_test(test_exponential),
        cmocka_unit_test_teardown(test_convert, release_all),
        cmocka_unit_test_teardown(test_memory, release_all),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
