// Router values, the choice of experts, and the moves of rows that follow from it.
#include "ops_test.h"

static void test_values(void **state)
{
    (void)state;
    struct fixture ref;
    fixture_open(&ref, "ops/router.safetensors");
    const struct tensor z = get(&ref, "z"), p = like(DTYPE_F32, z), dp = get(&ref, "dp");
    cpu_ops.softmax_forward(p, z);
    check_close("softmax", p, get(&ref, "p"), 1e-6);
    cpu_ops.softmax_backward(dp, dp, p); // in place
    check_close("softmax backward", dp, get(&ref, "dz"), 1e-6);

    const struct tensor index = like(DTYPE_I32, get(&ref, "index")),
                        w = like(DTYPE_F32, get(&ref, "w"));
    cpu_ops.topk(index, p);
    assert_true(same_bytes(index, get(&ref, "index")));
    cpu_ops.pick_forward(w, p, index);
    check_close("pick", w, get(&ref, "picked"), 1e-6);
    const struct tensor dw = get(&ref, "dw"), dpicked = like(DTYPE_F32, z);
    fill(dpicked, NAN);
    cpu_ops.pick_backward(dpicked, dw, index);
    check_close("pick backward", dpicked, get(&ref, "dp_picked"), 1e-6);

    const struct tensor y = get(&ref, "w"), sum = make(DTYPE_F32, 1, y.dim[0]);
    cpu_ops.normalize_forward(y, sum, y);
    check_close("normalize", y, get(&ref, "normalized"), 1e-6);
    check_close("sum", sum, get(&ref, "sum"), 1e-6);
    cpu_ops.normalize_backward(dw, dw, y, sum);
    check_close("normalize backward", dw, get(&ref, "dnormalized"), 1e-6);
    fixture_close(&ref);
}

