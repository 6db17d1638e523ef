// ops/cpu/matmul.c - y = x W^T and dx = dy W over a bank. A task is (group, part of its rows, block of
// output columns); one thread computes it, so that nothing depends on how many there are. Products run
// in F32, with what is not F32 converted block by block, or in BF16 where that is fast.
#include "ops/cpu/cpu.h"
#include "ops/cpu/few_rows.h"
#include "ops/cpu/product.h"
#include "ops/cpu/vector.h"

#include <assert.h>

enum {
    // So many rows are computed as dot products, which read each weight once: beyond, the library is faster.
    FEW_ROWS = 8,
    FEW_ROWS_BF16 = 32,   // where the processor multiplies BF16 pairs
    COLUMNS = 512,        // of the output, in a task
    FEW_COLUMNS = 64,     // with few rows, so that every core has something to read
    ROWS = 1024,          // of a task: a converted block of weights serves that many
    CONVERTED_ROWS = 256, // activations converted at a time
    DEPTH = 1024,         // of a product with converted weights: 512 x 1024 floats are 2 MB
    PADDING = 16,
    BF16_ROWS = 512,
};

// A product with a bank: y (R,columns) from x (R,depth), columns and depth being those of W or of W^T.
struct bank_product {
    struct tensor y, x;
    const struct matrices *w;
    const int32_t *offsets; // NULL: one group with all rows
    int64_t columns, depth;
    bool transposed; // W is stored (columns, depth): the forward pass
    bool accumulate;
};

// What one thread computes: rows [row, row + rows) of y, columns [column, column + columns).
struct task {
    int64_t group, row, rows, column, columns;
};

static int64_t first_row(const struct bank_product *p, int64_t group)
{
    if (p->offsets) return p->offsets[group];
    return group ? p->y.dim[0] : 0;
}

static int64_t most_rows(const struct bank_product *p)
{
    int64_t most = 0;
    for (int64_t g = 0; g < p->w->groups; g++) {
        most = max_i64(most, first_row(p, g + 1) - first_row(p, g));
    }
    return most;
}

// W's element (column, k) of this product as bytes.
static const char *weight_at(const struct bank_product *p, int64_t group, int64_t column, int64_t k)
{
    const int64_t i = p->transposed ? column * p->depth + k : k * p->columns + column;
    return (const char *)p->w->data[group] + (size_t)i * dtype_size(p->w->dtype);
}

static bool is_aligned(const struct matrices *w)
{
    for (int64_t g = 0; g < w->groups; g++) {
        if ((uintptr_t)w->data[g] % dtype_size(w->dtype)) return false;
    }
    return true;
}

// Rows of n values, `step` elements apart in src, as F32 rows ld apart.
VECTOR_CLONES
static void convert_block(float *dst, int64_t ld, const char *src, enum dtype t, int64_t rows,
                          int64_t n, int64_t step)
{
    for (int64_t r = 0; r < rows; r++) {
        to_f32(dst + r * ld, src + (size_t)(r * step) * dtype_size(t), t, n);
    }
}

// Points b at the block of weights of columns [column, ...) and depth [k, k + q->k).
static void set_weights(struct product *q, const struct bank_product *p, const struct task *t,
                        int64_t k, bool in_place)
{
    const char *at = weight_at(p, t->group, t->column, k);
    q->transposed_b = p->transposed;
    q->b = at;
    q->ldb = p->transposed ? p->depth : p->columns;
    if (in_place) return;
    // Rows of a power of two would displace each other in the cache where the product walks down columns.
    const int64_t rows = p->transposed ? q->n : q->k, n = p->transposed ? q->k : q->n;
    const int64_t ld = p->transposed ? n : n + PADDING;
    float *block = scratch_f32(SCRATCH_B, rows * ld);
    convert_block(block, ld, at, p->w->dtype, rows, n, q->ldb);
    q->ldb = ld;
    q->b = block;
}

// The rows of one depth block, converted a few at a time unless they are F32.
static void multiply_rows(struct product *q, const struct bank_product *p, const struct task *t,
                          int64_t k, float *c, int64_t ldc)
{
    const bool in_place = p->x.dtype == DTYPE_F32;
    const int64_t step = in_place ? t->rows : CONVERTED_ROWS;
    for (int64_t row = 0; row < t->rows; row += step) {
        q->m = min_i64(step, t->rows - row);
        const char *at = element_at(p->x, (t->row + row) * p->depth + k);
        q->a = at;
        q->lda = p->depth;
        if (!in_place) {
            float *block = scratch_f32(SCRATCH_A, q->m * q->k);
            convert_block(block, q->k, at, p->x.dtype, q->m, q->k, p->depth);
            q->a = block;
            q->lda = q->k;
        }
        q->c = c + row * ldc;
        q->ldc = ldc;
        product_f32(q, 1.0f);
    }
}

