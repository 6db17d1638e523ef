// Products with a bank: every combination of types, groups without rows and with few, weights at any
// address, products in F32 and in BF16 (which oneDNN emulates where the processor has none).
#include "ops_test.h"

#include "ops/cpu/product.h"

#include <stdio.h>

static struct fixture ref;

enum { MOST_GROUPS = 8 };
struct bank {
    struct matrices m;
    void *data[MOST_GROUPS];
};

// Matrices of type t at `shift` bytes from where they should lie, in reverse order in memory.
static void make_bank(struct bank *b, enum dtype t, struct tensor w, size_t shift)
{
    const int64_t G = w.dim[0], size = w.dim[1] * w.dim[2];
    b->m = (struct matrices){G, w.dim[1], w.dim[2], t, b->data};
    assert_true(G <= MOST_GROUPS);
    for (int64_t g = G - 1; g >= 0; g--) {
        char *at = make(DTYPE_U8, 1, size * 4 + 8).data;
        dtype_convert(at, t, data_f32(w) + g * size, DTYPE_F32, size);
        memmove(at + shift, at, (size_t)size * dtype_size(t));
        b->data[g] = at + shift;
    }
}

static struct tensor all_of(const struct bank *b)
{
    const int64_t size = b->m.rows * b->m.cols;
    const struct tensor x = make(DTYPE_F32, b->m.groups, size);
    for (int64_t g = 0; g < b->m.groups; g++) {
        memcpy(row_f32(x, g), b->data[g], (size_t)size * sizeof(float));
    }
    return x;
}

static double limit_for(enum dtype a, enum dtype b)
{
    if (a == DTYPE_F32 && b == DTYPE_F32) return 1e-6;
    return a == DTYPE_BF16 || b == DTYPE_BF16 ? 8e-3 : 1e-3; // F16 alone
}

static void forward_and_dinput(enum dtype t, enum dtype out, enum dtype weights, size_t shift)
{
    struct bank b;
    make_bank(&b, weights, get(&ref, "w"), shift);
    const struct tensor offsets = get(&ref, "offsets"), y = like(out, get(&ref, "y"));
    const struct tensor dx = like(out, get(&ref, "dx")), added = as(out, get(&ref, "dx0"));
    const double limit = fmax(limit_for(t, weights), limit_for(out, out));
    char what[96];
    snprintf(what, sizeof what, "y %s, x %s, w %s + %zu", dtype_name(out), dtype_name(t),
             dtype_name(weights), shift);
    fill(y, NAN);
    fill(dx, NAN);
    cpu_ops.matmul_forward(y, as(t, get(&ref, "x")), &b.m, offsets, false);
    check_close(what, y, get(&ref, "y"), limit);
    cpu_ops.matmul_dinput(dx, as(t, get(&ref, "dy")), &b.m, offsets, false);
    check_close(what, dx, get(&ref, "dx"), limit);
    cpu_ops.matmul_dinput(added, as(t, get(&ref, "dy")), &b.m, offsets, true);
    check_close(what, added, get(&ref, "dx_added"), limit);
}

static void dweight(enum dtype t)
{
    struct bank b;
    make_bank(&b, DTYPE_F32, get(&ref, "dw0"), 0);
    cpu_ops.matmul_dweight(&b.m, as(t, get(&ref, "dy")), as(t, get(&ref, "x")),
                           get(&ref, "offsets"));
    check_close("dw", all_of(&b), get(&ref, "dw"), limit_for(t, t));
}

