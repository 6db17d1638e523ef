// ops/cuda/engine.cuh - one tile of a product in the registers of a block of threads, by tensor cores or in F32,
// with one face: kernels that do more than a plain product are written once for both.
#pragma once
#include "ops/cuda/f32_product.cuh"

struct bf16_engine {
    static constexpr int SIDE = TILE, THREADS = TILE_THREADS, SHARED = TILE_SHARED;
    static constexpr int EACH = WARP_N / 2;     // of pair_operand, for each_pair
    static constexpr int PARTS = TILE / WARP_N; // of a row, for each_row
    tile_sums sums;
    uint32_t shared;

    __device__ bf16_engine(char *memory, int, int)
        : shared((shared_address(memory) + 1023) & ~1023U)
    {
        clear();
    }
    __device__ void clear()
    {
        clear_sums(sums);
    }
    template <bool A_ALONG_K, bool B_ALONG_K, class W>
    __device__ void multiply(const W &w) // sums += a b
    {
        multiply_tile<A_ALONG_K, B_ALONG_K>(sums, w, shared);
    }
    template <class T> __device__ void add_to(const work &w) const
    {
        store_tile<T>(w, sums, true);
    }
    template <class F>
    __device__ void each(F f) const // f(row, column, sum) of those that the thread holds
    {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        const int m = warp / 4 * WARP_M + lane / 4, n = warp % 4 * WARP_N + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < WARP_M / 16; i++) {
#pragma unroll
            for (int j = 0; j < WARP_N / 8; j++) {
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    f(m + i * 16 + e / 2 * 8, n + j * 8 + e % 2, sums[i][j][e]);
                }
            }
        }
    }
    // Where b was a pair_operand<EACH>: f(row, column, its sum and the next in the first matrix, in the second),
    // columns counted within one matrix.
    template <class F> __device__ void each_pair(F f) const
    {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        const int m = warp / 4 * WARP_M + lane / 4, n = warp % 4 * EACH + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < WARP_M / 16; i++) {
#pragma unroll
            for (int e = 0; e < 4; e += 2) {
#pragma unroll
                for (int j = 0; j < EACH / 8; j++) {
                    const float *one = sums[i][j], *other = sums[i][j + EACH / 8];
                    f(m + i * 16 + e / 2 * 8, n + j * 8, make_float2(one[e], one[e + 1]),
                      make_float2(other[e], other[e + 1]));
                }
            }
        }
    }
    // f(row, column, its sum and the next) for each, then done(row, part, what f returned for a row's columns of a
    // part, added up), once each.
    template <class F, class D> __device__ void each_row(F f, D done) const
    {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        const int m = warp / 4 * WARP_M + lane / 4, n = warp % 4 * WARP_N + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < WARP_M / 16; i++) {
#pragma unroll
            for (int e = 0; e < 4; e += 2) {
                float sum = 0;
#pragma unroll
                for (int j = 0; j < WARP_N / 8; j++) {
                    sum += f(m + i * 16 + e / 2 * 8, n + j * 8,
                             make_float2(sums[i][j][e], sums[i][j][e + 1]));
                }
                sum += __shfl_xor_sync(0xFFFFFFFFU, sum, 1);
                sum += __shfl_xor_sync(0xFFFFFFFFU, sum, 2);
                if (lane % 4 == 0) done(m + i * 16 + e / 2 * 8, warp % PARTS, sum);
            }
        }
    }
};

struct f32_engine {
    static constexpr int SIDE = F32_TILE, THREADS = F32_THREADS, SHARED = F32_TILE * F32_TILE * 4;
    static constexpr int EACH = 2, PARTS = 1;
    float sums[4][4];
    f32_shared *shared;
    int a_type, b_type;

    __device__ f32_engine(char *memory, int a, int b)
        : shared((f32_shared *)memory), a_type(a), b_type(b)
    {
        clear();
    }
    __device__ void clear()
    {
#pragma unroll
        for (int i = 0; i < 16; i++) {
            sums[i / 4][i % 4] = 0;
        }
    }
    template <bool A_ALONG_K, bool B_ALONG_K, class W>
    __device__ void multiply(const W &w)
    {
        multiply_f32<A_ALONG_K, B_ALONG_K>(sums, w, a_type, b_type, *shared);
    }
    template <class T> __device__ void add_to(const work &w) const
    {
        store_f32<T>(w, sums, true);
    }
    template <class F> __device__ void each(F f) const
    {
#pragma unroll
        for (int i = 0; i < 16; i++) {
            f((int)threadIdx.x / 16 * 4 + i / 4, (int)threadIdx.x % 16 * 4 + i % 4,
              sums[i / 4][i % 4]);
        }
    }
    template <class F> __device__ void each_pair(F f) const
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            f((int)threadIdx.x / 16 * 4 + i, (int)threadIdx.x % 16 * 2,
              make_float2(sums[i][0], sums[i][1]), make_float2(sums[i][2], sums[i][3]));
        }
    }
    template <class F, class D> __device__ void each_row(F f, D done) const
    {
        const int m = threadIdx.x / 16 * 4, n = threadIdx.x % 16 * 4;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float sum = f(m + i, n, make_float2(sums[i][0], sums[i][1]));
            sum += f(m + i, n + 2, make_float2(sums[i][2], sums[i][3]));
            for (int step = 8; step > 0; step /= 2) { // the 16 threads of the row
                sum += __shfl_xor_sync(0xFFFFFFFFU, sum, step);
            }
            if (threadIdx.x % 16 == 0) done(m + i, 0, sum);
        }
    }
};

static inline bool both_bf16(struct tensor a, struct tensor b)
{
    return a.dtype == DTYPE_BF16 && b.dtype == DTYPE_BF16;
}