// Where a task computes in F32: y itself, or a block that is rounded into it at the end.
static float *open_output(const struct bank_product *p, const struct task *t, int64_t *ldc)
{
    const int64_t first = t->row * p->columns + t->column;
    if (p->y.dtype == DTYPE_F32) {
        *ldc = p->columns;
        return data_f32(p->y) + first;
    }
    float *c = scratch_f32(SCRATCH_C, t->rows * t->columns);
    *ldc = t->columns;
    if (p->accumulate) {
        convert_block(c, t->columns, element_at(p->y, first), p->y.dtype, t->rows, t->columns,
                      p->columns);
    }
    return c;
}

static void close_output(const struct bank_product *p, const struct task *t, const float *c)
{
    if (p->y.dtype == DTYPE_F32) return;
    for (int64_t r = 0; r < t->rows; r++) {
        block_store(p->y, (t->row + r) * p->columns + t->column, c + r * t->columns, t->columns);
    }
}

static void run_f32(const struct bank_product *p, const struct task *t)
{
    const bool in_place = p->w->dtype == DTYPE_F32 && is_aligned(p->w);
    const int64_t depth = in_place && p->x.dtype == DTYPE_F32 ? p->depth : DEPTH;
    int64_t ldc;
    float *c = open_output(p, t, &ldc);
    for (int64_t k = 0; k < p->depth; k += depth) {
        struct product q = {.n = t->columns, .k = min_i64(depth, p->depth - k)};
        q.accumulate = p->accumulate || k > 0;
        set_weights(&q, p, t, k, in_place);
        multiply_rows(&q, p, t, k, c, ldc);
    }
    close_output(p, t, c);
}

static void run_bf16(const struct bank_product *p, const struct task *t)
{
    const bool direct = p->y.dtype == DTYPE_BF16 && !p->accumulate;
    int64_t ldc = p->columns;
    float *c = direct ? NULL : open_output(p, t, &ldc);
    for (int64_t row = 0, m; row < t->rows; row += m) {
        m = product_rows(t->rows - row, BF16_ROWS);
        struct product q = {.m = m,
                            .n = t->columns,
                            .k = p->depth,
                            .a = element_at(p->x, (t->row + row) * p->depth),
                            .lda = p->depth,
                            .ldc = ldc,
                            .accumulate = p->accumulate,
                            .c_is_bf16 = direct,
                            .rows_at_most = BF16_ROWS};
        set_weights(&q, p, t, 0, true);
        const int64_t first = (t->row + row) * p->columns + t->column;
        q.c = direct ? (void *)((uint16_t *)p->y.data + first) : (void *)(c + row * ldc);
        product_bf16(&q);
    }
    if (!direct) close_output(p, t, c);
}

static bool by_instructions(const struct bank_product *p)
{
    return p->w->dtype == DTYPE_BF16 && p->x.dtype == DTYPE_BF16 && cpu_bf16_instructions() &&
           is_aligned(p->w);
}

static void dots(float *sum, const struct bank_product *p, const struct task *t)
{
    const struct tensor rows = tensor_rows(p->x, t->row, t->rows);
    const char *w = weight_at(p, t->group, t->column, 0);
    if (by_instructions(p)) {
        few_rows_product_bf16(sum, rows.data, w, t->rows, t->columns, p->depth, p->accumulate);
        return;
    }
    float *x = scratch_f32(SCRATCH_A, t->rows * p->depth);
    to_f32(x, rows.data, rows.dtype, t->rows * p->depth);
    few_rows_product(sum, x, w, p->w->dtype, t->rows, t->columns, p->depth, p->accumulate);
}

// Few rows: the time is that of reading W. Forward only.
static void run_dots(const struct bank_product *p, const struct task *t)
{
    float *sum = scratch_f32(SCRATCH_C, t->rows * t->columns);
    if (p->accumulate) {
        convert_block(sum, t->columns, element_at(p->y, t->row * p->columns + t->column),
                      p->y.dtype, t->rows, t->columns, p->columns);
    }
    dots(sum, p, t);
    for (int64_t r = 0; r < t->rows; r++) {
        block_store(p->y, (t->row + r) * p->columns + t->column, sum + r * t->columns, t->columns);
    }
}

static int64_t few_rows(const struct bank_product *p)
{
    return by_instructions(p) ? FEW_ROWS_BF16 : FEW_ROWS;
}

static void run_task(const struct bank_product *p, const struct task *t)
{
    const bool bf16 = cpu_bf16_products() && p->x.dtype == DTYPE_BF16 && p->w->dtype == DTYPE_BF16;
    if (t->rows <= few_rows(p) && p->transposed) {
        run_dots(p, t);
    } else if (bf16 && is_aligned(p->w)) {
        run_bf16(p, t);
    } else {
        run_f32(p, t);
    }
}

