// ops/cuda/f32_product.cuh - a tile of a product in F32, with what is not F32 converted as it is loaded: exact
// products of any floating types at any address.
#pragma once
#include "ops/cuda/warp_product.cuh"

constexpr int F32_TILE = 64, F32_DEPTH = 16, F32_THREADS = 256, F32_PAD = 4, F32_LOADS = 4;

// 64 x 64 by 256 threads, 4 x 4 each. About 60 registers; 8.5 KB of shared memory.
struct f32_shared {
    float a[F32_DEPTH][F32_TILE + F32_PAD], b[F32_DEPTH][F32_TILE + F32_PAD];
};

static __device__ __forceinline__ float load_value(const char *data, int64_t i, int type)
{
    if (type == DTYPE_F32) return ((const float *)data)[i];
    if (type == DTYPE_BF16) return read_element((const uint16_t *)data + i);
    return to_float(((const f16 *)data)[i]);
}

// Weights in a checkpoint lie at any address.
static __device__ __forceinline__ float load_unaligned(const char *data, int64_t i, int type)
{
    const int size = type == DTYPE_F32 ? 4 : 2;
    if ((uintptr_t)data % size == 0) return load_value(data, i, type);
    const unsigned char *p = (const unsigned char *)data + i * size;
    uint32_t bits = (uint32_t)p[0] | (uint32_t)p[1] << 8;
    if (size == 4) bits |= (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    if (type == DTYPE_F32) return float_of_bits(bits);
    if (type == DTYPE_BF16) return float_of_bits(bits << 16);
    const uint16_t half = (uint16_t)bits;
    f16 h;
    memcpy((void *)&h, &half, sizeof h);
    return to_float(h);
}

// Element `column` of stored row i; where it does not exist (beyond `rows` or `columns`), 0.
static __device__ __forceinline__ float fetch_element(const plain_operand &o, int i, int rows,
                                                      int column, int columns, int type)
{
    return i < rows && column < columns ? load_unaligned(o.data, i * o.ld + column, type) : 0.0f;
}
template <class S>
static __device__ __forceinline__ float fetch_element(const S &s, int i, int rows, int column,
                                                      int columns, int type)
{
    const int size = type == DTYPE_F32 ? 4 : 2;
    if (!s.exists(i, rows) || column >= columns) return 0.0f;
    return load_unaligned(s.row(s.find(i), size), column, type);
}

// The thread's elements of an operand's 16 k from k0 on, the fastest index across threads.
template <bool ALONG_K, class S>
static __device__ __forceinline__ void fetch_f32(float (&v)[F32_LOADS], const S &operand, int type,
                                                 int extent, int k0, int k)
{
#pragma unroll
    for (int i = 0; i < F32_LOADS; i++) {
        const int at = threadIdx.x + i * F32_THREADS;
        const int r = ALONG_K ? at / F32_DEPTH : at % F32_TILE;
        const int kk = k0 + (ALONG_K ? at % F32_DEPTH : at / F32_TILE);
        v[i] = ALONG_K ? fetch_element(operand, r, extent, kk, k, type)
                       : fetch_element(operand, kk, k, r, extent, type);
    }
}

template <bool ALONG_K>
static __device__ __forceinline__ void place_f32(float (*tile)[F32_TILE + F32_PAD],
                                                 const float (&v)[F32_LOADS])
{
#pragma unroll
    for (int i = 0; i < F32_LOADS; i++) {
        const int at = threadIdx.x + i * F32_THREADS;
        if (ALONG_K) {
            tile[at % F32_DEPTH][at / F32_DEPTH] = v[i];
        } else {
            tile[at / F32_TILE][at % F32_TILE] = v[i];
        }
    }
}

// sums[i][j] of rows 4 (thread / 16) + i and columns 4 (thread % 16) + j
template <bool A_ALONG_K, bool B_ALONG_K, class W>
static __device__ void multiply_f32(float (&sums)[4][4], const W &w, int a_type, int b_type,
                                    f32_shared &s)
{
    const int m = threadIdx.x / 16 * 4, n = threadIdx.x % 16 * 4;
    float a[F32_LOADS], b[F32_LOADS];
    if (w.k > 0) {
        fetch_f32<A_ALONG_K>(a, operand_a(w), a_type, w.m, 0, w.k);
        fetch_f32<B_ALONG_K>(b, operand_b(w), b_type, w.n, 0, w.k);
    }
    for (int k0 = 0; k0 < w.k; k0 += F32_DEPTH) {
        __syncthreads();
        place_f32<A_ALONG_K>(s.a, a);
        place_f32<B_ALONG_K>(s.b, b);
        __syncthreads();
        if (k0 + F32_DEPTH < w.k) {
            fetch_f32<A_ALONG_K>(a, operand_a(w), a_type, w.m, k0 + F32_DEPTH, w.k);
            fetch_f32<B_ALONG_K>(b, operand_b(w), b_type, w.n, k0 + F32_DEPTH, w.k);
        }
#pragma unroll
        for (int k = 0; k < F32_DEPTH; k++) {
            float x[4], y[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                x[i] = s.a[k][m + i];
                y[i] = s.b[k][n + i];
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    sums[i][j] = fmaf(x[i], y[j], sums[i][j]);
                }
            }
        }
    }
    __syncthreads();
}

template <class T>
static __device__ __forceinline__ void store_f32(const work &w, const float (&sums)[4][4],
                                                 bool accumulate)
{
    const int m = threadIdx.x / 16 * 4, n = threadIdx.x % 16 * 4;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (m + i >= w.m) continue;
        T *c = (T *)w.c + (m + i) * w.ldc + n;
        store_pair(c, w.n - n, sums[i][0], sums[i][1], accumulate);
        store_pair(c + 2, w.n - n - 2, sums[i][2], sums[i][3], accumulate);
    }
}
