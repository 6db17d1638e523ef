// ops/cpu/elementwise.c - ops on one element at a time, and sums over elements or rows.
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector.h"

#include <assert.h>

void cpu_add(struct tensor y, struct tensor a, struct tensor b)
{
    const int64_t count = tensor_count(y);
    assert(tensor_count(a) == count && tensor_count(b) == count);
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (count > SMALL_WORK)
    for (int64_t first = 0; first < count; first += BLOCK) {
        const int64_t n = min_i64(BLOCK, count - first);
        float buffer[3][BLOCK];
        const float *pa = block_load(buffer[0], a, first, n),
                    *pb = block_load(buffer[1], b, first, n);
        float *py = block_target(buffer[2], y, first);
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            py[i] = pa[i] + pb[i];
        }
        block_store(y, first, py, n);
    }
}

void cpu_scale(struct tensor x, float a)
{
    const int64_t count = tensor_count(x);
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (count > SMALL_WORK)
    for (int64_t first = 0; first < count; first += BLOCK) {
        const int64_t n = min_i64(BLOCK, count - first);
        float buffer[2][BLOCK];
        const float *from = block_load(buffer[0], x, first, n);
        float *to = block_target(buffer[1], x, first);
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            to[i] = from[i] * a;
        }
        block_store(x, first, to, n);
    }
}

void cpu_clamp_forward(struct tensor y, float limit)
{
    const int64_t count = tensor_count(y);
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (count > SMALL_WORK)
    for (int64_t first = 0; first < count; first += BLOCK) {
        const int64_t n = min_i64(BLOCK, count - first);
        float buffer[2][BLOCK];
        const float *from = block_load(buffer[0], y, first, n);
        float *to = block_target(buffer[1], y, first);
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            const float above = from[i] < -limit ? -limit : from[i]; // NaN stays
            to[i] = above > limit ? limit : above;
        }
        block_store(y, first, to, n);
    }
}

// In BF16 the clamped value is the rounded limit, so that is what y is compared with.
static float stored_limit(enum dtype t, float limit)
{
    return t == DTYPE_BF16 ? f32_from_bf16(bf16_from_f32(limit)) : limit;
}

void cpu_clamp_backward(struct tensor dy, struct tensor y, float limit)
{
    const int64_t count = tensor_count(y);
    assert(tensor_count(dy) == count);
    const float bound = fminf(limit, stored_limit(y.dtype, limit));
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (count > SMALL_WORK)
    for (int64_t first = 0; first < count; first += BLOCK) {
        const int64_t n = min_i64(BLOCK, count - first);
        float buffer[3][BLOCK];
        const float *py = block_load(buffer[0], y, first, n);
        const float *from = block_load(buffer[1], dy, first, n);
        float *to = block_target(buffer[2], dy, first);
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            to[i] = fabsf(py[i]) >= bound ? 0.0f : from[i];
        }
        block_store(dy, first, to, n);
    }
}

void cpu_bias_forward(struct tensor y, struct tensor b)
{
    const int64_t N = y.dim[0], C = y.dim[1], blocks = ceil_div(C, BLOCK);
    assert(tensor_count(b) == C);
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (N * C > SMALL_WORK)
    for (int64_t task = 0; task < N * blocks; task++) {
        const int64_t c = task % blocks * BLOCK, first = task / blocks * C + c;
        const int64_t n = min_i64(BLOCK, C - c);
        float buffer[3][BLOCK];
        const float *pb = block_load(buffer[0], b, c, n),
                    *from = block_load(buffer[1], y, first, n);
        float *to = block_target(buffer[2], y, first);
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            to[i] = from[i] + pb[i];
        }
        block_store(y, first, to, n);
    }
}

// A task owns a strip of columns and walks all rows; sums of 64 rows in F32, the rest in double.
void cpu_bias_backward(struct tensor db, struct tensor dy)
{
    enum { STRIP = 128, ROWS = 64 };
    const int64_t N = dy.dim[0], C = dy.dim[1];
    assert(tensor_count(db) == C);
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (N * C > SMALL_WORK)
    for (int64_t c = 0; c < C; c += STRIP) {
        const int64_t n = min_i64(STRIP, C - c);
        double total[STRIP] = {0};
        for (int64_t row = 0; row < N; row += ROWS) {
            float partial[STRIP] = {0}, buffer[STRIP];
            for (int64_t r = row; r < min_i64(row + ROWS, N); r++) {
                const float *p = block_load(buffer, dy, r * C + c, n);
                for (int64_t i = 0; i < n; i++) {
                    partial[i] += p[i];
                }
            }
            for (int64_t i = 0; i < n; i++) {
                total[i] += (double)partial[i];
            }
        }
        for (int64_t i = 0; i < n; i++) {
            data_f32(db)[c + i] += (float)total[i];
        }
    }
}

// Whole sums: a fixed number of parts, added up in order.
enum { PARTS = 256 };

static double part_sum(const float *x, int64_t n)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        sum += (double)x[i];
    }
    return sum;
}

static double part_squares(const float *x, int64_t n)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    return sum;
}

// Of elements [first, first + n); what is not F32 is widened block by block.
static double sum_of(struct tensor x, int64_t first, int64_t n,
                     double (*sum)(const float *x, int64_t n))
{
    if (x.dtype == DTYPE_F32) return sum(data_f32(x) + first, n);
    double total = 0;
    for (int64_t at = 0; at < n; at += BLOCK) {
        float buffer[BLOCK];
        const int64_t some = min_i64(BLOCK, n - at);
        total += sum(block_load(buffer, x, first + at, some), some);
    }
    return total;
}

static void add_sum(struct tensor out, struct tensor x, double (*sum)(const float *x, int64_t n))
{
    assert(out.dtype == DTYPE_F64);
    const int64_t count = tensor_count(x), size = max_i64(ceil_div(count, PARTS), 4096);
    double part[PARTS] = {0};
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (count > SMALL_WORK)
    for (int64_t i = 0; i < PARTS; i++) {
        const int64_t first = min_i64(i * size, count);
        part[i] = sum_of(x, first, min_i64(size, count - first), sum);
    }
    for (int i = 0; i < PARTS; i++) {
        *(double *)out.data += part[i];
    }
}

void cpu_sum(struct tensor out, struct tensor x)
{
    add_sum(out, x, part_sum);
}

void cpu_sum_squares(struct tensor out, struct tensor x)
{
    add_sum(out, x, part_squares);
}