static void every_type(void)
{
    const enum dtype weights[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    for (enum dtype t = DTYPE_F32; t <= DTYPE_BF16; t++) {
        dweight(t);
        for (size_t i = 0; i < 3; i++) {
            for (size_t shift = 0; shift < 3; shift++) {
                forward_and_dinput(t, DTYPE_F32, weights[i], shift);
                forward_and_dinput(t, DTYPE_BF16, weights[i], shift);
            }
        }
    }
}

static void test_products_f32(void **state)
{
    (void)state;
    cpu_configure(2, CPU_PRODUCTS_F32);
    assert_int_equal(cpu_ops.bf16_activations(), DTYPE_F32);
    every_type();
}

static void test_products_bf16(void **state)
{
    (void)state;
    cpu_configure(2, CPU_PRODUCTS_BF16);
    if (cpu_ops.bf16_activations() != DTYPE_BF16)
        skip(); // AVX2 alone: the library has no such product
    every_type();
}

static void test_products_auto(void **state)
{
    (void)state;
    cpu_configure(2, CPU_PRODUCTS_AUTO);
    every_type();
}

// Beyond one task in every direction, rows given to groups by `sizes`; checked against sums in double.
static void large(enum dtype t, enum dtype weights, const int64_t *sizes, int64_t G)
{
    const int64_t rows = 531, cols = 2100;
    const struct tensor offsets = make(DTYPE_I32, 1, G + 1);
    for (int64_t g = 0; g < G; g++) {
        data_i32(offsets)[g + 1] = data_i32(offsets)[g] + (int32_t)sizes[g];
    }
    const int64_t R = data_i32(offsets)[G];
    const struct tensor x = random_tensor(t, R, cols, 1), dy = random_tensor(t, R, rows, 2);
    const struct tensor all = random_tensor(DTYPE_F32, G, rows * cols, 3);
    struct bank w, dw;
    make_bank(&w, weights, tensor_make(all.data, DTYPE_F32, 3, (int64_t[]){G, rows, cols}), 0);
    make_bank(&dw, DTYPE_F32, tensor_make(all.data, DTYPE_F32, 3, (int64_t[]){G, rows, cols}), 0);
    const struct tensor y = make(DTYPE_F32, R, rows), dx = make(DTYPE_F32, R, cols);
    cpu_ops.matmul_forward(y, x, &w.m, offsets, false);
    cpu_ops.matmul_dinput(dx, dy, &w.m, offsets, false);
    cpu_ops.matmul_dweight(&dw.m, dy, x, offsets);

    const struct tensor xf = as(DTYPE_F32, x), dyf = as(DTYPE_F32, dy);
    for (int64_t g = 0; g < G; g++) {
        const int64_t begin = data_i32(offsets)[g], end = data_i32(offsets)[g + 1];
        const struct tensor wg = make(DTYPE_F32, rows, cols);
        dtype_convert(wg.data, DTYPE_F32, w.data[g], weights, rows * cols);
        for (int64_t i = begin; i < end; i += i % 7 + 29) {
            const int64_t r = i % 5 ? i : end - 1, o = (i * 131) % rows, c = (i * 977) % cols;
            double forward = 0, dinput = 0;
            for (int64_t k = 0; k < cols; k++) {
                forward += (double)row_f32(xf, r)[k] * (double)row_f32(wg, o)[k];
            }
            for (int64_t k = 0; k < rows; k++) {
                dinput += (double)row_f32(dyf, r)[k] * (double)row_f32(wg, k)[c];
            }
            assert_true(fabs((double)row_f32(y, r)[o] - forward) < 3e-4);
            assert_true(fabs((double)row_f32(dx, r)[c] - dinput) < 3e-4);
        }
        for (int64_t i = 0; i < 40; i++) {
            const int64_t o = (i * 131 + 7) % rows, c = (i * 977 + 11) % cols;
            double sum = (double)row_f32(all, g)[o * cols + c];
            for (int64_t r = begin; r < end; r++) {
                sum += (double)row_f32(dyf, r)[o] * (double)row_f32(xf, r)[c];
            }
            assert_true(fabs((double)((float *)dw.data[g])[o * cols + c] - sum) < 3e-4);
        }
    }
}

static void test_large(void **state)
{
    cpu_configure(2, CPU_PRODUCTS_F32);
    const int64_t one[] = {0, 1300, 0}, mixed[] = {2, 700, 3, 33}, few[] = {1, 0, 4, 2};
    large(DTYPE_F32, DTYPE_F32, one, 3);
    release_all(state);
    large(DTYPE_F32, DTYPE_BF16, one, 3);
    release_all(state);
    large(DTYPE_BF16, DTYPE_F16, mixed, 4);
    release_all(state);
    large(DTYPE_F32, DTYPE_BF16, few, 4);
    release_all(state);
    large(DTYPE_BF16, DTYPE_BF16, few, 4);
    release_all(state);
    cpu_configure(2, CPU_PRODUCTS_BF16);
    if (cpu_ops.bf16_activations() != DTYPE_BF16) return;
    large(DTYPE_BF16, DTYPE_BF16, mixed, 4);
}

// y of `n` rows against sums in double, added to what was there or not; sizes that no vector divides.
static void few_rows(int64_t n, enum dtype t, size_t shift, bool accumulate)
{
    const int64_t rows = 71, cols = 2 * 32 + 13;
    struct bank w;
    const struct tensor all = random_tensor(DTYPE_F32, 1, rows * cols, 3);
    make_bank(&w, DTYPE_BF16, tensor_make(all.data, DTYPE_F32, 3, (int64_t[]){1, rows, cols}),
              shift);
    const struct tensor x = random_tensor(t, n, cols, 1), xf = as(DTYPE_F32, x);
    const struct tensor y = random_tensor(DTYPE_F32, n, rows, 2), before = as(DTYPE_F32, y);
    cpu_ops.matmul_forward(y, x, &w.m, tensor_absent(), accumulate);
    for (int64_t i = 0; i < n * rows; i++) {
        const char *at = (const char *)w.data[0] + 2 * (i % rows * cols);
        double sum = accumulate ? (double)data_f32(before)[i] : 0;
        for (int64_t k = 0; k < cols; k++) {
            uint16_t h;
            memcpy(&h, at + 2 * k, sizeof h);
            sum += (double)row_f32(xf, i / rows)[k] * (double)f32_from_bf16(h);
        }
        assert_true(fabs((double)data_f32(y)[i] - sum) < 2e-5);
    }
}

static void test_few_rows(void **state)
{
    const enum cpu_products products[] = {CPU_PRODUCTS_F32, CPU_PRODUCTS_AUTO};
    for (int i = 0; i < 2; i++) {
        cpu_configure(2, products[i]);
        for (int64_t n = 1; n <= 34; n += n < 10 ? 1 : 4) {
            few_rows(n, DTYPE_BF16, 0, false);
            few_rows(n, DTYPE_BF16, 0, true);
            few_rows(n, DTYPE_BF16, 1, true);
            few_rows(n, DTYPE_F32, 3, false);
            release_all(state);
        }
    }
}

// Without offsets: one matrix, all rows.
static void test_one_group(void **state)
{
    (void)state;
    cpu_configure(2, CPU_PRODUCTS_AUTO);
    struct bank b;
    const struct tensor w = random_tensor(DTYPE_F32, 1, 9 * 13, 5);
    make_bank(&b, DTYPE_F32, tensor_make(w.data, DTYPE_F32, 3, (int64_t[]){1, 9, 13}), 0);
    const struct tensor x = random_tensor(DTYPE_F32, 17, 13, 6), y = make(DTYPE_F32, 17, 9);
    const struct tensor again = make(DTYPE_F32, 17, 9), offsets = make(DTYPE_I32, 1, 2);
    data_i32(offsets)[1] = 17;
    cpu_ops.matmul_forward(y, x, &b.m, tensor_absent(), false);
    cpu_ops.matmul_forward(again, x, &b.m, offsets, false);
    assert_true(same_bytes(y, again));
    data_i32(offsets)[1] = 0; // and no rows at all
    cpu_ops.matmul_forward(again, x, &b.m, offsets, false);
    cpu_ops.matmul_dweight(&b.m, y, x, offsets);
    assert_true(same_bytes(y, again) && memcmp(b.data[0], w.data, tensor_bytes(w)) == 0);
}

static int open_fixture(void **state)
{
    (void)state;
    fixture_open(&ref, "ops/matmul.safetensors");
    return 0;
}

static int close_fixture(void **state)
{
    fixture_close(&ref);
    return release_all(state);
}

// Whatever the number of rows, few numbers of them occur, and none is left: what a run keeps of products is bounded.
static void test_few_shapes(void **state)
{
    (void)state;
    enum { MOST = 512 };
    bool met[MOST + 1] = {false};
    int shapes = 0;
    for (int64_t rows = 1; rows <= 3 * MOST; rows++) {
        for (int64_t left = rows, m; left > 0; left -= m) {
            m = product_rows(left, MOST);
            assert_in_range(m, 1, left < MOST ? left : MOST);
            const int64_t run_as = m < 16 ? 16 : m;
            if (!met[run_as]) shapes++;
            met[run_as] = true;
        }
    }
    assert_int_equal(shapes, 16);
    assert_int_equal(product_rows(5, 16), 5);
    assert_int_equal(product_rows(440, 512), 384);
    assert_int_equal(product_rows(440, 256), 256);
}

static void products_of_rows(int64_t rows, const struct bank *w, const struct bank *dw)
{
    const int64_t columns = w->m.rows, depth = w->m.cols;
    const struct tensor x = random_tensor(DTYPE_BF16, rows, depth, 1);
    const struct tensor y = make(DTYPE_BF16, rows, columns), dx = make(DTYPE_F32, rows, depth);
    cpu_ops.matmul_forward(y, x, &w->m, tensor_absent(), false);
    cpu_ops.matmul_dinput(dx, y, &w->m, tensor_absent(), true);
    cpu_ops.matmul_dweight(&dw->m, y, x, tensor_absent());
}

// What a run keeps of products it has after the first that differ in rows alone.
static void test_shapes_are_made_at_once(void **state)
{
    (void)state;
    cpu_configure(2, CPU_PRODUCTS_BF16);
    if (cpu_ops.bf16_activations() != DTYPE_BF16) return;
    const int64_t columns = 61, depth = 83;
    const struct tensor values = random_tensor(DTYPE_F32, 1, columns * depth, 3);
    const struct tensor bank =
        tensor_make(values.data, DTYPE_F32, 3, (int64_t[]){1, columns, depth});
    struct bank w, dw;
    make_bank(&w, DTYPE_BF16, bank, 0);
    make_bank(&dw, DTYPE_F32, bank, 0);
    const int64_t before = product_shapes();
    products_of_rows(100, &w, &dw);
    const int64_t after = product_shapes();
    assert_in_range(after - before, 3 * 16, 3 * 17);
    for (int64_t rows = 1; rows < 700; rows += rows < 40 ? 1 : 37) {
        products_of_rows(rows, &w, &dw);
    }
    assert_int_equal(product_shapes(), after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_products_f32, release_all),
        cmocka_unit_test_teardown(test_products_bf16, release_all),
        cmocka_unit_test_teardown(test_products_auto, release_all),
        cmocka_unit_test_teardown(test_large, release_all),
        cmocka_unit_test_teardown(test_few_rows, release_all),
        cmocka_unit_test(test_few_shapes),
        cmocka_unit_test_teardown(test_shapes_are_made_at_once, release_all),
        cmocka_unit_test_teardown(test_one_group, release_all),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
