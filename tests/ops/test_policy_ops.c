// What policies are made of: columns, counts and small sums, against values worked out by hand.
#include "ops_test.h"

static struct tensor rows_f32(float *data, int64_t rows, int64_t cols)
{
    return tensor_2d(data, DTYPE_F32, rows, cols);
}

static bool close_to(double x, double want, double share)
{
    return fabs(x - want) <= share * fabs(want);
}

static struct tensor rows_i32(int32_t *data, int64_t rows, int64_t cols)
{
    return tensor_2d(data, DTYPE_I32, rows, cols);
}

// Whatever type and alignment a file has.
static void test_import(void **state)
{
    (void)state;
    static const float values[5] = {1, -2.5f, 0.015625f, 384, -0.75f};
    const enum dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F64};
    for (int from = 0; from < 4; from++) {
        for (int to = 0; to < 3; to++) {
            double stored[5];
            unsigned char file[64];
            const struct tensor y = make(types[to], 1, 5);
            struct tensor back = make(DTYPE_F32, 1, 5);
            dtype_convert(stored, types[from], values, DTYPE_F32, 5);
            memcpy(file + 3, stored, sizeof stored);
            cpu_ops.import(y, tensor_1d(file + 3, types[from], 5));
            dtype_convert(back.data, DTYPE_F32, y.data, types[to], 5);
            assert_memory_equal(back.data, values, sizeof values);
        }
    }
}

static void test_columns(void **state)
{
    (void)state;
    float y[8] = {1, 2, 3, 4, 5, 6, 7, 8}, x[4] = {10, 20, 30, 40}, out[4] = {0};
    cpu_ops.place_columns(rows_f32(y, 2, 4), rows_f32(x, 2, 2), 1);
    assert_memory_equal(y, ((float[]){1, 10, 20, 4, 5, 30, 40, 8}), sizeof y);
    cpu_ops.take_columns(rows_f32(out, 2, 2), rows_f32(y, 2, 4), 2);
    assert_memory_equal(out, ((float[]){20, 4, 40, 8}), sizeof out);

    int32_t n[6] = {1, 2, 3, 4, 5, 6}, column[2] = {-7, 9}, last[2];
    cpu_ops.place_columns(rows_i32(n, 2, 3), rows_i32(column, 2, 1), 0);
    assert_memory_equal(n, ((int32_t[]){-7, 2, 3, 9, 5, 6}), sizeof n);
    cpu_ops.take_columns(rows_i32(last, 2, 1), rows_i32(n, 2, 3), 2);
    assert_memory_equal(last, ((int32_t[]){3, 6}), sizeof last);
}

static void test_constants(void **state)
{
    (void)state;
    float y[6], row[3] = {7, -8, .5f};
    cpu_ops.repeat_row(rows_f32(y, 2, 3), tensor_1d(row, DTYPE_F32, 3));
    assert_memory_equal(y, ((float[]){7, -8, .5f, 7, -8, .5f}), sizeof y);
    int32_t n[4], pair[2] = {3, 1};
    cpu_ops.repeat_row(rows_i32(n, 2, 2), tensor_1d(pair, DTYPE_I32, 2));
    assert_memory_equal(n, ((int32_t[]){3, 1, 3, 1}), sizeof n);

    cpu_ops.fill(rows_f32(y, 2, 3), 2.5f);
    assert_memory_equal(y, ((float[]){2.5f, 2.5f, 2.5f, 2.5f, 2.5f, 2.5f}), sizeof y);
    int32_t index[4] = {2, 0, 1, 1};
    cpu_ops.put(rows_f32(y, 2, 3), rows_i32(index, 2, 2), -4);
    assert_memory_equal(y, ((float[]){-4, 2.5f, -4, 2.5f, -4, 2.5f}), sizeof y);
}

static void test_logsumexp(void **state)
{
    (void)state;
    float z[6] = {0, 0, 1000, 1000, -1000, -1001}, lse[3];
    cpu_ops.logsumexp(tensor_1d(lse, DTYPE_F32, 3), rows_f32(z, 3, 2));
    assert_true(close_to((double)lse[0], log(2), 1e-6));
    assert_true(close_to((double)lse[1], 1000 + log(2), 1e-7));
    assert_true(close_to((double)lse[2], -1000 + log1p(exp(-1)), 1e-7));
}

static void test_scaled_rows(void **state)
{
    (void)state;
    float y[4] = {1, 2, 3, 4}, x[4] = {1, 10, 100, 1000}, s[2] = {2, -4};
    cpu_ops.add_scaled_rows(rows_f32(y, 2, 2), rows_f32(x, 2, 2), tensor_1d(s, DTYPE_F32, 2), .5f);
    assert_memory_equal(y, ((float[]){2, 12, -197, -1996}), sizeof y);
}

