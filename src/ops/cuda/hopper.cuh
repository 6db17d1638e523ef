// ops/cuda/hopper.cuh - a kernel of BF16 products by wgmma (sm_90a): a persistent block a multiprocessor, in
// which one warpgroup copies operands into a ring of stages and two multiply. What is multiplied, and what
// becomes of a tile's sums, are the product's: find_work, operand_a, operand_b and finish_tile of its type.
//
// Copies are cp.async, chunk by chunk: rows of a group begin anywhere, or lie anywhere, matrices lie anywhere, tails
// are filled with zeros, and no host needs to know sizes or addresses. A copying thread tells that a stage is
// there LAG stages later, when its own copies have arrived and are fenced for the tensor cores' proxy.
#pragma once
#include "ops/cuda/matmul.h"
#include "ops/cuda/warp_product.cuh"
#include "ops/cuda/wgmma.cuh"

// 128 x 256 of the output, 64 x 256 a multiplying warpgroup (128 sums a thread), or 128 x 128. Four stages of
// 64 elements of k: 48 KB each (32). One block of 384 threads a multiprocessor: 168 registers a thread at the
// start, then 56 for those that copy and 224 for those that multiply.
constexpr int GROUP = 128; // threads
constexpr int MULTIPLIERS = 2;
constexpr int HOPPER_THREADS = GROUP * (1 + MULTIPLIERS);
constexpr int HEIGHT = 64 * MULTIPLIERS;
constexpr int STAGES = 4;
[[maybe_unused]] constexpr int LAG = 2;
constexpr int A_BYTES = HEIGHT * SLAB_BYTES;
constexpr int BARRIER_BYTES = 1024; // so that what follows stays aligned
[[maybe_unused]] constexpr int COPY_REGISTERS = 56;
[[maybe_unused]] constexpr int MULTIPLY_REGISTERS = 224;

template <int WIDTH> struct ring { // in shared memory
    static constexpr int B_BYTES = WIDTH * SLAB_BYTES, STAGE_BYTES = A_BYTES + B_BYTES;
    static constexpr int BYTES = 1024 + BARRIER_BYTES + STAGES * STAGE_BYTES;
    uint32_t base;
    __device__ uint32_t full(int slot) const
    {
        return base + slot * 8;
    }
    __device__ uint32_t empty(int slot) const
    {
        return base + (STAGES + slot) * 8;
    }
    __device__ uint32_t a(int slot) const
    {
        return base + BARRIER_BYTES + slot * STAGE_BYTES;
    }
    __device__ uint32_t b(int slot) const
    {
        return a(slot) + A_BYTES;
    }
};

template <bool A_ALONG_K, bool B_ALONG_K, int WIDTH, class P>
static __device__ void copy_tiles(const P &p, const ring<WIDTH> r)
{
    const int thread = threadIdx.x % GROUP;
    int step = 0; // over all tiles of the block
    typename P::template work_of<WIDTH / 2> w;
    for (int t = blockIdx.x; find_work(w, p, HEIGHT, WIDTH, t); t += gridDim.x) {
        for (int k = 0; k < w.k; k += SLAB, step++) {
            const int slot = step % STAGES;
            barrier_wait(r.empty(slot), step / STAGES % 2 ^ 1); // at first all are
            load_operand<A_ALONG_K, HEIGHT, GROUP>(r.a(slot), operand_a(w), w.m, k, w.k, thread);
            load_operand<B_ALONG_K, WIDTH, GROUP>(r.b(slot), operand_b(w), w.n, k, w.k, thread);
            copy_commit();
            if (step < LAG) continue;
            copy_wait<LAG>();
            fence_before_wgmma();
            barrier_arrive(r.full((step - LAG) % STAGES));
        }
    }
    copy_wait<0>();
    fence_before_wgmma();
    for (int late = step < LAG ? 0 : step - LAG; late < step; late++) {
        barrier_arrive(r.full(late % STAGES));
    }
}

template <bool A_ALONG_K, bool B_ALONG_K, int WIDTH>
static __device__ __forceinline__ void multiply_slot(float (&sums)[WIDTH / 2], const ring<WIDTH> r,
                                                     int slot, int part)
{
    // Along k, 16 elements are 32 bytes of a row; else they are 16 rows.
    constexpr int A_STEP = A_ALONG_K ? 32 : 16 * SLAB_BYTES,
                  B_STEP = B_ALONG_K ? 32 : 16 * SLAB_BYTES;
    const uint32_t a = r.a(slot) + part * 64 * SLAB_BYTES, b = r.b(slot);
    wgmma_pin(sums);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < SLAB / 16; k++) {
        wgmma<A_ALONG_K ? WGMMA_K_MAJOR : WGMMA_MN_MAJOR,
              B_ALONG_K ? WGMMA_K_MAJOR : WGMMA_MN_MAJOR>(
            sums, wgmma_operand(a + k * A_STEP, SLAB * SLAB_BYTES),
            wgmma_operand(b + k * B_STEP, SLAB * SLAB_BYTES));
    }
    wgmma_commit();
    wgmma_pin(sums);
}