static void test_topk_order(void **state)
{
    (void)state;
    static const struct {
        float key[6];
        int32_t want[6];
    } rows[] = {
        {{1, 3, 3, 2, 3, 0}, {1, 2, 4, 3, 0, 5}},
        {{0.0f, -0.0f, 0.0f, -1, 1, -0.0f}, {4, 0, 1, 2, 5, 3}},
        {{NAN, 1, NAN, -INFINITY, INFINITY, 0}, {4, 1, 5, 3, 0, 2}},
        {{NAN, NAN, NAN, NAN, NAN, NAN}, {0, 1, 2, 3, 4, 5}},
        {{-5, -4, -3, -2, -1, -1e-45f}, {5, 4, 3, 2, 1, 0}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (int64_t K = 1; K <= 6; K++) {
            int32_t index[6];
            cpu_ops.topk(tensor_2d(index, DTYPE_I32, 1, K),
                         tensor_2d((float *)(uintptr_t)rows[i].key, DTYPE_F32, 1, 6));
            assert_memory_equal(index, rows[i].want, (size_t)K * sizeof *index);
        }
    }
}

static void test_pick_repeats(void **state)
{
    (void)state;
    float dw[3] = {1, 2, 4}, dp[4] = {9, 9, 9, 9};
    int32_t index[3] = {2, 0, 2};
    cpu_ops.pick_backward(tensor_2d(dp, DTYPE_F32, 1, 4), tensor_2d(dw, DTYPE_F32, 1, 3),
                          tensor_2d(index, DTYPE_I32, 1, 3));
    assert_memory_equal(dp, ((float[]){2, 0, 5, 0}), sizeof dp);
}

static void test_add_slots(void **state)
{
    (void)state;
    double sum[4] = {1, 2, 3, 4};
    float w[6] = {.5f, .25f, 0, 2, 1, .125f};
    int32_t index[6] = {2, 0, 2, 3, 2, 0};
    const struct tensor s = tensor_1d(sum, DTYPE_F64, 4), i = tensor_2d(index, DTYPE_I32, 2, 3);
    cpu_ops.add_slots(s, i, tensor_2d(w, DTYPE_F32, 2, 3));
    assert_memory_equal(sum, ((double[]){1.375, 2, 4.5, 6}), sizeof sum);
    cpu_ops.add_slots(s, i, tensor_absent());
    assert_memory_equal(sum, ((double[]){3.375, 2, 7.5, 7}), sizeof sum);
}

enum { N = 5, S = 3, E = 4, C = 7 };
static int32_t expert[N * S] = {2, 0, 1, 2, 2, 0, 1, 2, 0, 0, 1, 2, 2, 1, 0};
static float weight[N * S] = {.5f, 0, .25f, 1, 2, -0.0f, .1f, .2f, .3f, 0, 0, 0, NAN, 1, .5f};

static void test_dispatch(void **state)
{
    (void)state;
    int32_t offsets[E + 1], slot[N * S], row[N * S];
    const struct dispatch d = {tensor_1d(offsets, DTYPE_I32, E + 1),
                               tensor_1d(slot, DTYPE_I32, N * S), tensor_2d(row, DTYPE_I32, N, S)};
    const struct tensor e = tensor_2d(expert, DTYPE_I32, N, S),
                        w = tensor_2d(weight, DTYPE_F32, N, S);
    cpu_ops.dispatch(&d, e, w, false, 0);
    assert_memory_equal(offsets, ((int32_t[]){0, 2, 5, 10, 10}), sizeof offsets);
    assert_memory_equal(slot, ((int32_t[]){8, 14, 2, 6, 13, 0, 3, 4, 7, 12}), 10 * sizeof *slot);
    for (int i = 0; i < N * S; i++) {
        assert_true(weight[i] == 0 ? row[i] == -1 : slot[row[i]] == i);
    }
    cpu_ops.dispatch(&d, e, w, true, 0);
    assert_memory_equal(offsets, ((int32_t[]){0, 3, 4, 5, 5}), sizeof offsets);
    assert_memory_equal(slot, ((int32_t[]){1, 5, 9, 10, 11}), 5 * sizeof *slot);
    float none[N * S] = {0};
    cpu_ops.dispatch(&d, e, tensor_2d(none, DTYPE_F32, N, S), false, 0);
    assert_memory_equal(offsets, ((int32_t[]){0, 0, 0, 0, 0}), sizeof offsets);
    assert_int_equal(row[7], -1);
}

static void gather_and_combine(enum dtype t)
{
    const struct dispatch d = {make(DTYPE_I32, 1, E + 1), make(DTYPE_I32, 1, N * S),
                               make(DTYPE_I32, N, S)};
    cpu_ops.dispatch(&d, tensor_2d(expert, DTYPE_I32, N, S), tensor_2d(weight, DTYPE_F32, N, S),
                     false, 0);
    const struct tensor x = random_tensor(t, N, C, 1), ys = make(t, N * S, C), y = make(t, N, C);
    cpu_ops.gather_tokens(ys, x, &d);
    for (int64_t r = 0; r < 10; r++) {
        const int64_t n = data_i32(d.slot)[r] / S;
        assert_true(same_bytes(tensor_rows(ys, r, 1), tensor_rows(x, n, 1)));
    }
    // Token n has as many copies as slots with weight: 2, 2, 3, 0, 3.
    const struct tensor want = as(DTYPE_F32, x);
    for (int64_t n = 0; n < N; n++) {
        for (int64_t c = 0; c < C; c++) {
            row_f32(want, n)[c] *= (float[]){2, 2, 3, 0, 3}[n];
        }
    }
    fill(y, NAN);
    cpu_ops.combine_slots(y, ys, &d, false);
    check_close("combine", y, want, limit_of[t]);
    fill(y, 1);
    cpu_ops.combine_slots(y, ys, &d, true);
    check_close("combine, added", minus(y, 1), want, limit_of[t]);
}

static void test_gather_and_combine(void **state)
{
    (void)state;
    gather_and_combine(DTYPE_F32);
    gather_and_combine(DTYPE_BF16);
}

static void rows_by_index(enum dtype t)
{
    int32_t order[3] = {4, 0, 2};
    const struct tensor index = tensor_1d(order, DTYPE_I32, 3), x = random_tensor(t, N, C, 3);
    const struct tensor y = make(t, 3, C), back = random_tensor(t, N, C, 4), kept = as(t, back);
    cpu_ops.gather_rows(y, x, index);
    for (int64_t m = 0; m < 3; m++) {
        assert_true(same_bytes(tensor_rows(y, m, 1), tensor_rows(x, order[m], 1)));
    }
    cpu_ops.place_rows(back, y, index);
    for (int64_t n = 0; n < N; n++) {
        assert_true(same_bytes(tensor_rows(back, n, 1), tensor_rows(n % 2 ? kept : x, n, 1)));
    }
    const struct tensor zero = make(t, 1, C);
    cpu_ops.scatter_rows(back, y, index);
    for (int64_t n = 0; n < N; n++) {
        assert_true(same_bytes(tensor_rows(back, n, 1), n % 2 ? zero : tensor_rows(x, n, 1)));
    }
}

static void test_rows_by_index(void **state)
{
    (void)state;
    rows_by_index(DTYPE_F32);
    rows_by_index(DTYPE_BF16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_values, release_all),
        cmocka_unit_test(test_topk_order),
        cmocka_unit_test(test_pick_repeats),
        cmocka_unit_test(test_add_slots),
        cmocka_unit_test(test_dispatch),
        cmocka_unit_test_teardown(test_gather_and_combine, release_all),
        cmocka_unit_test_teardown(test_rows_by_index, release_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
