// ops/cpu/dweight.c - dW += dy^T x over the rows of each group of a bank. A task is a block of one dW;
// the rows are walked in order by the thread that has it.
#include "ops/cpu/dweight.h"
#include "ops/cpu/product.h"
#include "ops/cpu/vector.h"

#include <assert.h>

enum { CONVERTED_ROWS = 512, BF16_ROWS = 512 };

// Columns [column, column + n) of x, rows [first, first + count), as dense F32 rows.
static const float *operand(enum scratch_use use, struct tensor x, int64_t first, int64_t count,
                            int64_t column, int64_t n)
{
    float *block = scratch_f32(use, count * n);
    for (int64_t r = 0; r < count; r++) {
        to_f32(block + r * n, element_at(x, (first + r) * x.dim[1] + column), x.dtype, n);
    }
    return block;
}

static struct product tile_product(const struct tile *b)
{
    return (struct product){.m = b->rows,
                            .n = b->columns,
                            .c = b->dw,
                            .ldc = b->ldc,
                            .transposed_a = true,
                            .accumulate = true};
}

static void run_f32(const struct tile *b, struct tensor dy, struct tensor x)
{
    struct product q = tile_product(b);
    const bool in_place = dy.dtype == DTYPE_F32 && x.dtype == DTYPE_F32;
    const int64_t step = in_place ? b->count : CONVERTED_ROWS;
    for (int64_t r = 0; r < b->count; r += step) {
        q.k = min_i64(step, b->count - r);
        q.a = element_at(dy, (b->first + r) * dy.dim[1] + b->row);
        q.b = element_at(x, (b->first + r) * x.dim[1] + b->column);
        q.lda = dy.dim[1];
        q.ldb = x.dim[1];
        if (!in_place) {
            q.a = operand(SCRATCH_A, dy, b->first + r, q.k, b->row, b->rows);
            q.b = operand(SCRATCH_B, x, b->first + r, q.k, b->column, b->columns);
            q.lda = b->rows;
            q.ldb = b->columns;
        }
        product_f32(&q, 1.0f);
    }
}

static void run_bf16(const struct tile *b, struct tensor dy, struct tensor x)
{
    struct product q = tile_product(b);
    q.lda = dy.dim[1];
    q.ldb = x.dim[1];
    q.rows_at_most = BF16_ROWS;
    for (int64_t r = 0; r < b->count; r += q.k) {
        q.k = product_rows(b->count - r, BF16_ROWS);
        q.a = element_at(dy, (b->first + r) * dy.dim[1] + b->row);
        q.b = element_at(x, (b->first + r) * x.dim[1] + b->column);
        product_bf16(&q);
    }
}

void dweight_tile(const struct tile *b, struct tensor dy, struct tensor x)
{
    const bool bf16 = cpu_bf16_products() && dy.dtype == DTYPE_BF16 && x.dtype == DTYPE_BF16;
    if (bf16) {
        run_bf16(b, dy, x);
    } else {
        run_f32(b, dy, x);
    }
}

struct dweight {
    const struct matrices *dw;
    struct tensor dy, x;
    const int32_t *offset;
    int64_t down, across;
};

static void task_of_dweight(const void *op, int64_t i)
{
    const struct dweight *d = op;
    const int64_t g = i / d->across / d->down;
    struct tile b = {.ldc = d->dw->cols,
                     .row = i / d->across % d->down * TILE_HEIGHT,
                     .column = i % d->across * TILE_WIDTH,
                     .first = d->offset ? d->offset[g] : 0};
    b.rows = min_i64(TILE_HEIGHT, d->dw->rows - b.row);
    b.columns = min_i64(TILE_WIDTH, d->dw->cols - b.column);
    b.count = (d->offset ? d->offset[g + 1] : d->dy.dim[0]) - b.first;
    if (b.count == 0 || !d->dw->data[g]) return;
    b.dw = (float *)d->dw->data[g] + b.row * b.ldc + b.column;
    dweight_tile(&b, d->dy, d->x);
}

void cpu_matmul_dweight(const struct matrices *dw, struct tensor dy, struct tensor x,
                        struct tensor offsets)
{
    const int64_t R = dy.dim[0];
    const struct dweight d = {dw,
                              dy,
                              x,
                              data_i32(offsets),
                              ceil_div(dw->rows, TILE_HEIGHT),
                              ceil_div(dw->cols, TILE_WIDTH)};
    assert(dw->dtype == DTYPE_F32 && dy.dim[1] == dw->rows && x.dim[1] == dw->cols);
    assert(d.offset ? tensor_count(offsets) == dw->groups + 1 : dw->groups == 1 && x.dim[0] == R);
    cpu_bf16_products(); // decided before there are threads
    cpu_tasks(dw->groups * d.down * d.across, R * dw->rows * dw->cols > SMALL_WORK * 8,
              task_of_dweight, &d);
}