// The first of the two rows of a tile whose sums the thread holds; the other is 8 below (wgmma.cuh).
static __device__ __forceinline__ int first_row(int part)
{
    const int thread = threadIdx.x % GROUP;
    return part * 64 + thread / 32 * 16 + thread % 32 / 4;
}

// A product that is stored as it is.
template <class T, int WIDTH, class P>
static __device__ __forceinline__ void finish_tile(const P &p, const work &w,
                                                   const float (&sums)[WIDTH / 2], int part)
{
    const bool whole = is_whole<T>(w, WIDTH), accumulate = adds(p);
    if (w.k == 0 && accumulate) return;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = first_row(part) + half * 8;
        store_row<T, WIDTH / 8>(
            (T *)w.c + row * w.ldc, w.n, row < w.m, whole, accumulate,
            [&](int j) { return make_float2(sums[4 * j + 2 * half], sums[4 * j + 2 * half + 1]); });
    }
}

template <bool A_ALONG_K, bool B_ALONG_K, int WIDTH, class T, class P>
static __device__ void multiply_tiles(const P &p, const ring<WIDTH> r)
{
    const int part = threadIdx.x / GROUP - 1, lane = threadIdx.x % 32;
    int step = 0;
    typename P::template work_of<WIDTH / 2> w;
    for (int t = blockIdx.x; find_work(w, p, HEIGHT, WIDTH, t); t += gridDim.x) {
        float sums[WIDTH / 2];
#pragma unroll
        for (int i = 0; i < WIDTH / 2; i++) {
            sums[i] = 0;
        }
        for (int k = 0; k < w.k; k += SLAB, step++) {
            barrier_wait(r.full(step % STAGES), step / STAGES % 2);
            multiply_slot<A_ALONG_K, B_ALONG_K, WIDTH>(sums, r, step % STAGES, part);
            if (k == 0) continue;
            wgmma_wait<1>(); // the products of the step before
            if (lane == 0) barrier_arrive(r.empty((step - 1) % STAGES));
        }
        wgmma_wait<0>();
        wgmma_pin(sums);
        if (w.k > 0 && lane == 0) barrier_arrive(r.empty((step - 1) % STAGES));
        finish_tile<T, WIDTH>(p, w, sums, part);
    }
}

template <bool A_ALONG_K, bool B_ALONG_K, int WIDTH, class T, class P>
static __global__ void __launch_bounds__(HOPPER_THREADS, 1) hopper_kernel(P p)
{
#if WGMMA_COMPILED
    DYNAMIC_SHARED(char, memory);
    const ring<WIDTH> r = {(shared_address(memory) + 1023) & ~1023U};
    if (threadIdx.x == 0) {
        for (int slot = 0; slot < STAGES; slot++) {
            barrier_init(r.full(slot), GROUP);
            barrier_init(r.empty(slot), MULTIPLIERS * GROUP / 32); // a lane of each warp
        }
    }
    __syncthreads();
    if (threadIdx.x < GROUP) {
        lower_registers<COPY_REGISTERS>();
        copy_tiles<A_ALONG_K, B_ALONG_K, WIDTH>(p, r);
    } else {
        raise_registers<MULTIPLY_REGISTERS>();
        multiply_tiles<A_ALONG_K, B_ALONG_K, WIDTH, T>(p, r);
    }
#endif
}

template <bool A_ALONG_K, bool B_ALONG_K, class T, class P>
static void run_hopper(const P &p, bool wide)
{
    if (wide) {
        const auto kernel = hopper_kernel<A_ALONG_K, B_ALONG_K, 256, T, P>;
        LAUNCH(kernel, cuda_processors(), HOPPER_THREADS, ring<256>::BYTES, p);
    } else {
        const auto kernel = hopper_kernel<A_ALONG_K, B_ALONG_K, 128, T, P>;
        LAUNCH(kernel, cuda_processors(), HOPPER_THREADS, ring<128>::BYTES, p);
    }
}

// Tiles of 256 columns, or of 128: else too much of the last tile is empty.
static inline bool wide_tiles(int columns)
{
    return columns % 256 == 0 || columns >= 1024;
}
