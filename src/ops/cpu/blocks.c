// ops/cpu/blocks.c - the share that blocks of a bank's matrices have in a linear. A task is the blocks that
// write the same columns of the output, over part of the rows; one thread computes it, block after block.
#include "ops/cpu/dweight.h"
#include "ops/cpu/product.h"
#include "ops/cpu/vector.h"

#include <assert.h>

enum { ROWS = 1024, CHUNK_ROWS = 256, MOST_ELEMENTS = 1 << 19 }; // of a task; of a product

// y (R, ..) += x (R, ..) times the blocks, or their transposes in the forward pass.
struct share {
    struct tensor y, x, delta;
    const struct matrix_block *block; // in the order of the columns of y that they write
    int64_t count, first_group;
    const int32_t *offset; // NULL: one group with all rows
    bool forward;
    int64_t parts; // of the rows, each a task of its own
};

static int64_t first_row(const struct share *p, int64_t group)
{
    if (p->offset) return p->offset[group - p->first_group];
    return group > p->first_group ? p->y.dim[0] : 0;
}

// The columns of y and of x that a block meets.
struct columns {
    int64_t first, count;
};

static struct columns written(const struct share *p, const struct matrix_block *b)
{
    const struct columns down = {b->row, b->rows}, across = {b->column, b->columns};
    return p->forward ? down : across;
}

static struct columns read_by(const struct share *p, const struct matrix_block *b)
{
    const struct columns down = {b->row, b->rows}, across = {b->column, b->columns};
    return p->forward ? across : down;
}

// c (m, n) += rows [row, row + m) of x, times one block
static void multiply(const struct share *p, const struct matrix_block *b, int64_t row,
                     struct product *q)
{
    const struct columns x = read_by(p, b);
    q->n = written(p, b).count;
    q->k = x.count;
    q->a = element_at(p->x, row * p->x.dim[1] + x.first);
    q->lda = p->x.dim[1];
    q->b = element_at(p->delta, b->at);
    q->ldb = b->columns;
    if (cpu_bf16_products() && p->x.dtype == DTYPE_BF16 && p->delta.dtype == DTYPE_BF16) {
        product_bf16(q);
        return;
    }
    if (p->x.dtype != DTYPE_F32) {
        float *a = scratch_f32(SCRATCH_A, q->m * q->k);
        for (int64_t r = 0; r < q->m; r++) {
            to_f32(a + r * q->k, element_at(p->x, (row + r) * q->lda + x.first), p->x.dtype, q->k);
        }
        q->a = a;
        q->lda = q->k;
    }
    if (p->delta.dtype != DTYPE_F32) {
        float *values = scratch_f32(SCRATCH_B, b->rows * b->columns);
        to_f32(values, q->b, p->delta.dtype, b->rows * b->columns);
        q->b = values;
    }
    product_f32(q, 1.0f);
}

static int64_t rows_at_most(int64_t width)
{
    return min_i64(CHUNK_ROWS, max_i64(16, MOST_ELEMENTS / width));
}

// Blocks [first, end) of the list add to the same columns of rows [row, row + rows).
static void run_strip(const struct share *p, int64_t first, int64_t end, int64_t row, int64_t rows)
{
    const struct columns to = written(p, &p->block[first]);
    const bool in_place = p->y.dtype == DTYPE_F32;
    const int64_t most = rows_at_most(to.count);
    for (int64_t done = 0, m; done < rows; done += m, row += m) {
        m = product_rows(rows - done, most);
        struct product q = {
            .m = m, .transposed_b = p->forward, .accumulate = true, .rows_at_most = most};
        q.ldc = in_place ? p->y.dim[1] : to.count;
        const int64_t at = row * p->y.dim[1] + to.first;
        float *c = in_place ? data_f32(p->y) + at : scratch_f32(SCRATCH_C, m * to.count);
        for (int64_t r = 0; !in_place && r < m; r++) {
            to_f32(c + r * q.ldc, element_at(p->y, at + r * p->y.dim[1]), p->y.dtype, to.count);
        }
        q.c = c;
        for (int64_t i = first; i < end; i++) {
            assert(written(p, &p->block[i]).count == to.count);
            multiply(p, &p->block[i], row, &q);
        }
        for (int64_t r = 0; !in_place && r < m; r++) {
            block_store(p->y, at + r * p->y.dim[1], c + r * q.ldc, to.count);
        }
    }
}

