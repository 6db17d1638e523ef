// ops/cuda/adamw.cuh - what the optimizer's kernels share: one element of AdamW, and the leaves of a list, which
// blocks walk chunk by chunk.
#pragma once
#include "ops/cuda/cuda.h"

struct adamw_factors { // computed in double, applied in float, as torch does
    float keep, one_minus_beta1, beta2, one_minus_beta2, step, root_correction2, eps, grad_scale;
};

static __device__ inline void adamw_element(float &w, float &m, float &v, float grad,
                                            const adamw_factors &f)
{
    const float g = grad * f.grad_scale, decayed = w * f.keep;
    m = m + f.one_minus_beta1 * (g - m);
    v = v * f.beta2 + f.one_minus_beta2 * g * g;
    w = decayed - f.step * (m / (sqrtf(v) / f.root_correction2 + f.eps));
}

struct leaf_rows { // a list, as kernels get it
    const adamw_leaf *leaf;
    int64_t count, chunks;
};

// Elements [first, end) of a leaf.
struct leaf_chunk {
    const adamw_leaf *leaf;
    int64_t first, end;
};

// Chunk c of a list: of the last leaf whose chunks begin at or before it (empty ones have none).
static __device__ inline leaf_chunk chunk_of(const leaf_rows &l, int64_t c)
{
    int64_t low = 0, high = l.count; // leaf[low].first <= c < leaf[high].first
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        if (l.leaf[middle].first <= c) {
            low = middle;
        } else {
            high = middle;
        }
    }
    const adamw_leaf *x = &l.leaf[low];
    const int64_t *dim = x->w.dim, count = dim[0] * dim[1] * dim[2] * dim[3];
    const int64_t first = (c - x->first) * LEAF_CHUNK, end = first + LEAF_CHUNK;
    return {x, first, end < count ? end : count};
}
