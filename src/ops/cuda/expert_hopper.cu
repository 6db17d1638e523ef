// ops/cuda/expert_hopper.cu - the products of experts that are more than products (expert.cuh) by wgmma.
#include "ops/cuda/expert.cuh"
#include "ops/cuda/hopper.cuh"

// May a row's `columns` columns from element `at` on be accessed 16 bytes at a time?
template <class T>
static __device__ __forceinline__ bool aligned_at(const char *p, int64_t at, int columns)
{
    return ((uintptr_t)p + at * sizeof(T)) % 16 == 0 && columns * sizeof(T) % 16 == 0;
}

// The first half of the sums is g's, the second u's.
template <class T, int WIDTH>
static __device__ __forceinline__ void finish_tile(const up_product &p, const up_work<WIDTH / 2> &w,
                                                   const float (&sums)[WIDTH / 2], int part)
{
    constexpr int COUNT = WIDTH / 16; // tiles of 8 columns of each
    const int64_t first = w.row * p.columns + w.column;
    const bool whole = w.n == WIDTH / 2 && aligned_at<T>(p.g, first, p.columns) &&
                       aligned_at<T>(p.u, first, p.columns) && aligned_at<T>(p.a, first, p.columns);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = first_row(part) + half * 8;
        const bool exists = row < w.m;
        const int64_t at = first + (int64_t)row * p.columns;
        const auto g = [&](int j) {
            return make_float2(sums[4 * j + 2 * half], sums[4 * j + 2 * half + 1]);
        };
        const auto u = [&](int j) { return g(j + COUNT); };
        store_row<T, COUNT>((T *)p.g + at, w.n, exists, whole, false, g);
        store_row<T, COUNT>((T *)p.u + at, w.n, exists, whole, false, u);
        if (!p.a) continue;
        const float weight = exists ? slot_weight(p.weight, p.slot, w.row + row) : 0;
        store_row<T, COUNT>((T *)p.a + at, w.n, exists, whole, false,
                            [&](int j) { return swiglu_pair<T>(weight, g(j), u(j)); });
    }
}

void hopper_up(const up_product &p)
{
    run_hopper<true, true, uint16_t>(p, wide_tiles(2 * p.columns));
}

// Eight neighbouring columns from element `at` on, da' of them in four words: SwiGLU's gradients, 16 bytes at a time.
[[maybe_unused]] static __device__ __forceinline__ float
store_eight(const dhidden_product &p, int64_t at, float weight, const uint32_t (&da)[4])
{
    const uint4 gate = *(const uint4 *)((const uint16_t *)p.g + at);
    const uint4 up = *(const uint4 *)((const uint16_t *)p.u + at);
    const uint32_t g[4] = {gate.x, gate.y, gate.z, gate.w}, u[4] = {up.x, up.y, up.z, up.w};
    uint32_t dg[4], du[4], a[4];
    float dot = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const swiglu_gradient x =
            swiglu_gradients(weight, low_half(da[i]), low_half(g[i]), low_half(u[i]));
        const swiglu_gradient y =
            swiglu_gradients(weight, high_half(da[i]), high_half(g[i]), high_half(u[i]));
        dg[i] = round_bf16(x.dg, y.dg);
        du[i] = round_bf16(x.du, y.du);
        a[i] = round_bf16(x.a, y.a);
        dot += x.dot + y.dot;
    }
    if (p.dg) *(uint4 *)((uint16_t *)p.dg + at) = make_uint4(dg[0], dg[1], dg[2], dg[3]);
    if (p.du) *(uint4 *)((uint16_t *)p.du + at) = make_uint4(du[0], du[1], du[2], du[3]);
    if (p.a) *(uint4 *)((uint16_t *)p.a + at) = make_uint4(a[0], a[1], a[2], a[3]);
    return dot;
}

// A row of a tile over COUNT tiles of 8 columns, as store_row has it; returns the lane's share of the dot product.
template <int COUNT, class F>
static __device__ __forceinline__ float
store_gradients_row(const dhidden_product &p, const token_work &w, int row, bool whole, F pair)
{
    const int in = threadIdx.x % 4;
    const bool exists = row < w.m;
    const float weight = exists ? slot_weight(p.weight, p.slot, w.row + row) : 0;
    float dot = 0;
    if (whole) {
        const int64_t at = (w.row + row) * p.columns + w.column;
#pragma unroll
        for (int j = 0; j < COUNT; j += 4) {
            uint32_t v[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float2 da = pair(j + i);
                v[i] = round_bf16(da.x, da.y);
            }
            transpose_four(v);
            if (exists) dot += store_eight(p, at + (j + in) * 8, weight, v);
        }
    } else if (exists) {
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            const int column = j * 8 + in * 2;
            dot += store_gradients<uint16_t>(p, w.row + row, w.column + column, w.n - column,
                                             weight, pair(j));
        }
    }
    return dot;
}

template <class T, int WIDTH>
static __device__ __forceinline__ void finish_tile(const dhidden_product &p, const token_work &w,
                                                   const float (&sums)[WIDTH / 2], int part)
{
    const int64_t first = w.row * p.columns + w.column;
    const bool whole = w.n == WIDTH && aligned_at<T>(p.g, first, p.columns) &&
                       aligned_at<T>(p.u, first, p.columns) &&
                       (!p.a || aligned_at<T>(p.a, first, p.columns)) &&
                       (!p.dg || aligned_at<T>(p.dg, first, p.columns)) &&
                       (!p.du || aligned_at<T>(p.du, first, p.columns));
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = first_row(part) + half * 8;
        float dot = store_gradients_row<WIDTH / 8>(p, w, row, whole, [&](int j) {
            return make_float2(sums[4 * j + 2 * half], sums[4 * j + 2 * half + 1]);
        });
        dot += __shfl_xor_sync(0xFFFFFFFFU, dot, 1);
        dot += __shfl_xor_sync(0xFFFFFFFFU, dot, 2);
        if (p.dots && row < w.m && threadIdx.x % 4 == 0) {
            p.dots[(w.row + row) * p.parts + w.column / WIDTH] = dot;
        }
    }
}

int hopper_dhidden_parts(int columns)
{
    return div_up(columns, wide_tiles(columns) ? 256 : 128);
}

void hopper_dhidden(const dhidden_product &p)
{
    run_hopper<true, false, uint16_t>(p, wide_tiles(p.columns));
}
