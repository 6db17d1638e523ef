// ops/cpu/rope.c - rotary position embedding (Su et al. 2021) on halves of a head, in place.
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector.h"

#include <assert.h>

// (x1, x2) <- (x1 cos - x2 sin, x2 cos + x1 sin); turn = -1 turns back.
static void turn_head(struct tensor x, int64_t first, const float *angles, int64_t half, float turn)
{
    float buffer[4][BLOCK / 2];
    const float *x1 = block_load(buffer[0], x, first, half);
    const float *x2 = block_load(buffer[1], x, first + half, half);
    float *y1 = block_target(buffer[2], x, first), *y2 = block_target(buffer[3], x, first + half);
    const float *cosine = angles, *sine = angles + half;
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        const float a = x1[i], b = x2[i], s = turn * sine[i];
        y1[i] = a * cosine[i] - b * s;
        y2[i] = b * cosine[i] + a * s;
    }
    block_store(x, first, y1, half);
    block_store(x, first + half, y2, half);
}

void cpu_rope(struct tensor x, struct tensor positions, struct tensor table, int64_t head_dim,
              bool inverse)
{
    const int64_t N = x.dim[0], C = x.dim[1], P = table.dim[0], rotary = table.dim[1];
    assert(C % head_dim == 0 && rotary <= head_dim && rotary % 2 == 0 && rotary <= BLOCK);
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (N * C > SMALL_WORK)
    for (int64_t n = 0; n < N; n++) {
        const int64_t p = data_i32(positions)[n];
        assert(p >= 0 && p < P);
        for (int64_t c = 0; c < C; c += head_dim) {
            turn_head(x, n * C + c, row_f32(table, p), rotary / 2, inverse ? -1.0f : 1.0f);
        }
    }
}
