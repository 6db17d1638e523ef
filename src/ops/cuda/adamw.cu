// ops/cuda/adamw.cu - the optimizer over a list of leaves, one launch for all of them: AdamW (Loshchilov & Hutter
// 2019) in one pass, with torch's order of operations, and what decides on the device whether anything moves. A
// block takes one chunk of a leaf after another; leaves in fewer bits are widened CODE_BLOCK elements at a time, an
// element a thread, moved, and rounded back: see ops.h.
#include "ops/cuda/adamw.cuh"
#include "ops/cuda/rng.cuh"

extern "C" {
#include "base/clip.h"
#include "base/codes.h"
}

static_assert(THREADS == CODE_BLOCK, "a thread moves an element of a block of codes");
static_assert((int)LEAF_CHUNK % (int)CODE_BLOCK == 0, "a chunk begins at a block of codes");

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
    return __fmul_rn(code[((const uint8_t *)m.x)[i]], m.scale[i / CODE_BLOCK]);
}

// All threads of the block call it, `mine` those that have an element. The codes of m never lose a sign to 0,
// those of v (0 or above) no value.
static __device__ inline void store_moment(const moment &m, const float *code, bool is_signed,
                                           float value, int64_t i, bool mine, uint64_t seed)
{
    if (m.dtype == DTYPE_F32) {
        if (mine) ((float *)m.x)[i] = value;
    } else if (m.dtype == DTYPE_BF16) {
        if (mine) ((uint16_t *)m.x)[i] = round_random(value, seed, m.stream, i);
    } else {
        const float most = block_max(mine ? fabsf(value) : 0.0f);
        const int zero = nearest(code, 0);
        int at = most > 0 ? nearest(code, __fdiv_rn(value, most)) : zero;
        if (at == zero && (is_signed ? value < 0 : value > 0)) at += is_signed ? -1 : 1;
        if (mine) ((uint8_t *)m.x)[i] = (uint8_t)at;
        if (threadIdx.x == 0) m.scale[i / CODE_BLOCK] = most;
    }
}

static __device__ inline void store_copy(const tensor &copy, int64_t i, float value)
{
    if (copy.dtype == DTYPE_BF16) {
        ((bf16 *)copy.data)[i] = from_float<bf16>(value);
    } else {
        ((f16 *)copy.data)[i] = from_float<f16>(value);
    }
}

static __device__ void move_reduced(const leaf_chunk &c, const adamw_factors &f, const float *code,
                                    uint64_t seed, uint64_t update)
{
    const adamw_leaf x = *c.leaf;
    const uint64_t stream = philox(seed, x.stream, update);
    const moment m = {x.m.data, (float *)x.m_scale.data, x.m.dtype, stream};
    const moment v = {x.v.data, (float *)x.v_scale.data, x.v.dtype, stream + 1};
    float *grad = (float *)x.grad.data;
    const bool bare = x.w.dtype == DTYPE_BF16;
    for (int64_t at = c.first; at < c.end; at += CODE_BLOCK) {
        const int64_t i = at + threadIdx.x;
        const bool mine = i < c.end;
        float pw = 0, pm = 0, pv = 0;
        if (mine) {
            pw = bare ? to_float(((const bf16 *)x.w.data)[i]) : ((const float *)x.w.data)[i];
            pm = load_moment(m, code, i);
            pv = load_moment(v, code + CODES, i);
            adamw_element(pw, pm, pv, grad[i], f);
            grad[i] = 0;
        }
        __syncthreads(); // every thread has read its block's scale
        store_moment(m, code, true, pm, i, mine, seed);
        store_moment(v, code + CODES, false, pv, i, mine, seed);
        if (mine && bare) ((uint16_t *)x.w.data)[i] = round_random(pw, seed, stream + 2, i);
        if (mine && !bare) ((float *)x.w.data)[i] = pw;
        if (mine && x.copy.data) store_copy(x.copy, i, pw);
    }
}

