// ops/cuda/sort.cuh - a stable counting sort on the device: item i of `count` goes to bin key(i) (-1: to none),
// items of a bin keep their order. A warp walks a chunk of items, 32 at a time, so ranks within a bin need
// no more than the lanes that share it. Integers only: the result does not depend on timing.
#pragma once
#include "ops/cuda/cuda.h"

constexpr int64_t CHUNK = 512;

struct sorting {
    int64_t count, chunks, bins;
    int32_t *before; // (bins, chunks): items of a bin in earlier chunks, after sort_scan
    int32_t *total;  // (bins)
};

static inline size_t sorting_bytes(int64_t count, int64_t bins)
{
    return (size_t)(bins * (ceil_div(count, CHUNK) + 1)) * sizeof(int32_t);
}

// Lays a sort out in memory of sorting_bytes.
static inline sorting sorting_in(void *memory, int64_t count, int64_t bins)
{
    sorting s = {count, ceil_div(count, CHUNK), bins, (int32_t *)memory, nullptr};
    s.total = s.before + s.chunks * bins;
    return s;
}

// The chunk's items in order, warp-wide: visit(item, bin, lanes of the same bin). bin -1: not sorted, and also
// for the lanes beyond the end.
template <typename K, typename F> static __device__ inline void walk_chunk(const sorting &s, K key, F visit)
{
    const int64_t first = (int64_t)blockIdx.x * CHUNK;
    for (int64_t at = first; at < first + CHUNK; at += WARP) {
        const int64_t i = at + threadIdx.x;
        const int bin = i < s.count ? key(i) : -1;
        visit(i, bin, __match_any_sync(0xffffffffU, bin));
    }
}

static __device__ inline unsigned lanes_below(void)
{
    return (1U << threadIdx.x) - 1U;
}

template <typename K> static __global__ void sort_count(sorting s, K key)
{
    DYNAMIC_SHARED(int32_t, found);
    for (int64_t b = threadIdx.x; b < s.bins; b += WARP) {
        found[b] = 0;
    }
    __syncwarp();
    walk_chunk(s, key, [&](int64_t, int bin, unsigned same) {
        if (bin >= 0 && !(same & lanes_below())) found[bin] += __popc(same);
        __syncwarp();
    });
    for (int64_t b = threadIdx.x; b < s.bins; b += WARP) {
        s.before[b * s.chunks + blockIdx.x] = found[b];
    }
}

// Sum of x over the threads before this one, and over all; of integers.
static __device__ inline int32_t block_scan(int32_t x, int32_t *all)
{
    __shared__ int32_t sum[THREADS];
    const int t = (int)threadIdx.x, n = (int)blockDim.x;
    __syncthreads();
    sum[t] = x;
    __syncthreads();
    for (int by = 1; by < n; by *= 2) {
        const int32_t add = t >= by ? sum[t - by] : 0;
        __syncthreads();
        sum[t] += add;
        __syncthreads();
    }
    *all = sum[n - 1];
    return sum[t] - x;
}

// A block a bin: counts of chunks become the sums of those before.
static __global__ void sort_scan(sorting s)
{
    int32_t *row = s.before + (int64_t)blockIdx.x * s.chunks;
    const int64_t each = ceil_div(s.chunks, blockDim.x), first = threadIdx.x * each;
    const int64_t end = first + each < s.chunks ? first + each : s.chunks;
    int32_t mine = 0, all;
    for (int64_t i = first; i < end; i++) {
        mine += row[i];
    }
    int32_t at = block_scan(mine, &all);
    for (int64_t i = first; i < end; i++) {
        const int32_t n = row[i];
        row[i] = at;
        at += n;
    }
    if (threadIdx.x == 0) s.total[blockIdx.x] = all;
}

// One block: offset (bins+1), where each bin begins.
static __global__ void sort_offsets(sorting s, int32_t *offset)
{
    const int64_t each = ceil_div(s.bins, blockDim.x), first = threadIdx.x * each;
    const int64_t end = first + each < s.bins ? first + each : s.bins;
    int32_t mine = 0, all;
    for (int64_t b = first; b < end; b++) {
        mine += s.total[b];
    }
    int32_t at = block_scan(mine, &all);
    for (int64_t b = first; b < end; b++) {
        offset[b] = at;
        at += s.total[b];
    }
    if (threadIdx.x == 0) offset[s.bins] = all;
}

// place(item, rank among all, or -1)
template <typename K, typename P>
static __global__ void sort_place(sorting s, K key, P place, const int32_t *offset)
{
    DYNAMIC_SHARED(int32_t, next);
    for (int64_t b = threadIdx.x; b < s.bins; b += WARP) {
        next[b] = offset[b] + s.before[b * s.chunks + blockIdx.x];
    }
    __syncwarp();
    walk_chunk(s, key, [&](int64_t i, int bin, unsigned same) {
        const int32_t rank = bin >= 0 ? next[bin] + __popc(same & lanes_below()) : -1;
        __syncwarp();
        if (bin >= 0 && !(same & lanes_below())) next[bin] += __popc(same);
        __syncwarp();
        if (i < s.count) place(i, rank);
    });
}

// The whole sort: offset (bins+1) and place() for every item. memory: sorting_bytes(count, bins).
template <typename K, typename P>
static void stable_sort(int64_t count, int64_t bins, K key, P place, int32_t *offset, void *memory)
{
    const sorting s = sorting_in(memory, count, bins);
    const size_t shared = (size_t)bins * sizeof(int32_t);
    LAUNCH((sort_count<K>), (unsigned)s.chunks, WARP, shared, s, key);
    LAUNCH(sort_scan, (unsigned)bins, THREADS, 0, s);
    LAUNCH(sort_offsets, 1, THREADS, 0, s, offset);
    LAUNCH((sort_place<K, P>), (unsigned)s.chunks, WARP, shared, s, key, place, offset);
}
