// ops/cuda/attention.cuh - parts of the tensor-core kernels of attention. A warp owns 16 rows of a tile of scores
// (queries, or keys where the transposed tile is formed) and keeps them in registers: the sums of one product
// are, rounded to BF16 and as they lie, the a-operand of the next.
#pragma once
#include "ops/cuda/attention.h"
#include "ops/cuda/warp_product.cuh"

static constexpr float LOG2_E = 1.4426950408889634f;

template <int D> struct head { // a tile of ROWS rows of one head
    static constexpr int SLABS = (D + SLAB - 1) / SLAB, ROW_BYTES = SLABS * SLAB_BYTES;
};

// Rows first .. first + ROWS of head h, of which `rows` exist, by THREADS threads.
template <int D, int ROWS, int THREADS>
static __device__ __forceinline__ void load_head(uint32_t tile, const void *x, int heads, int h,
                                                 int width, int first, int rows)
{
    const int64_t ld = (int64_t)heads * width;
    const uint16_t *from = (const uint16_t *)x + first * ld + (int64_t)h * width;
    load_tile<ROWS, head<D>::SLABS * SLAB, THREADS>(tile, {from, ld, rows - first, width},
                                                    threadIdx.x);
}

// The step-th stage of a loop over keys from `first` on: keys and values of head g. Nothing beyond the last step;
// a group of copies is closed all the same.
template <int D, class TILE>
static __device__ __forceinline__ void load_keys(uint32_t stages, const struct attention_problem &a, int g,
                                                 int first, int step, int steps)
{
    const int key = first + step * TILE::KEYS;
    const uint32_t at = stages + step % 2 * TILE::STAGE;
    if (step < steps) {
        load_head<D, TILE::KEYS, TILE::THREADS>(at, a.k, a.G, g, a.D, key, a.M);
        load_head<D, TILE::KEYS, TILE::THREADS>(at + TILE::STAGE / 2, a.v, a.G, g, a.D, key, a.M);
    }
    copy_commit();
}

// s (16, COLUMNS) = rows [row, row + 16) of tile a times the rows of tile b, over D
template <int D, int A_ROWS, int B_ROWS, int COLUMNS>
static __device__ __forceinline__ void multiply_heads(float (&s)[COLUMNS / 8][4], uint32_t a_tile,
                                                      int row, uint32_t b_tile)
{
#pragma unroll
    for (int j = 0; j < COLUMNS / 8; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            s[j][e] = 0;
        }
    }
#pragma unroll
    for (int k = 0; k < D; k += 16) {
        uint32_t a[4];
        load_a<true, A_ROWS>(a, a_tile, row, k);
#pragma unroll
        for (int j = 0; j < COLUMNS / 16; j++) {
            uint32_t b[4];
            load_b<true, B_ROWS>(b, b_tile, j * 16, k);
            multiply_bf16(s[2 * j], a, b[0], b[1]);
            multiply_bf16(s[2 * j + 1], a, b[2], b[3]);
        }
    }
}

// sums (16, WIDTH) += p (16, ROWS) times columns [column, column + WIDTH) of the rows of a tile
template <int ROWS, int WIDTH>
static __device__ __forceinline__ void multiply_rows_of(float (&sums)[WIDTH / 8][4],
                                                        const float (&p)[ROWS / 8][4],
                                                        uint32_t tile, int column)
{
#pragma unroll
    for (int k = 0; k < ROWS / 16; k++) {
        const uint32_t a[4] = {round_bf16(p[2 * k][0], p[2 * k][1]),
                               round_bf16(p[2 * k][2], p[2 * k][3]),
                               round_bf16(p[2 * k + 1][0], p[2 * k + 1][1]),
                               round_bf16(p[2 * k + 1][2], p[2 * k + 1][3])};
#pragma unroll
        for (int j = 0; j < WIDTH / 16; j++) {
            uint32_t b[4];
            load_b<false, ROWS>(b, tile, column + j * 16, k * 16);
            multiply_bf16(sums[2 * j], a, b[0], b[1]);
            multiply_bf16(sums[2 * j + 1], a, b[2], b[3]);
        }
    }
}

template <int WIDTH> static __device__ __forceinline__ void clear_rows(float (&sums)[WIDTH / 8][4])
{
#pragma unroll
    for (int j = 0; j < WIDTH / 8; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            sums[j][e] = 0;
        }
    }
}

// Rows `row` and row + 8 (where they exist) of head h: sums times a factor for each, from column `column` on.
template <int WIDTH>
static __device__ __forceinline__ void
store_head(void *x, int heads, int h, int width, int rows, int row, int column,
           const float (&sums)[WIDTH / 8][4], float above, float below)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int r = row + half * 8;
        if (r >= rows) continue;
        const float factor = half ? below : above;
        const int first = column + lane % 4 * 2;
        uint16_t *to = (uint16_t *)x + ((int64_t)r * heads + h) * width + first;
#pragma unroll
        for (int j = 0; j < WIDTH / 8; j++) {
            store_pair(to + j * 8, width - first - j * 8, sums[j][2 * half] * factor,
                       sums[j][2 * half + 1] * factor, false);
        }
    }
}

// The keys of a row: none where the span is empty or there is no such row.
static __device__ __forceinline__ int2 span_of(const struct attention_problem &a, int row)
{
    int2 s = make_int2(1 << 30, -1);
    if (row >= a.N) return s;
    const int2 given = make_int2(a.span[2 * (int64_t)row], a.span[2 * (int64_t)row + 1]);
    return given.x <= given.y ? given : s;
}

static __device__ __forceinline__ int warp_least(int x)
{
    for (int step = 16; step > 0; step /= 2) {
        x = min(x, __shfl_xor_sync(0xFFFFFFFFU, x, step));
    }
    return x;
}

// First and last key that rows [row, row + rows) attend to, rows a multiple of 32 or less; the same in all lanes.
static __device__ __forceinline__ int2 reach_of(const struct attention_problem &a, int row,
                                                int rows)
{
    int2 r = make_int2(1 << 30, -1);
    for (int i = threadIdx.x % 32; i < rows; i += 32) {
        const int2 s = span_of(a, row + i);
        r = make_int2(min(r.x, s.x), max(r.y, s.y));
    }
    return make_int2(warp_least(r.x), -warp_least(-r.y));
}