static void test_counts(void **state)
{
    (void)state;
    float count[4] = {1, 0, 0, 0};
    int32_t index[6] = {2, 0, 2, 3, 2, 0}, plain[6] = {0, 1, 2, 3, 1, 0},
            offsets[5] = {0, 3, 3, 4, 9};
    cpu_ops.count_slots(tensor_1d(count, DTYPE_F32, 4), rows_i32(index, 3, 2));
    assert_memory_equal(count, ((float[]){3, 0, 3, 1}), sizeof count);
    cpu_ops.count_rows(tensor_1d(count, DTYPE_F32, 4), tensor_1d(offsets, DTYPE_I32, 5));
    assert_memory_equal(count, ((float[]){6, 0, 4, 6}), sizeof count);

    double changed = 10, all = 100; // rows {2,0} of {0,1}, {2,3} of {2,3}, {2,0} of {1,0}
    cpu_ops.count_changed(tensor_1d(&changed, DTYPE_F64, 1), tensor_1d(&all, DTYPE_F64, 1),
                          rows_i32(index, 3, 2), rows_i32(plain, 3, 2));
    assert_true(close_to(changed, 12, 1e-12));
    assert_true(close_to(all, 106, 1e-12));
}

static void test_dot(void **state)
{
    (void)state;
    float x[5] = {1, 2, 3, 4, 5}, y[5] = {2, -1, .5f, 0, 3};
    double out = 7;
    cpu_ops.dot(tensor_1d(&out, DTYPE_F64, 1), tensor_1d(x, DTYPE_F32, 5),
                tensor_1d(y, DTYPE_F32, 5), -2);
    assert_true(close_to(out, 7 - 2 * 16.5, 1e-12));
}

static void test_sign_step(void **state)
{
    (void)state;
    float b[4] = {0, 1, -1, .5f}, u[4] = {5, 1, 3, 3}; // their mean is 3
    const struct tensor bias = tensor_1d(b, DTYPE_F32, 4), use = tensor_1d(u, DTYPE_F32, 4);
    cpu_ops.sign_step(bias, use, .25f, 0);
    assert_memory_equal(b, ((float[]){.25f, .75f, -1, .5f}), sizeof b);
    cpu_ops.sign_step(bias, use, -.25f, .875f);
    assert_memory_equal(b, ((float[]){0, .875f, -.875f, .5f}), sizeof b);
}

static void test_normalize_through(void **state)
{
    (void)state;
    float w[4] = {.25f, 0, .75f, 0}, dw[4] = {4, 2, -8, 1}, sum[1] = {.5f}, dp[4];
    const float inner = 4 * .25f - 8 * .75f; // over the set
    cpu_ops.normalize_backward_through(rows_f32(dp, 1, 4), rows_f32(dw, 1, 4), rows_f32(w, 1, 4),
                                       tensor_1d(sum, DTYPE_F32, 1));
    assert_memory_equal(dp, ((float[]){(4 - inner) * 2, 4, (-8 - inner) * 2, 2}), sizeof dp);
    cpu_ops.normalize_backward_through(rows_f32(dw, 1, 4), rows_f32(dw, 1, 4), rows_f32(w, 1, 4),
                                       tensor_1d(sum, DTYPE_F32, 1)); // in place
    assert_memory_equal(dw, dp, sizeof dp);
}

// Of the slots of weight 0 alone: tokens 0 and 1, two slots each, of which slots 1 and 2 have rows.
static void test_swiglu_dot(void **state)
{
    (void)state;
    int32_t offsets[3] = {0, 1, 2}, slot[2] = {1, 2}, row[4] = {-1, 0, 1, -1};
    const struct dispatch d = {tensor_1d(offsets, DTYPE_I32, 3), tensor_1d(slot, DTYPE_I32, 2),
                               rows_i32(row, 2, 2)};
    float da[6] = {1, -2, 3, .5f, 4, -1}, g[6] = {.5f, -1, 2, 0, 1, -3},
          u[6] = {1, 2, -1, 5, .25f, 2};
    for (int t = 0; t < 2; t++) {
        const enum dtype type = t ? DTYPE_BF16 : DTYPE_F32;
        float dweight[4] = {9, 9, 9, 9};
        cpu_ops.swiglu_dot(rows_f32(dweight, 2, 2), as(type, rows_f32(da, 2, 3)),
                           as(type, rows_f32(g, 2, 3)), as(type, rows_f32(u, 2, 3)), &d);
        for (int r = 0; r < 2; r++) {
            double want = 0;
            for (int i = 3 * r; i < 3 * r + 3; i++) {
                want += (double)(da[i] * g[i] * u[i]) / (1 + exp(-(double)g[i]));
            }
            assert_true(close_to((double)dweight[slot[r]], want, t ? 2e-3 : 1e-6));
        }
        assert_memory_equal(dweight, ((float[]){9, dweight[1], dweight[2], 9}), sizeof dweight);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_import, release_all),
        cmocka_unit_test(test_columns),
        cmocka_unit_test(test_constants),
        cmocka_unit_test(test_logsumexp),
        cmocka_unit_test(test_scaled_rows),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_dot),
        cmocka_unit_test(test_sign_step),
        cmocka_unit_test(test_normalize_through),
        cmocka_unit_test_teardown(test_swiglu_dot, release_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
