// The ops over blocks of matrices, against sums in double: odd sizes, blocks at the edges, blocks that share rows
// or columns, whole columns, groups without rows and views of some groups.
#include "ops_test.h"

#include <stdlib.h>

enum { MOST = 64 };

struct scene {
    int64_t groups, rows, cols, R;
    struct tensor offsets, x, dy, delta;
    struct matrix_block by_row[MOST], by_column[MOST];
    struct matrix_blocks list;
    int64_t values;
};

static int by_row(const void *a, const void *b)
{
    const struct matrix_block *p = a, *q = b;
    if (p->group != q->group) return p->group < q->group ? -1 : 1;
    if (p->row != q->row) return p->row < q->row ? -1 : 1;
    return (p->column > q->column) - (p->column < q->column);
}

static int by_column(const void *a, const void *b)
{
    const struct matrix_block *p = a, *q = b;
    if (p->group != q->group) return p->group < q->group ? -1 : 1;
    if (p->column != q->column) return p->column < q->column ? -1 : 1;
    return (p->row > q->row) - (p->row < q->row);
}

// Every `step`-th block of (height, width) of each matrix.
static void make_blocks(struct scene *s, int64_t height, int64_t width, int64_t step)
{
    int64_t turn = 0, n = 0;
    s->values = 0;
    for (int64_t g = 0; g < s->groups; g++) {
        for (int64_t r = 0; r < s->rows; r += height) {
            for (int64_t c = 0; c < s->cols; c += width) {
                if (turn++ % step) continue;
                assert_true(n < MOST);
                struct matrix_block *b = &s->by_row[n++];
                *b = (struct matrix_block){
                    g, r, min_i64(height, s->rows - r), c, min_i64(width, s->cols - c), s->values};
                s->values += b->rows * b->columns;
            }
        }
    }
    memcpy(s->by_column, s->by_row, sizeof s->by_row);
    qsort(s->by_row, (size_t)n, sizeof *s->by_row, by_row);
    qsort(s->by_column, (size_t)n, sizeof *s->by_column, by_column);
    s->list = (struct matrix_blocks){n, 0, s->by_row, s->by_column};
}

static void make_scene(struct scene *s, enum dtype t, int64_t rows, int64_t cols,
                       const int64_t *sizes, int64_t groups)
{
    *s = (struct scene){.groups = groups, .rows = rows, .cols = cols};
    s->offsets = make(DTYPE_I32, 1, groups + 1);
    for (int64_t g = 0; g < groups; g++) {
        data_i32(s->offsets)[g + 1] = data_i32(s->offsets)[g] + (int32_t)sizes[g];
    }
    s->R = data_i32(s->offsets)[groups];
    s->x = random_tensor(t, s->R, cols, 1);
    s->dy = random_tensor(t, s->R, rows, 2);
}

static double at(struct tensor x, int64_t row, int64_t column)
{
    float v;
    dtype_convert(&v, DTYPE_F32, element_at(x, row * x.dim[1] + column), x.dtype, 1);
    return (double)v;
}

// y0 + the share of the blocks, in double: forward, or back into dx.
static struct tensor expected_share(const struct scene *s, struct tensor y0, struct tensor in,
                                    bool forward)
{
    const struct tensor out = as(DTYPE_F32, y0);
    const int64_t width = out.dim[1];
    double *sum = calloc((size_t)(s->R * width), sizeof *sum);
    for (int64_t i = 0; i < s->list.count; i++) {
        const struct matrix_block *b = &s->by_row[i];
        const int32_t *offset = data_i32(s->offsets);
        for (int64_t n = offset[b->group]; n < offset[b->group + 1]; n++) {
            for (int64_t k = 0; k < b->rows * b->columns; k++) {
                const int64_t row = b->row + k / b->columns, column = b->column + k % b->columns;
                const double d = at(s->delta, 0, b->at + k);
                if (forward) {
                    sum[n * width + row] += d * at(in, n, column);
                } else {
                    sum[n * width + column] += d * at(in, n, row);
                }
            }
        }
    }
    for (int64_t i = 0; i < s->R * width; i++) {
        data_f32(out)[i] = (float)((double)data_f32(out)[i] + sum[i]);
    }
    free(sum);
    return out;
}

static struct tensor dense_gradient(const struct scene *s, int64_t group)
{
    const struct tensor dw = make(DTYPE_F32, s->rows, s->cols);
    const int32_t *offset = data_i32(s->offsets);
    for (int64_t i = 0; i < s->rows * s->cols; i++) {
        double sum = 0;
        for (int64_t n = offset[group]; n < offset[group + 1]; n++) {
            sum += at(s->dy, n, i / s->cols) * at(s->x, n, i % s->cols);
        }
        data_f32(dw)[i] = (float)sum;
    }
    return dw;
}