// Task number i, with the rows of a group cut in even parts; false where the group has no such part.
static bool find_task(struct task *t, const struct bank_product *p, int64_t i, int64_t parts,
                      int64_t width)
{
    const int64_t blocks = ceil_div(p->columns, width), part = i / blocks % parts;
    t->group = i / blocks / parts;
    t->column = i % blocks * width;
    t->columns = min_i64(width, p->columns - t->column);
    const int64_t begin = first_row(p, t->group), rows = first_row(p, t->group + 1) - begin;
    if (rows == 0) return false;
    const int64_t each = ceil_div(ceil_div(rows, ceil_div(rows, ROWS)), 16) * 16;
    t->row = begin + part * each;
    t->rows = min_i64(each, begin + rows - t->row);
    return t->rows > 0;
}

struct run {
    const struct bank_product *p;
    int64_t parts, width;
};

static void task_of_run(const void *op, int64_t i)
{
    const struct run *r = op;
    struct task t;
    if (find_task(&t, r->p, i, r->parts, r->width)) run_task(r->p, &t);
}

static void run(const struct bank_product *p)
{
    const int64_t most = most_rows(p);
    const bool dots_alone = p->transposed && most <= few_rows(p);
    const struct run r = {p, ceil_div(most, ROWS), dots_alone ? FEW_COLUMNS : COLUMNS};
    cpu_bf16_products(); // decided before there are threads
    cpu_tasks(p->w->groups * r.parts * ceil_div(p->columns, r.width),
              p->y.dim[0] * p->columns * p->depth > SMALL_WORK * 8, task_of_run, &r);
}

static void check(const struct bank_product *p, struct tensor offsets)
{
    assert(p->x.dim[1] == p->depth && p->y.dim[1] == p->columns);
    assert(offsets.data ? tensor_count(offsets) == p->w->groups + 1 : p->w->groups == 1);
    assert(first_row(p, p->w->groups) <= p->y.dim[0] && first_row(p, p->w->groups) <= p->x.dim[0]);
    (void)offsets;
    run(p);
}

void cpu_matmul_forward(struct tensor y, struct tensor x, const struct matrices *w,
                        struct tensor offsets, bool accumulate)
{
    const struct bank_product p = {.y = y,
                                   .x = x,
                                   .w = w,
                                   .offsets = data_i32(offsets),
                                   .columns = w->rows,
                                   .depth = w->cols,
                                   .transposed = true,
                                   .accumulate = accumulate};
    check(&p, offsets);
}

void cpu_matmul_dinput(struct tensor dx, struct tensor dy, const struct matrices *w,
                       struct tensor offsets, bool accumulate)
{
    const struct bank_product p = {.y = dx,
                                   .x = dy,
                                   .w = w,
                                   .offsets = data_i32(offsets),
                                   .columns = w->cols,
                                   .depth = w->rows,
                                   .accumulate = accumulate};
    check(&p, offsets);
}

struct multiply {
    struct tensor y;
    const struct matrices *w, *a;
    int64_t parts, blocks;
};

static void task_of_multiply(const void *op, int64_t i)
{
    const struct multiply *m = op;
    const struct matrices *w = m->w, *a = m->a;
    const int64_t g = i / m->blocks / m->parts;
    const struct bank_product p = {
        .y = tensor_rows(m->y, g * w->rows, w->rows),
        .x = tensor_2d(w->data[g], w->dtype, w->rows, w->cols),
        .w = a,
        .columns = a->rows,
        .depth = a->cols,
        .transposed = true,
    };
    struct task t = {
        .group = g, .row = i / m->blocks % m->parts * ROWS, .column = i % m->blocks * COLUMNS};
    t.rows = min_i64(ROWS, w->rows - t.row);
    t.columns = min_i64(COLUMNS, a->rows - t.column);
    run_task(&p, &t);
}

// Each W_g plays the rows of a product with A_g.
void cpu_matrices_multiply(struct tensor y, const struct matrices *w, const struct matrices *a)
{
    const struct multiply m = {y, w, a, ceil_div(w->rows, ROWS), ceil_div(a->rows, COLUMNS)};
    assert(y.dtype == DTYPE_F32 && a->groups == w->groups && a->cols == w->cols);
    assert(y.dim[0] == w->groups * w->rows && y.dim[1] == a->rows);
    cpu_bf16_products(); // decided before there are threads
    cpu_tasks(w->groups * m.parts * m.blocks, y.dim[0] * a->rows * w->cols > SMALL_WORK * 8,
              task_of_multiply, &m);
}
