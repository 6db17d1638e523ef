// ops/cuda/warp_product.cuh - a tile of a product by eight warps with mma.sync, and its way to memory. Part of
// more than one kernel: products over banks, over blocks, and scores.
#pragma once
#include "ops/cuda/product.cuh"

// A tile of 128 x 128 by 8 warps in 2 rows and 4 columns, each 64 x 32: 64 sums a thread. Three stages of 64
// elements of k are 96 KB: one block a multiprocessor on sm_80, so registers may pass 128.
constexpr int TILE = 128;
constexpr int TILE_THREADS = 256;
constexpr int TILE_STAGES = 3;
constexpr int TILE_OPERAND = TILE * SLAB_BYTES; // bytes of one operand in one stage
constexpr int TILE_SHARED = TILE_STAGES * 2 * TILE_OPERAND + 1024;
constexpr int WARP_M = 64;
constexpr int WARP_N = 32;

typedef float tile_sums[WARP_M / 16][WARP_N / 8][4];

template <bool A_ALONG_K, bool B_ALONG_K>
static __device__ __forceinline__ void multiply_stage(tile_sums &sums, uint32_t a_tile,
                                                      uint32_t b_tile)
{
    const int warp = threadIdx.x / 32, m = warp / 4 * WARP_M, n = warp % 4 * WARP_N;
#pragma unroll
    for (int k = 0; k < SLAB; k += 16) {
        uint32_t b[WARP_N / 16][4];
#pragma unroll
        for (int j = 0; j < WARP_N / 16; j++) {
            load_b<B_ALONG_K, B_ALONG_K ? (int)TILE : (int)SLAB>(b[j], b_tile, n + j * 16, k);
        }
#pragma unroll
        for (int i = 0; i < WARP_M / 16; i++) {
            uint32_t a[4];
            load_a<A_ALONG_K, A_ALONG_K ? (int)TILE : (int)SLAB>(a, a_tile, m + i * 16, k);
#pragma unroll
            for (int j = 0; j < WARP_N / 8; j++) {
                multiply_bf16(sums[i][j], a, b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
            }
        }
    }
}

// sums += a b over all of w.k. The pipeline is empty before and after.
template <bool A_ALONG_K, bool B_ALONG_K, class W>
static __device__ void multiply_tile(tile_sums &sums, const W &w, uint32_t shared)
{
    const int steps = div_up(w.k, SLAB);
    auto load = [&](int step) {
        if (step < steps) {
            const uint32_t stage = shared + step % TILE_STAGES * 2 * TILE_OPERAND;
            load_operand<A_ALONG_K, TILE, TILE_THREADS>(stage, operand_a(w), w.m, step * SLAB, w.k,
                                                        threadIdx.x);
            load_operand<B_ALONG_K, TILE, TILE_THREADS>(stage + TILE_OPERAND, operand_b(w), w.n,
                                                        step * SLAB, w.k, threadIdx.x);
        }
        copy_commit(); // empty ones too: their number tells which stage is complete
    };
    for (int step = 0; step < TILE_STAGES - 1; step++) {
        load(step);
    }
    for (int step = 0; step < steps; step++) {
        copy_wait<TILE_STAGES - 2>();
        __syncthreads(); // the stage is there for all, and all are done with the one before it
        load(step + TILE_STAGES - 1);
        const uint32_t stage = shared + step % TILE_STAGES * 2 * TILE_OPERAND;
        multiply_stage<A_ALONG_K, B_ALONG_K>(sums, stage, stage + TILE_OPERAND);
    }
    copy_wait<0>();
    __syncthreads();
}

static __device__ __forceinline__ void clear_sums(tile_sums &sums)
{
#pragma unroll
    for (int i = 0; i < WARP_M / 16; i++) {
#pragma unroll
        for (int j = 0; j < WARP_N / 8; j++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                sums[i][j][e] = 0;
            }
        }
    }
}

static __device__ __forceinline__ float read_element(const float *p)
{
    return *p;
}
static __device__ __forceinline__ float read_element(const uint16_t *p)
{
    return float_of_bits((uint32_t)*p << 16);
}
// Two rounded to nearest even, the first in the lower half.
static __device__ __forceinline__ uint32_t round_bf16(float x, float y)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}
static __device__ __forceinline__ void write_pair(float *c, float x, float y)
{
    *(float2 *)c = make_float2(x, y);
}
static __device__ __forceinline__ void write_pair(uint16_t *c, float x, float y)
{
    *(uint32_t *)c = round_bf16(x, y);
}
static __device__ __forceinline__ void write_element(float *c, float x)
{
    *c = x;
}
static __device__ __forceinline__ void write_element(uint16_t *c, float x)
{
    *c = (uint16_t)round_bf16(x, 0);
}