static void check_blocks(struct scene *s, enum dtype t)
{
    s->delta = random_tensor(t, 1, s->values, 3);
    const struct tensor y = random_tensor(t, s->R, s->rows, 4), y0 = as(t, y);
    const struct tensor dx = random_tensor(t, s->R, s->cols, 5), dx0 = as(t, dx);
    const struct tensor grad = make(DTYPE_F32, 1, s->values), want = make(DTYPE_F32, 1, s->values);
    cpu_ops.blocks_forward(y, s->x, s->delta, &s->list, s->offsets);
    check_close("forward", y, expected_share(s, y0, s->x, true), limit_of[t]);
    cpu_ops.blocks_dinput(dx, s->dy, s->delta, &s->list, s->offsets);
    check_close("dinput", dx, expected_share(s, dx0, s->dy, false), limit_of[t]);

    fill(grad, 1);
    cpu_ops.blocks_dweight(grad, s->dy, s->x, &s->list, s->offsets);
    for (int64_t i = 0; i < s->list.count; i++) {
        const struct matrix_block *b = &s->by_row[i];
        if (i == 0 || b->group != s->by_row[i - 1].group) s->delta = dense_gradient(s, b->group);
        for (int64_t k = 0; k < b->rows * b->columns; k++) {
            data_f32(want)[b->at + k] =
                (float)at(s->delta, b->row + k / b->columns, b->column + k % b->columns);
        }
    }
    check_close("dweight", minus(grad, 1), want, 2e-6);
    s->delta = tensor_absent();
}

static void every_shape(enum dtype t)
{
    struct scene s;
    const int64_t few[] = {5, 0, 19, 1}, one[] = {45}, many[] = {3, 1290};
    make_scene(&s, t, 37, 53, few, 4);
    make_blocks(&s, 8, 8, 3);
    check_blocks(&s, t);
    make_blocks(&s, 13, 13, 1);
    check_blocks(&s, t);
    make_blocks(&s, 37, 1, 7); // whole columns
    check_blocks(&s, t);
    make_blocks(&s, 64, 64, 1); // more than a matrix
    check_blocks(&s, t);
    make_scene(&s, t, 21, 40, one, 1);
    make_blocks(&s, 16, 16, 2);
    s.offsets = make(DTYPE_I32, 1, 2);
    data_i32(s.offsets)[1] = 45;
    check_blocks(&s, t);
    make_scene(&s, t, 270, 140, many, 2); // beyond one task and one product
    make_blocks(&s, 128, 128, 2);
    check_blocks(&s, t);
}

static void test_products_f32(void **state)
{
    cpu_configure(2, CPU_PRODUCTS_F32);
    every_shape(DTYPE_F32);
    release_all(state);
    every_shape(DTYPE_BF16);
}

static void test_products_bf16(void **state)
{
    (void)state;
    cpu_configure(2, CPU_PRODUCTS_BF16);
    if (cpu_ops.bf16_activations() != DTYPE_BF16) skip();
    every_shape(DTYPE_BF16);
}

// Groups 1 and 2 alone give what they give among all; and without offsets all rows belong to one.
static void test_views(void **state)
{
    (void)state;
    struct scene s;
    const int64_t sizes[] = {4, 6, 7, 3};
    cpu_configure(2, CPU_PRODUCTS_F32);
    make_scene(&s, DTYPE_F32, 20, 30, sizes, 4);
    make_blocks(&s, 8, 8, 2);
    s.delta = random_tensor(DTYPE_F32, 1, s.values, 3);
    const struct tensor all = make(DTYPE_F32, s.R, s.rows), some = make(DTYPE_F32, s.R, s.rows);
    cpu_ops.blocks_forward(all, s.x, s.delta, &s.list, s.offsets);
    int64_t first = 0, n = 0;
    for (int64_t i = 0; i < s.list.count; i++) {
        first += s.by_row[i].group < 1;
        n += s.by_row[i].group == 1 || s.by_row[i].group == 2;
    }
    const struct matrix_blocks part = {n, 1, s.by_row + first, s.by_column + first};
    const struct tensor offsets = tensor_1d(data_i32(s.offsets) + 1, DTYPE_I32, 3);
    cpu_ops.blocks_forward(some, s.x, s.delta, &part, offsets);
    assert_memory_equal(row_f32(all, 4), row_f32(some, 4), 13 * 20 * sizeof(float));
    for (int64_t i = 0; i < s.R * s.rows; i++) {
        const int64_t row = i / s.rows;
        if (row < 4 || row >= 17) assert_true(data_f32(some)[i] == 0.0f);
    }
    make_scene(&s, DTYPE_F32, 20, 30, (const int64_t[]){18}, 1);
    make_blocks(&s, 8, 8, 2);
    s.delta = random_tensor(DTYPE_F32, 1, s.values, 3);
    const struct tensor a = make(DTYPE_F32, 18, 20), b = make(DTYPE_F32, 18, 20);
    cpu_ops.blocks_forward(a, s.x, s.delta, &s.list, s.offsets);
    cpu_ops.blocks_forward(b, s.x, s.delta, &s.list, tensor_absent());
    assert_true(same_bytes(a, b));
}

