// ops/cpu/rmsnorm.c - root-mean-square norm (Zhang & Sennrich 2019), forward and backward.
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector.h"

#include <assert.h>

// y = x * rstd * w, rstd = 1/sqrt(mean x^2 + eps)
void cpu_rmsnorm_forward(struct tensor y, struct tensor rstd, struct tensor x, struct tensor w,
                         float eps)
{
    const int64_t N = x.dim[0], C = x.dim[1];
    assert(tensor_count(w) == C && tensor_count(y) == N * C);
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (N * C > SMALL_WORK)
    for (int64_t n = 0; n < N; n++) {
        float buffer[3][BLOCK];
        double squares = 0;
        for (int64_t c = 0; c < C; c += BLOCK) {
            const int64_t count = min_i64(BLOCK, C - c);
            const float *px = block_load(buffer[0], x, n * C + c, count);
            squares += (double)dot_f32(px, px, count);
        }
        const float r = (float)(1.0 / sqrt(squares / (double)C + (double)eps));
        if (rstd.data) data_f32(rstd)[n] = r;
        for (int64_t c = 0; c < C; c += BLOCK) {
            const int64_t count = min_i64(BLOCK, C - c);
            const float *px = block_load(buffer[0], x, n * C + c, count);
            const float *pw = block_load(buffer[1], w, c, count);
            float *py = block_target(buffer[2], y, n * C + c);
#pragma omp simd
            for (int64_t i = 0; i < count; i++) {
                py[i] = px[i] * r * pw[i];
            }
            block_store(y, n * C + c, py, count);
        }
    }
}

// dw += sum over rows of dy x rstd: a task owns a strip of columns and walks all rows.
static void weight_gradient(struct tensor dw, struct tensor dy, struct tensor x, struct tensor rstd)
{
    enum { STRIP = 128, ROWS = 64 };
    const int64_t N = x.dim[0], C = x.dim[1];
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (N * C > SMALL_WORK)
    for (int64_t c = 0; c < C; c += STRIP) {
        const int64_t n = min_i64(STRIP, C - c);
        double total[STRIP] = {0};
        for (int64_t row = 0; row < N; row += ROWS) {
            float partial[STRIP] = {0}, buffer[2][STRIP];
            for (int64_t r = row; r < min_i64(row + ROWS, N); r++) {
                const float *px = block_load(buffer[0], x, r * C + c, n);
                const float *pdy = block_load(buffer[1], dy, r * C + c, n);
                const float s = data_f32(rstd)[r];
                for (int64_t i = 0; i < n; i++) {
                    partial[i] += pdy[i] * px[i] * s;
                }
            }
            for (int64_t i = 0; i < n; i++) {
                total[i] += (double)partial[i];
            }
        }
        for (int64_t i = 0; i < n; i++) {
            data_f32(dw)[c + i] += (float)total[i];
        }
    }
}

// With s = mean over c of dy w x rstd:  dx = rstd (dy w - x rstd s)
static void input_gradient(struct tensor dx, struct tensor dy, struct tensor x, struct tensor w,
                           struct tensor rstd)
{
    const int64_t N = x.dim[0], C = x.dim[1];
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (N * C > SMALL_WORK)
    for (int64_t n = 0; n < N; n++) {
        const float r = data_f32(rstd)[n];
        float buffer[4][BLOCK];
        double sum = 0;
        for (int64_t c = 0; c < C; c += BLOCK) {
            const int64_t count = min_i64(BLOCK, C - c);
            const float *px = block_load(buffer[0], x, n * C + c, count);
            const float *pdy = block_load(buffer[1], dy, n * C + c, count);
            const float *pw = block_load(buffer[2], w, c, count);
#pragma omp simd
            for (int64_t i = 0; i < count; i++) {
                buffer[3][i] = pdy[i] * pw[i];
            }
            sum += (double)dot_f32(buffer[3], px, count);
        }
        const float s = (float)(sum * (double)r * (double)r / (double)C);
        for (int64_t c = 0; c < C; c += BLOCK) {
            const int64_t count = min_i64(BLOCK, C - c);
            const float *px = block_load(buffer[0], x, n * C + c, count);
            const float *pdy = block_load(buffer[1], dy, n * C + c, count);
            const float *pw = block_load(buffer[2], w, c, count);
            float *pdx = block_target(buffer[3], dx, n * C + c);
#pragma omp simd
            for (int64_t i = 0; i < count; i++) {
                pdx[i] = r * (pdy[i] * pw[i] - px[i] * s);
            }
            block_store(dx, n * C + c, pdx, count);
        }
    }
}

void cpu_rmsnorm_backward(struct tensor dx, struct tensor dw, struct tensor dy, struct tensor x,
                          struct tensor w, struct tensor rstd)
{
    assert(tensor_count(w) == x.dim[1] && tensor_count(dy) == tensor_count(x));
    if (dw.data) weight_gradient(dw, dy, x, rstd); // first: dx may be dy
    if (dx.data) input_gradient(dx, dy, x, w, rstd);
}