// Elements [first, end), V at a time.
template <int V, typename T>
static __device__ void move_f32(const adamw_leaf &x, int64_t first, int64_t end,
                                const adamw_factors &f)
{
    float *w = (float *)x.w.data, *m = (float *)x.m.data, *v = (float *)x.v.data;
    float *grad = (float *)x.grad.data;
    T *copy = (T *)x.copy.data;
    for (int64_t i = first + (int64_t)threadIdx.x * V; i < end; i += (int64_t)blockDim.x * V) {
        float pw[V], pm[V], pv[V], pg[V];
        load_many(pw, w + i);
        load_many(pm, m + i);
        load_many(pv, v + i);
        load_many(pg, grad + i);
        for (int k = 0; k < V; k++) {
            adamw_element(pw[k], pm[k], pv[k], pg[k], f);
            pg[k] = 0;
        }
        store_many(w + i, pw);
        store_many(m + i, pm);
        store_many(v + i, pv);
        store_many(grad + i, pg);
        if (copy) store_many(copy + i, pw);
    }
}

static __device__ inline bool aligned(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

// Wide as far as it goes; chunks begin at a multiple of WIDE.
template <typename T> static __device__ void move_wide(const leaf_chunk &c, const adamw_factors &f)
{
    const adamw_leaf x = *c.leaf;
    const bool wide = aligned(x.w.data) && aligned(x.m.data) && aligned(x.v.data) &&
                      aligned(x.grad.data) && aligned(x.copy.data);
    const int64_t middle = wide ? c.first + (c.end - c.first) / WIDE * WIDE : c.first;
    move_f32<WIDE, T>(x, c.first, middle, f);
    move_f32<1, T>(x, middle, c.end, f);
}

static __device__ void move_chunk(const leaf_chunk &c, const adamw_factors &f, const float *code,
                                  uint64_t seed, uint64_t update)
{
    const adamw_leaf *x = c.leaf;
    if (x->w.dtype != DTYPE_F32 || x->m.dtype != DTYPE_F32) {
        move_reduced(c, f, code, seed, update);
    } else if (x->copy.data && x->copy.dtype == DTYPE_F16) {
        move_wide<f16>(c, f);
    } else {
        move_wide<bf16>(c, f);
    }
}

// decaying: f.keep of leaves that decay.
static __global__ void __launch_bounds__(THREADS)
    adamw_list(leaf_rows l, adamw_factors f, float decaying, const float *scale, const float *code,
               uint64_t seed, uint64_t update)
{
    __shared__ float table[2 * CODES];
    for (int k = (int)threadIdx.x; k < 2 * CODES; k += THREADS) {
        table[k] = code[k];
    }
    __syncthreads();
    f.grad_scale = *scale;
    const bool usable = f.grad_scale == f.grad_scale;
    for (int64_t i = blockIdx.x; i < l.chunks; i += gridDim.x) {
        const leaf_chunk c = chunk_of(l, i);
        float *grad = (float *)c.leaf->grad.data;
        for (int64_t k = c.first + threadIdx.x; !usable && k < c.end; k += THREADS) {
            grad[k] = 0;
        }
        f.keep = c.leaf->decays ? decaying : 1.0f;
        if (usable) move_chunk(c, f, table, seed, update);
    }
}

void cuda_adamw(const struct leaf_list *l, const struct adamw *p, struct tensor scale,
                uint64_t seed, uint64_t update)
{
    adamw_factors f = {};
    f.one_minus_beta1 = (float)(1.0 - p->beta1);
    f.beta2 = (float)p->beta2;
    f.one_minus_beta2 = (float)(1.0 - p->beta2);
    f.step = (float)(p->lr / p->correction1);
    f.root_correction2 = (float)sqrt(p->correction2);
    f.eps = (float)p->eps;
    const float *code = tables();
    if (!code) return; // noted
    const leaf_rows rows = {l->leaf, l->count, l->chunks};
    LAUNCH(adamw_list, cuda_grid(l->chunks * THREADS, THREADS), THREADS, 0, rows, f,
           (float)(1.0 - p->lr * p->weight_decay), data<float>(scale), code, seed, update);
}

static __global__ void clip_scale(float *scale, const double *squares, const double *loss,
                                  double clip)
{
    *scale = clip_factor(*squares, loss ? *loss : 0.0, clip);
}

void cuda_clip_scale(struct tensor scale, struct tensor squares, struct tensor loss, double clip)
{
    LAUNCH(clip_scale, 1, 1, 0, data<float>(scale), data<double>(squares), data<double>(loss),
           clip);
}
