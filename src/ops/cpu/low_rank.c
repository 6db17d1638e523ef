// ops/cpu/low_rank.c - what low-rank adapters need besides products and dropout: the scaling by columns that DoRA
// puts on a linear's output.
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector.h"

#include <assert.h>

// ---- columns

VECTOR_CLONES
static void scale_block(float *y, const float *old, const float *x, const float *c, int64_t n)
{
    if (old) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            y[i] = old[i] + x[i] * c[i];
        }
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            y[i] = x[i] * c[i];
        }
    }
}

void cpu_scale_columns(struct tensor y, struct tensor x, struct tensor c, struct tensor offsets,
                       bool accumulate)
{
    const int64_t C = x.dim[1], R = rows_in_use(offsets, x.dim[0]), blocks = ceil_div(C, BLOCK);
    assert(R <= x.dim[0] && R <= y.dim[0] && y.dim[1] == C && c.dim[1] == C);
    assert(offsets.data ? tensor_count(offsets) == c.dim[0] + 1 : c.dim[0] == 1);
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (R * C > SMALL_WORK)
    for (int64_t task = 0; task < R * blocks; task++) {
        const int64_t r = task / blocks, at = task % blocks * BLOCK, first = r * C + at;
        const int64_t n = min_i64(BLOCK, C - at);
        float buffer[3][BLOCK];
        const float *px = block_load(buffer[0], x, first, n);
        const float *old = accumulate ? block_load(buffer[1], y, first, n) : NULL;
        float *py = block_target(buffer[2], y, first);
        scale_block(py, old, px, row_f32(c, group_of(offsets, r)) + at, n);
        block_store(y, first, py, n);
    }
}

enum { STRIP = 128, SUMMED_ROWS = 64 };

// sum[i] += x * y of a strip of columns over rows [first, end): few enough rows for a float sum.
VECTOR_CLONES
static void add_products(float *restrict sum, struct tensor x, struct tensor y, int64_t first,
                         int64_t end, int64_t column, int64_t n)
{
    float buffer[2][STRIP];
    const int64_t C = x.dim[1];
    for (int64_t r = first; r < end; r++) {
        const float *px = block_load(buffer[0], x, r * C + column, n);
        const float *py = block_load(buffer[1], y, r * C + column, n);
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            sum[i] += px[i] * py[i];
        }
    }
}

void cpu_dot_columns(struct tensor d, struct tensor a, struct tensor x, struct tensor y,
                     struct tensor offsets)
{
    const int64_t C = x.dim[1], G = d.dim[0], R = rows_in_use(offsets, x.dim[0]);
    const int64_t strips = ceil_div(C, STRIP);
    assert(y.dim[1] == C && d.dim[1] == C && a.dim[0] == G && a.dim[1] == C && R <= y.dim[0]);
    assert(offsets.data ? tensor_count(offsets) == G + 1 : G == 1);
#pragma omp parallel for schedule(dynamic, 1) num_threads(cpu_threads()) if (R * C > SMALL_WORK)
    for (int64_t task = 0; task < G * strips; task++) {
        const int64_t g = task / strips, column = task % strips * STRIP;
        const int64_t n = min_i64(STRIP, C - column);
        const int64_t begin = offsets.data ? data_i32(offsets)[g] : 0;
        const int64_t end = offsets.data ? data_i32(offsets)[g + 1] : R;
        double total[STRIP] = {0};
        for (int64_t r = begin; r < end; r += SUMMED_ROWS) {
            float partial[STRIP] = {0};
            add_products(partial, x, y, r, min_i64(r + SUMMED_ROWS, end), column, n);
            for (int64_t i = 0; i < n; i++) {
                total[i] += (double)partial[i];
            }
        }
        for (int64_t i = 0; i < n; i++) {
            row_f32(d, g)[column + i] += (float)((double)row_f32(a, g)[column + i] * total[i]);
        }
    }
}

// ---- norms

VECTOR_CLONES
static float squares_of(const char *w, enum dtype t, int64_t n)
{
    float buffer[BLOCK];
    to_f32(buffer, w, t, n);
    return dot_f32(buffer, buffer, n);
}

void cpu_row_squares(struct tensor s, const struct matrices *w)
{
    const int64_t rows = w->groups * w->rows;
    assert(tensor_count(s) == rows);
#pragma omp parallel for schedule(static)                                                          \
    num_threads(cpu_threads()) if (rows * w->cols > SMALL_WORK)
    for (int64_t i = 0; i < rows; i++) {
        const char *row = (const char *)w->data[i / w->rows] +
                          (size_t)(i % w->rows * w->cols) * dtype_size(w->dtype);
        double sum = 0;
        for (int64_t c = 0; c < w->cols; c += BLOCK) {
            const char *at = row + (size_t)c * dtype_size(w->dtype);
            sum += (double)squares_of(at, w->dtype, min_i64(BLOCK, w->cols - c));
        }
        data_f32(s)[i] = (float)sum;
    }
}

void cpu_magnitude_scale(const struct magnitude_scale *out, const struct magnitude_norm *in)
{
    const int64_t N = tensor_count(in->magnitude), K = in->b.dim[1];
    assert(tensor_count(in->squares) == N && in->b.dim[0] == N && in->p.dim[1] == K);
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (N * K > SMALL_WORK)
    for (int64_t i = 0; i < N; i++) {
        double square = (double)data_f32(in->squares)[i];
        for (int64_t k = 0; k < K; k++) {
            float b;
            to_f32(&b, element_at(in->b, i * K + k), in->b.dtype, 1);
            square += (double)(in->a * b) * (2 * (double)row_f32(in->p, i)[k] +
                                             (double)in->a * (double)row_f32(in->q, i)[k]);
        }
        const double norm = square > 0 ? sqrt(square) : 0;
        const double inverse = norm > 0 ? 1 / norm : 0;
        const double scale = norm > 0 ? (double)data_f32(in->magnitude)[i] / norm : 0;
        data_f32(out->inverse)[i] = (float)inverse;
        data_f32(out->scale)[i] = (float)scale;
        data_f32(out->rest)[i] = (float)(scale - 1);
    }
}
