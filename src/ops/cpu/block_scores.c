// ops/cpu/block_scores.c - what a choice of blocks or columns is made by. A gradient is formed a tile at a time,
// in the thread's own scratch, reduced block by block and forgotten.
#include "ops/cpu/dweight.h"
#include "ops/cpu/vector.h"

#include <assert.h>

enum { COLUMNS = 256 };

VECTOR_CLONES
static double sum_of(const float *x, int64_t n, enum block_sum kind)
{
    double sum = 0;
    if (kind == BLOCK_SUM) {
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++) {
            sum += (double)x[i];
        }
    } else if (kind == BLOCK_SUM_ABS) {
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++) {
            sum += (double)fabsf(x[i]);
        }
    } else {
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++) {
            sum += (double)x[i] * (double)x[i];
        }
    }
    return sum;
}

// Each block of a tile, whose borders are those of blocks.
static void reduce_tile(double *sums, const struct tile *t, int64_t across, int64_t size,
                        enum block_sum kind)
{
    for (int64_t r = 0; r < t->rows; r += size) {
        for (int64_t c = 0; c < t->columns; c += size) {
            const int64_t rows = min_i64(size, t->rows - r), n = min_i64(size, t->columns - c);
            double sum = 0;
            for (int64_t i = 0; i < rows; i++) {
                sum += sum_of(t->dw + (r + i) * t->ldc + c, n, kind);
            }
            sums[(t->row + r) / size * across + (t->column + c) / size] += sum;
        }
    }
}

// As many blocks as fit in a tile of a whole gradient; one at least.
static int64_t tile_side(int64_t size, int64_t fit, int64_t all)
{
    return min_i64(max_i64(1, fit / size) * size, all);
}

struct scores {
    struct tensor sums, dy, x;
    const int32_t *offset;
    int64_t size, height, width; // of a block; of a tile
    enum block_sum kind;
};

static void task_of_scores(const void *op, int64_t i)
{
    const struct scores *s = op;
    const int64_t rows = s->dy.dim[1], cols = s->x.dim[1], wide = ceil_div(cols, s->width);
    const int64_t down = ceil_div(rows, s->height), g = i / wide / down;
    struct tile t = {.row = i / wide % down * s->height,
                     .column = i % wide * s->width,
                     .first = s->offset ? s->offset[g] : 0};
    t.rows = min_i64(s->height, rows - t.row);
    t.columns = t.ldc = min_i64(s->width, cols - t.column);
    t.count = (s->offset ? s->offset[g + 1] : s->dy.dim[0]) - t.first;
    if (t.count == 0) return;
    t.dw = scratch_f32(SCRATCH_C, t.rows * t.ldc);
    memset(t.dw, 0, (size_t)(t.rows * t.ldc) * sizeof *t.dw);
    dweight_tile(&t, s->dy, s->x);
    reduce_tile((double *)s->sums.data + g * s->sums.dim[1], &t, ceil_div(cols, s->size), s->size,
                s->kind);
}

void cpu_block_scores(struct tensor sums, struct tensor dy, struct tensor x, struct tensor offsets,
                      int64_t size, enum block_sum kind)
{
    const int64_t rows = dy.dim[1], cols = x.dim[1];
    const struct scores s = {.sums = sums,
                             .dy = dy,
                             .x = x,
                             .offset = data_i32(offsets),
                             .size = size,
                             .height = tile_side(size, TILE_HEIGHT, rows),
                             .width = tile_side(size, TILE_WIDTH, cols),
                             .kind = kind};
    assert(sums.dtype == DTYPE_F64 && sums.dim[1] == ceil_div(rows, size) * ceil_div(cols, size));
    cpu_bf16_products(); // decided before there are threads
    cpu_tasks(sums.dim[0] * ceil_div(rows, s.height) * ceil_div(cols, s.width), true,
              task_of_scores, &s);
}

VECTOR_CLONES
static void add_row(double *sum, const float *x, int64_t n, enum block_sum kind)
{
    for (int64_t c = 0; c < n; c++) {
        const double v = (double)x[c];
        sum[c] += kind == BLOCK_SUM ? v : kind == BLOCK_SUM_ABS ? fabs(v) : v * v;
    }
}

void cpu_column_scores(struct tensor sums, struct tensor x, struct tensor offsets,
                       enum block_sum kind, bool mean)
{
    const int64_t C = x.dim[1], parts = ceil_div(C, COLUMNS);
    const int32_t *offset = data_i32(offsets);
    assert(sums.dtype == DTYPE_F64 && sums.dim[1] == C);
#pragma omp parallel for schedule(dynamic, 1) num_threads(cpu_threads())
    for (int64_t i = 0; i < sums.dim[0] * parts; i++) {
        const int64_t g = i / parts, column = i % parts * COLUMNS, n = min_i64(COLUMNS, C - column);
        const int64_t first = offset ? offset[g] : 0, end = offset ? offset[g + 1] : x.dim[0];
        double sum[COLUMNS] = {0};
        float buffer[COLUMNS];
        for (int64_t r = first; r < end; r++) {
            add_row(sum, block_load(buffer, x, r * C + column, n), n, kind);
        }
        double *out = (double *)sums.data + g * C + column;
        for (int64_t c = 0; c < n && end > first; c++) {
            out[c] += mean ? sum[c] / (double)(end - first) : sum[c];
        }
    }
}
