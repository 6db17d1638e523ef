// Ops of low-rank adapters: dropout, scaling by columns, norms of rows of W + a B A.
#include "ops_test.h"

#include <stdio.h>

static struct fixture ref;

static struct tensor named(const char *set, const char *name)
{
    char full[64];
    snprintf(full, sizeof full, "%s.%s", set, name);
    return get(&ref, full);
}

static void columns(const char *set, enum dtype t)
{
    const struct tensor x = as(t, named(set, "x")), y = as(t, named(set, "y"));
    const struct tensor c = named(set, "c"), offsets = named(set, "offsets");
    const struct tensor out = like(t, x), d = named(set, "d0");
    cpu_ops.scale_columns(out, x, c, offsets, false);
    check_close("scaled", out, named(set, "scaled"), limit_of[t]);
    cpu_ops.dot_columns(d, c, x, y, offsets);
    check_close("dots", d, named(set, "dots"), limit_of[t]);
    const struct tensor in_place = as(t, x);
    cpu_ops.scale_columns(in_place, in_place, c, offsets, false);
    assert_true(same_bytes(in_place, out));
    cpu_ops.scale_columns(y, x, c, offsets, true);
    check_close("added", y, named(set, "added"), limit_of[t]);
}

static void test_columns(void **state)
{
    (void)state;
    for (enum dtype t = DTYPE_F32; t <= DTYPE_BF16; t++) {
        columns("wide", t);
        columns("tall", t);
    }
}

// Without offsets there is one group, with all rows.
static void test_columns_of_one_group(void **state)
{
    (void)state;
    const struct tensor x = random_tensor(DTYPE_F32, 9, 13, 1), y = like(DTYPE_F32, x);
    const struct tensor c = random_tensor(DTYPE_F32, 1, 13, 2), offsets = make(DTYPE_I32, 1, 2);
    const struct tensor again = like(DTYPE_F32, x), d = make(DTYPE_F32, 1, 13);
    const struct tensor e = make(DTYPE_F32, 1, 13);
    data_i32(offsets)[1] = 9;
    cpu_ops.scale_columns(y, x, c, tensor_absent(), false);
    cpu_ops.scale_columns(again, x, c, offsets, false);
    cpu_ops.dot_columns(d, c, x, y, tensor_absent());
    cpu_ops.dot_columns(e, c, x, y, offsets);
    assert_true(same_bytes(y, again) && same_bytes(d, e) && row_f32(d, 0)[12] != 0);
    data_i32(offsets)[1] = 0; // no rows at all
    cpu_ops.scale_columns(again, y, c, offsets, false);
    cpu_ops.dot_columns(e, c, x, y, offsets);
    assert_true(same_bytes(y, again) && same_bytes(d, e));
}

struct pointers {
    void *data[8];
};

static struct matrices bank_of(struct pointers *p, struct tensor x, int64_t groups)
{
    const int64_t rows = tensor_count(x) / x.dim[x.rank - 1] / groups, cols = x.dim[x.rank - 1];
    for (int64_t g = 0; g < groups; g++) {
        p->data[g] = (char *)x.data + (size_t)(g * rows * cols) * dtype_size(x.dtype);
    }
    return (struct matrices){groups, rows, cols, x.dtype, p->data};
}

// From matrices to the scale, as dora computes it.
static void norms(enum dtype t)
{
    struct pointers p[4];
    const struct tensor w = as(t, get(&ref, "w")), a = as(t, get(&ref, "a"));
    const struct tensor b = as(t, get(&ref, "b")), m = get(&ref, "m");
    const int64_t G = w.dim[0], N = G * w.dim[1], K = a.dim[1];
    const struct tensor wa = make(DTYPE_F32, N, K), gram = make(DTYPE_F32, G * K, K);
    const struct tensor baa = make(DTYPE_F32, N, K), squares = make(DTYPE_F32, 1, N);
    const struct matrices W = bank_of(&p[0], w, G), A = bank_of(&p[1], a, G);
    const struct matrices B = bank_of(&p[2], b, G), M = bank_of(&p[3], gram, G);
    cpu_ops.matrices_multiply(wa, &W, &A);
    check_close("W A^T", wa, get(&ref, "wa"), 2 * limit_of[t]);
    cpu_ops.matrices_multiply(gram, &A, &A);
    cpu_ops.matrices_multiply(baa, &B, &M);
    check_close("B A A^T", baa, get(&ref, "baa"), 2 * limit_of[t]);
    cpu_ops.row_squares(squares, &W);
    check_close("squares", squares, get(&ref, "squares"), limit_of[t]);

    const struct tensor scale = make(DTYPE_F32, 1, N), rest = make(DTYPE_F32, 1, N);
    const struct tensor inverse = make(DTYPE_F32, 1, N);
    const struct magnitude_norm in = {m,  squares, tensor_reshape_2d(b, N, K),
                                      wa, baa,     *data_f32(get(&ref, "alpha"))};
    const struct magnitude_scale out = {scale, rest, inverse};
    cpu_ops.magnitude_scale(&out, &in);
    check_close("scale", scale, get(&ref, "scale"), limit_of[t]);
    check_close("inverse", inverse, get(&ref, "inverse"), limit_of[t]);
    for (int64_t i = 0; i < N; i++) {
        assert_true(fabsf(data_f32(rest)[i] - (data_f32(scale)[i] - 1)) < 1e-6f);
    }
    assert_true(data_f32(scale)[w.dim[1] + 3] == 0 && data_f32(rest)[w.dim[1] + 3] == -1);
}