// Do two blocks write the same columns for the same rows?
static bool same_strip(const struct share *p, int64_t i, int64_t j)
{
    const struct matrix_block *a = &p->block[i], *b = &p->block[j];
    return a->group == b->group && written(p, a).first == written(p, b).first;
}

static void task_of_share(const void *op, int64_t i)
{
    const struct share *p = op;
    const int64_t first = i / p->parts, group = p->block[first].group;
    const int64_t row = first_row(p, group) + i % p->parts * ROWS;
    const int64_t rows = min_i64(ROWS, first_row(p, group + 1) - row);
    if (rows <= 0 || (first && same_strip(p, first - 1, first))) return;
    int64_t end = first + 1;
    while (end < p->count && same_strip(p, first, end)) {
        end++;
    }
    run_strip(p, first, end, row, rows);
}

static void run(struct share *p)
{
    int64_t most = 0, work = 0;
    for (int64_t i = 0; i < p->count; i++) {
        const struct matrix_block *b = &p->block[i];
        const int64_t rows = first_row(p, b->group + 1) - first_row(p, b->group);
        most = max_i64(most, rows);
        work += rows * b->rows * b->columns;
    }
    p->parts = ceil_div(most, ROWS);
    cpu_bf16_products(); // decided before there are threads
    cpu_tasks(p->count * p->parts, work > SMALL_WORK * 8, task_of_share, p);
}

void cpu_blocks_forward(struct tensor y, struct tensor x, struct tensor delta,
                        const struct matrix_blocks *b, struct tensor offsets)
{
    struct share p = {y, x, delta, b->by_row, b->count, b->first_group, data_i32(offsets), true, 0};
    run(&p);
}

void cpu_blocks_dinput(struct tensor dx, struct tensor dy, struct tensor delta,
                       const struct matrix_blocks *b, struct tensor offsets)
{
    struct share p = {dx,    dy, delta, b->by_column, b->count, b->first_group, data_i32(offsets),
                      false, 0};
    run(&p);
}

struct blocks_dweight {
    struct tensor dvalue, dy, x;
    const struct matrix_blocks *b;
    const int32_t *offset;
};

static void task_of_dweight(const void *op, int64_t i)
{
    const struct blocks_dweight *d = op;
    const struct matrix_block *k = &d->b->by_row[i];
    const int64_t g = k->group - d->b->first_group, first = d->offset ? d->offset[g] : 0;
    const struct tile t = {.dw = data_f32(d->dvalue) + k->at,
                           .ldc = k->columns,
                           .row = k->row,
                           .rows = k->rows,
                           .column = k->column,
                           .columns = k->columns,
                           .first = first,
                           .count = (d->offset ? d->offset[g + 1] : d->dy.dim[0]) - first};
    if (t.count) dweight_tile(&t, d->dy, d->x);
}

void cpu_blocks_dweight(struct tensor dvalue, struct tensor dy, struct tensor x,
                        const struct matrix_blocks *b, struct tensor offsets)
{
    const struct blocks_dweight d = {dvalue, dy, x, b, data_i32(offsets)};
    cpu_bf16_products(); // decided before there are threads
    cpu_tasks(b->count, b->count > 1, task_of_dweight, &d);
}

VECTOR_CLONES
static void subtract(float *out, const float *value, const float *stored, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] = value[i] - stored[i];
    }
}

static void delta_row(struct tensor delta, const float *value, const char *stored, enum dtype t,
                      int64_t at, int64_t n)
{
    float base[BLOCK], out[BLOCK];
    for (int64_t i = 0; i < n; i += BLOCK) {
        const int64_t m = min_i64(BLOCK, n - i);
        to_f32(base, stored + (size_t)i * dtype_size(t), t, m);
        subtract(out, value + at + i, base, m);
        block_store(delta, at + i, out, m);
    }
}

void cpu_blocks_delta(struct tensor delta, struct tensor value, const struct matrices *w,
                      const struct matrix_blocks *b)
{
#pragma omp parallel for schedule(dynamic, 1) num_threads(cpu_threads()) if (b->count > 1)
    for (int64_t i = 0; i < b->count; i++) {
        const struct matrix_block *k = &b->by_row[i];
        const char *data = w->data[k->group - b->first_group];
        for (int64_t r = 0; r < k->rows; r++) {
            const int64_t from = (k->row + r) * w->cols + k->column;
            delta_row(delta, data_f32(value), data + (size_t)from * dtype_size(w->dtype), w->dtype,
                      k->at + r * k->columns, k->columns);
        }
    }
}