// Two neighbours of a row, of which `left` exist.
template <class T>
static __device__ __forceinline__ void store_pair(T *c, int left, float x, float y, bool accumulate)
{
    if (left <= 0) return;
    if (accumulate) {
        x += read_element(c);
        if (left > 1) y += read_element(c + 1);
    }
    if (left > 1 && (uintptr_t)c % (2 * sizeof(T)) == 0) {
        write_pair(c, x, y);
        return;
    }
    write_element(c, x);
    if (left > 1) write_element(c + 1, y);
}

static __device__ __forceinline__ float2 read_pair(const float *c)
{
    return *(const float2 *)c;
}
static __device__ __forceinline__ float low_half(uint32_t pair) // of two BF16
{
    return float_of_bits(pair << 16);
}
static __device__ __forceinline__ float high_half(uint32_t pair)
{
    return float_of_bits(pair & 0xFFFF0000U);
}
static __device__ __forceinline__ float2 read_pair(const uint16_t *c)
{
    const uint32_t bits = *(const uint32_t *)c;
    return make_float2(low_half(bits), high_half(bits));
}

// v[i] of lane j of four becomes v[j] of lane i.
static __device__ __forceinline__ void transpose_four(uint32_t (&v)[4])
{
    const int lane = threadIdx.x;
#pragma unroll
    for (int bit = 1; bit <= 2; bit *= 2) {
#pragma unroll
        for (int pair = 0; pair < 2; pair++) {
            const int low = bit == 1 ? 2 * pair : pair, high = low + bit;
            const uint32_t got = __shfl_xor_sync(0xFFFFFFFFU, lane & bit ? v[low] : v[high], bit);
            v[low] = lane & bit ? got : v[low];
            v[high] = lane & bit ? v[high] : got;
        }
    }
}

// A row of the output over COUNT tiles of 8 columns, of which lane l holds columns 2 (l % 4) and the next:
// pair(j). `whole`: all columns exist and c is aligned to 16 bytes (the same for all lanes); then BF16 goes
// out in 16-byte pieces, and nothing is asked column by column.
template <class T, int COUNT, class F>
static __device__ __forceinline__ void store_row(T *c, int left, bool exists, bool whole,
                                                 bool accumulate, F pair)
{
    const int in = threadIdx.x % 4;
    if (whole && sizeof(T) == 2 && !accumulate) {
#pragma unroll
        for (int j = 0; j < COUNT; j += 4) {
            uint32_t v[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float2 p = pair(j + i);
                v[i] = round_bf16(p.x, p.y);
            }
            transpose_four(v);
            if (exists) *(uint4 *)(c + (j + in) * 8) = make_uint4(v[0], v[1], v[2], v[3]);
        }
    } else if (whole && exists) {
#pragma unroll
        for (int j = 0; j < COUNT; j += 4) {
            float2 old[4] = {};
#pragma unroll
            for (int i = 0; i < 4; i++) {
                if (accumulate) old[i] = read_pair(c + (j + i) * 8 + in * 2);
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float2 p = pair(j + i);
                write_pair(c + (j + i) * 8 + in * 2, old[i].x + p.x, old[i].y + p.y);
            }
        }
    } else if (exists) {
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            const float2 p = pair(j);
            store_pair(c + j * 8 + in * 2, left - j * 8 - in * 2, p.x, p.y, accumulate);
        }
    }
}

template <class T> static __device__ __forceinline__ bool is_whole(const work &w, int columns)
{
    return w.n >= columns && (uintptr_t)w.c % 16 == 0 && w.ldc * sizeof(T) % 16 == 0;
}

template <class T>
static __device__ __forceinline__ void store_tile(const work &w, const tile_sums &sums,
                                                  bool accumulate)
{
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int m = warp / 4 * WARP_M + lane / 4, n = warp % 4 * WARP_N;
    const bool whole = is_whole<T>(w, TILE);
#pragma unroll
    for (int i = 0; i < WARP_M / 16; i++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = m + i * 16 + half * 8;
            store_row<T, WARP_N / 8>(
                (T *)w.c + row * w.ldc + n, w.n - n, row < w.m, whole, accumulate,
                [&](int j) { return make_float2(sums[i][j][half * 2], sums[i][j][half * 2 + 1]); });
        }
    }
}
