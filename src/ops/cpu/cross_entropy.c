// ops/cpu/cross_entropy.c - the loss of one token a row, its gradient written over the logits.
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector.h"

#include <assert.h>

// log(sum e^x) of a row, in two passes: the largest, then the sum of what is relative to it.
VECTOR_CLONES
static double log_sum_exp(struct tensor logits, int64_t n)
{
    const int64_t V = logits.dim[1];
    float buffer[2][BLOCK], max = -INFINITY;
    for (int64_t c = 0; c < V; c += BLOCK) {
        const int64_t count = min_i64(BLOCK, V - c);
        max = fmaxf(max, max_f32(block_load(buffer[0], logits, n * V + c, count), count));
    }
    double sum = 0;
    for (int64_t c = 0; c < V; c += BLOCK) {
        const int64_t count = min_i64(BLOCK, V - c);
        const float *x = block_load(buffer[0], logits, n * V + c, count);
        sum += (double)exp_sum_f32(buffer[1], x, max, count);
    }
    return (double)max + log(sum);
}

// logits <- scale (softmax - onehot)
VECTOR_CLONES
static void gradient(struct tensor logits, int64_t n, int64_t target, double lse, float scale)
{
    const int64_t V = logits.dim[1];
    // e^(x - lse) with lse as a sum of two floats: one alone costs 1e-6 at lse = 10.
    const float high = (float)lse, low = (float)(lse - (double)high);
    for (int64_t c = 0; c < V; c += BLOCK) {
        const int64_t count = min_i64(BLOCK, V - c);
        float buffer[2][BLOCK];
        const float *x = block_load(buffer[0], logits, n * V + c, count);
        float *dx = block_target(buffer[1], logits, n * V + c);
#pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            dx[i] = scale * exp_f32((x[i] - high) - low);
        }
        if (target >= c && target < c + count) dx[target - c] -= scale;
        block_store(logits, n * V + c, dx, count);
    }
}

void cpu_cross_entropy(struct tensor loss, struct tensor logits, struct tensor targets, float scale)
{
    const int64_t N = logits.dim[0], V = logits.dim[1];
    assert(tensor_count(loss) == N && tensor_count(targets) == N);
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (N * V > SMALL_WORK / 4)
    for (int64_t n = 0; n < N; n++) {
        const int64_t target = data_i32(targets)[n];
        assert(target >= 0 && target < V);
        const double lse = log_sum_exp(logits, n);
        float buffer;
        data_f32(loss)[n] = (float)(lse - (double)*block_load(&buffer, logits, n * V + target, 1));
        if (scale != 0.0f) gradient(logits, n, target, lse, scale);
    }
}