static void test_delta(void **state)
{
    (void)state;
    for (enum dtype t = DTYPE_F32; t <= DTYPE_F16; t++) {
        struct scene s;
        const int64_t sizes[] = {1, 1};
        void *data[2];
        cpu_configure(2, CPU_PRODUCTS_F32);
        make_scene(&s, DTYPE_F32, 15, 22, sizes, 2);
        make_blocks(&s, 4, 4, 3);
        for (int64_t g = 0; g < 2; g++) {
            data[g] = random_tensor(t, s.rows, s.cols, (uint32_t)g + 7).data;
        }
        const struct matrices w = {2, s.rows, s.cols, t, data};
        const struct tensor value = random_tensor(DTYPE_F32, 1, s.values, 9);
        const struct tensor delta = make(DTYPE_F32, 1, s.values);
        cpu_ops.blocks_delta(delta, value, &w, &s.list);
        for (int64_t i = 0; i < s.list.count; i++) {
            const struct matrix_block *b = &s.by_row[i];
            const struct tensor wg = tensor_2d(data[b->group], t, s.rows, s.cols);
            for (int64_t k = 0; k < b->rows * b->columns; k++) {
                const double stored = at(wg, b->row + k / b->columns, b->column + k % b->columns);
                const float want = data_f32(value)[b->at + k] - (float)stored;
                assert_true(data_f32(delta)[b->at + k] == want);
            }
        }
    }
}

static double element_sum(double x, enum block_sum kind)
{
    return kind == BLOCK_SUM ? x : kind == BLOCK_SUM_ABS ? fabs(x) : x * x;
}

static void check_sums(const double *got, const double *want, int64_t n)
{
    double error = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        error += (got[i] - want[i]) * (got[i] - want[i]);
        size += want[i] * want[i];
    }
    if (!(sqrt(error) < 2e-6 * sqrt(size))) fail_msg("off by %.3g", sqrt(error / size));
}

static void check_block_scores(const struct scene *s, int64_t size, enum block_sum kind)
{
    const int64_t across = ceil_div(s->cols, size), n = ceil_div(s->rows, size) * across;
    const struct tensor sums = make(DTYPE_F64, s->groups, n);
    double *want = calloc((size_t)(s->groups * n), sizeof *want);
    for (int64_t g = 0; g < s->groups; g++) {
        const struct tensor dw = dense_gradient(s, g);
        for (int64_t i = 0; i < s->rows * s->cols; i++) {
            const int64_t block = i / s->cols / size * across + i % s->cols / size;
            want[g * n + block] += 2 * element_sum((double)data_f32(dw)[i], kind);
        }
    }
    cpu_ops.block_scores(sums, s->dy, s->x, s->offsets, size, kind);
    cpu_ops.block_scores(sums, s->dy, s->x, s->offsets, size, kind); // added to
    check_sums(sums.data, want, s->groups * n);
    free(want);
}

static void check_column_scores(const struct scene *s, enum block_sum kind, bool mean)
{
    const struct tensor sums = make(DTYPE_F64, s->groups, s->cols);
    double *want = calloc((size_t)(s->groups * s->cols), sizeof *want);
    const int32_t *offset = data_i32(s->offsets);
    for (int64_t g = 0; g < s->groups; g++) {
        for (int64_t n = offset[g]; n < offset[g + 1]; n++) {
            for (int64_t c = 0; c < s->cols; c++) {
                want[g * s->cols + c] += 2 * element_sum(at(s->x, n, c), kind) /
                                         (mean ? (double)(offset[g + 1] - offset[g]) : 1);
            }
        }
    }
    cpu_ops.column_scores(sums, s->x, s->offsets, kind, mean);
    cpu_ops.column_scores(sums, s->x, s->offsets, kind, mean);
    check_sums(sums.data, want, s->groups * s->cols);
    free(want);
}

static void test_scores(void **state)
{
    struct scene s;
    const int64_t few[] = {5, 0, 19, 1}, two[] = {30, 7};
    cpu_configure(2, CPU_PRODUCTS_F32);
    for (enum dtype t = DTYPE_F32; t <= DTYPE_BF16; t++) {
        for (int k = 0; k < 3; k++) {
            const enum block_sum kind = (enum block_sum)k;
            make_scene(&s, t, 37, 53, few, 4);
            check_block_scores(&s, 8, kind);
            check_block_scores(&s, 1, kind);
            check_block_scores(&s, 100, kind);
            check_column_scores(&s, kind, false);
            check_column_scores(&s, kind, true);
            make_scene(&s, t, 530, 1030, two, 2); // beyond one tile
            check_block_scores(&s, 256, kind);
            check_block_scores(&s, 600, kind);
            check_column_scores(&s, kind, true);
            release_all(state);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_products_f32, release_all),
        cmocka_unit_test_teardown(test_products_bf16, release_all),
        cmocka_unit_test_teardown(test_views, release_all),
        cmocka_unit_test_teardown(test_delta, release_all),
        cmocka_unit_test_teardown(test_scores, release_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