static void test_norms(void **state)
{
    (void)state;
    norms(DTYPE_F32);
    norms(DTYPE_BF16);
}

// Beyond one task in every direction, against sums in double.
static void test_matrices_multiply(void **state)
{
    (void)state;
    const int64_t G = 2, rows = 1100, cols = 70, S = 600;
    struct pointers p[2];
    const struct tensor w = random_tensor(DTYPE_BF16, G * rows, cols, 1);
    const struct tensor a = random_tensor(DTYPE_F32, G * S, cols, 2);
    const struct tensor y = make(DTYPE_F32, G * rows, S), wf = as(DTYPE_F32, w);
    const struct matrices W = bank_of(&p[0], w, G), A = bank_of(&p[1], a, G);
    cpu_ops.matrices_multiply(y, &W, &A);
    for (int64_t i = 0; i < G * rows; i += 37) {
        for (int64_t s = i % 5; s < S; s += 41) {
            double want = 0;
            for (int64_t k = 0; k < cols; k++) {
                want += (double)row_f32(wf, i)[k] * (double)row_f32(a, i / rows * S + s)[k];
            }
            assert_true(fabs((double)row_f32(y, i)[s] - want) < 1e-4);
        }
    }
}

// Of `x` of ones: what is kept, as 0 or 1.
static struct tensor mask(int64_t rows, int64_t cols, uint64_t key, float p)
{
    const struct tensor x = make(DTYPE_F32, rows, cols), y = like(DTYPE_F32, x);
    const struct dropout d = {.key = key, .p = p};
    fill(x, 1);
    fill(y, 9);
    cpu_ops.dropout(y, x, &d, false);
    for (int64_t i = 0; i < rows * cols; i++) {
        float *v = data_f32(y) + i;
        assert_true(*v == 0.0f || *v == 1.0f / (1.0f - p));
        *v = *v != 0.0f;
    }
    return y;
}

static double mean_product(const float *a, const float *b, int64_t n, int64_t step)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)a[i * step] * (double)b[i * step];
    }
    return sum / (double)n;
}

// As often as p says: in all, in every row and column; and independent from element to element, row to
// row, half to half, key to key. Limits: five deviations.
static void test_dropout_is_random(void **state)
{
    (void)state;
    const int64_t R = 400, C = 501, half = 251;
    const double p = 0.3, keep = 1 - p;
    const struct tensor m = mask(R, C, 7, (float)p), other = mask(R, C, 8, (float)p);
    const float *x = data_f32(m);
    assert_true(fabs(mean_product(x, x, R * C, 1) - keep) < 5 * sqrt(p * keep / (double)(R * C)));
    for (int64_t r = 0; r < R; r++) {
        const double share = mean_product(x + r * C, x + r * C, C, 1);
        assert_true(fabs(share - keep) < 5 * sqrt(p * keep / (double)C));
    }
    for (int64_t c = 0; c < C; c++) {
        assert_true(fabs(mean_product(x + c, x + c, R, C) - keep) < 5 * sqrt(p * keep / (double)R));
    }
    const int64_t lag[] = {1, 2, half, C, 2 * C, C + 1, 17 * C};
    const double both = keep * keep, deviation = sqrt(both * (1 - both) / (double)(R * C));
    for (size_t i = 0; i < sizeof lag / sizeof *lag; i++) {
        const double pair = mean_product(x, x + lag[i], R * C - lag[i], 1);
        assert_true(fabs(pair - both) < 10 * deviation);
    }
    assert_true(fabs(mean_product(x, data_f32(other), R * C, 1) - both) < 10 * deviation);
}

