// ops/cuda/adamw_reduced.cu - AdamW over a leaf whose moments, or whose value, are kept in fewer bits: a block of
// threads widens CODE_BLOCK elements, moves them as adamw.cu does, and rounds them back; see ops.h.
#include "ops/cuda/adamw.cuh"
#include "ops/cuda/cuda.h"
#include "ops/cuda/rng.cuh"

extern "C" {
#include "base/codes.h"
}

// Both tables of codes on the device, signed and then unsigned; made at the first call.
static const float *tables(void)
{
    static float *both;
    if (!both) {
        both = static_cast<float *>(cuda_allocate(2 * CODES * sizeof *both));
        if (!both) return NULL;
        cuda_upload(both, codes_signed(), CODES * sizeof *both);
        cuda_upload(both + CODES, codes_unsigned(), CODES * sizeof *both);
    }
    return both;
}

// The index of the nearest of the codes; half way: the lower.
static __device__ inline int nearest(const float *code, float x)
{
    int low = 0, high = CODES - 1;
    while (low < high) {
        const int middle = (low + high) / 2;
        const float border = (float)(((double)code[middle] + (double)code[middle + 1]) / 2);
        if (x > border) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

// One of the moments: F32, BF16, or codes with a scale a block.
struct moment {
    void *x;
    float *scale;
    int dtype;
    uint64_t stream; // of its rounding
};

static __device__ inline float load_moment(const moment &m, const float *code, int64_t i)
{
    if (m.dtype == DTYPE_F32) return ((const float *)m.x)[i];
    if (m.dtype == DTYPE_BF16) return to_float(((const bf16 *)m.x)[i]);
    return __fmul_rn(code[((const uint8_t *)m.x)[i]], m.scale[blockIdx.x]);
}

// All threads of the block call it. The codes of m never lose a sign to 0, those of v (0 or above) no value.
static __device__ inline void store_moment(const moment &m, const float *code, bool is_signed,
                                           float value, int64_t i, int64_t count, uint64_t seed)
{
    if (m.dtype == DTYPE_F32) {
        if (i < count) ((float *)m.x)[i] = value;
    } else if (m.dtype == DTYPE_BF16) {
        if (i < count) ((uint16_t *)m.x)[i] = round_random(value, seed, m.stream, i);
    } else {
        const float most = block_max(i < count ? fabsf(value) : 0.0f);
        const int zero = nearest(code, 0);
        int at = most > 0 ? nearest(code, __fdiv_rn(value, most)) : zero;
        if (at == zero && (is_signed ? value < 0 : value > 0)) at += is_signed ? -1 : 1;
        if (i < count) ((uint8_t *)m.x)[i] = (uint8_t)at;
        if (threadIdx.x == 0) m.scale[blockIdx.x] = most;
    }
}

template <typename W, typename C>
static __global__ void adamw_reduced(W *w, moment m, moment v, C *copy, const float *grad,
                                     int64_t count, adamw_factors f, const float *code,
                                     uint64_t seed, uint64_t stream)
{
    __shared__ float table[2 * CODES];
    for (int k = threadIdx.x; k < 2 * CODES; k += blockDim.x) {
        table[k] = code[k];
    }
    __syncthreads();
    const int64_t i = (int64_t)blockIdx.x * CODE_BLOCK + threadIdx.x;
    const bool mine = i < count;
    float pw = mine ? to_float(w[i]) : 0;
    float pm = mine ? load_moment(m, table, i) : 0,
          pv = mine ? load_moment(v, table + CODES, i) : 0;
    if (mine) adamw_element(pw, pm, pv, grad[i], f);
    __syncthreads(); // every thread has read its block's scale
    store_moment(m, table, true, pm, i, count, seed);
    store_moment(v, table + CODES, false, pv, i, count, seed);
    if (!mine) return;
    if (sizeof(W) == sizeof(float)) {
        w[i] = from_float<W>(pw);
    } else {
        *(uint16_t *)(w + i) = round_random(pw, seed, stream + 2, i);
    }
    if (copy) copy[i] = from_float<C>(pw);
}

void cuda_adamw_reduced(const struct adamw_leaf *x, const struct adamw *p, float grad_scale,
                        uint64_t seed, uint64_t stream)
{
    const int64_t count = tensor_count(x->w);
    assert(tensor_count(x->m) == count && tensor_count(x->v) == count);
    assert(tensor_count(x->grad) == count && x->m.dtype == x->v.dtype);
    const moment m = {x->m.data, data<float>(x->m_scale), x->m.dtype, stream};
    const moment v = {x->v.data, data<float>(x->v_scale), x->v.dtype, stream + 1};
    const float *code = tables();
    if (!code) return; // noted
    with_activation(x->w.dtype, [&](auto value) {
        using W = decltype(value);
        with_floating(x->copy.data ? x->copy.dtype : DTYPE_BF16, [&](auto zero) {
            using C = decltype(zero);
            LAUNCH((adamw_reduced<W, C>), (unsigned)ceil_div(count, CODE_BLOCK), CODE_BLOCK, 0,
                   data<W>(x->w), m, v, data<C>(x->copy), data<float>(x->grad), count,
                   adamw_factors_of(p, grad_scale), code, seed, stream);
        });
    });
}