static void test_dropout_of_none(void **state)
{
    (void)state;
    const struct tensor x = random_tensor(DTYPE_F32, 5, 77, 3), y = like(DTYPE_F32, x);
    const struct dropout d = {.key = 3, .p = 0};
    cpu_ops.dropout(y, x, &d, false);
    assert_true(same_bytes(x, y));
}

// An element's mask follows its token and expert wherever its row lies, and views count from `first`.
static void test_dropout_follows_tokens(void **state)
{
    (void)state;
    const int64_t N = 11, S = 3, E = 5, C = 2100;
    const struct tensor expert = make(DTYPE_I32, N, S), weight = make(DTYPE_F32, N, S);
    for (int64_t i = 0; i < N * S; i++) {
        data_i32(expert)[i] = (int32_t)((i / S * 2 + i % S) % E);
        data_f32(weight)[i] = i % 7 != 0; // some slots have no row
    }
    const struct dispatch d = {make(DTYPE_I32, 1, E + 1), make(DTYPE_I32, 1, N * S),
                               make(DTYPE_I32, N, S)};
    cpu_ops.dispatch(&d, expert, weight, false, 0);
    const struct tensor x = make(DTYPE_F32, N * S, C), y = like(DTYPE_F32, x);
    fill(x, 1);
    const struct dropout all = {.key = 5, .p = 0.5f, .rows = &d};
    cpu_ops.dropout(y, x, &all, false);

    // The same tokens, all experts of a view, other rows.
    const struct tensor ones = make(DTYPE_F32, N, S), part = like(DTYPE_F32, x);
    fill(ones, 1);
    const int64_t first = 2;
    const struct dispatch v = {make(DTYPE_I32, 1, E - first + 1), make(DTYPE_I32, 1, N * S),
                               make(DTYPE_I32, N, S)};
    cpu_ops.dispatch(&v, expert, ones, false, first);
    const struct dropout some = {.key = 5, .p = 0.5f, .rows = &v, .first = first};
    cpu_ops.dropout(part, x, &some, false);
    int64_t compared = 0;
    for (int64_t i = 0; i < N * S; i++) {
        const int64_t a = data_i32(d.row)[i], b = data_i32(v.row)[i];
        if (a < 0 || b < 0) continue;
        assert_memory_equal(row_f32(y, a), row_f32(part, b), (size_t)C * sizeof(float));
        compared += a != b;
    }
    assert_true(compared > 10);
    // Two experts of one token have masks of their own.
    const int64_t a = data_i32(d.row)[1], b = data_i32(d.row)[2];
    assert_memory_not_equal(row_f32(y, a), row_f32(y, b), (size_t)C * sizeof(float));
}

static void test_dropout_adds(void **state)
{
    (void)state;
    for (enum dtype t = DTYPE_F32; t <= DTYPE_BF16; t++) {
        const struct tensor x = random_tensor(t, 3, 2301, 1), y = random_tensor(t, 3, 2301, 2);
        const struct tensor dropped = like(t, x), before = as(DTYPE_F32, y), want = before;
        const struct dropout d = {.key = 1, .p = 0.25f};
        cpu_ops.dropout(dropped, x, &d, false);
        cpu_ops.dropout(y, x, &d, true);
        const struct tensor wide = as(DTYPE_F32, dropped);
        for (int64_t i = 0; i < tensor_count(x); i++) {
            data_f32(want)[i] += data_f32(wide)[i];
        }
        check_close("added", y, want, limit_of[t]);
    }
}

static int open_fixture(void **state)
{
    (void)state;
    cpu_configure(2, CPU_PRODUCTS_AUTO);
    fixture_open(&ref, "ops/low_rank.safetensors");
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
        cmocka_unit_test_teardown(test_columns, release_all),
        cmocka_unit_test_teardown(test_columns_of_one_group, release_all),
        cmocka_unit_test_teardown(test_norms, release_all),
        cmocka_unit_test_teardown(test_matrices_multiply, release_all),
        cmocka_unit_test_teardown(test_dropout_is_random, release_all),
        cmocka_unit_test_teardown(test_dropout_of_none, release_all),
        cmocka_unit_test_teardown(test_dropout_follows_tokens, release_all),
        cmocka_unit_test_teardown(test_dropout_adds, release_all),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
