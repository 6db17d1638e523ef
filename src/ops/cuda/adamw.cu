// ops/cuda/adamw.cu - AdamW (Loshchilov & Hutter 2019) in one pass, with torch's order of operations.
#include "ops/cuda/adamw.cuh"

template <int V, typename T>
static __global__ void adamw(float *w, float *m, float *v, T *copy, const float *grad,
                             int64_t count, adamw_factors f)
{
    for (int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * V; i < count;
         i += (int64_t)gridDim.x * blockDim.x * V) {
        float pw[V], pm[V], pv[V], pg[V];
        load_many(pw, w + i);
        load_many(pm, m + i);
        load_many(pv, v + i);
        load_many(pg, grad + i);
        for (int k = 0; k < V; k++) {
            adamw_element(pw[k], pm[k], pv[k], pg[k], f);
        }
        store_many(w + i, pw);
        store_many(m + i, pm);
        store_many(v + i, pv);
        if (copy) store_many(copy + i, pw);
    }
}

void cuda_adamw(struct tensor w, struct tensor m, struct tensor v, struct tensor copy,
                struct tensor grad, const struct adamw *p, float grad_scale)
{
    const int64_t count = tensor_count(w);
    assert(tensor_count(m) == count && tensor_count(v) == count && tensor_count(grad) == count);
    const adamw_factors f = adamw_factors_of(p, grad_scale);
    with_floating(copy.data ? copy.dtype : DTYPE_BF16, [&](auto zero) {
        using T = decltype(zero);
        const bool wide = wide_rows(count, data<float>(w), data<float>(m), data<float>(v),
                                    data<float>(grad), data<T>(copy));
        with_width(wide, [&](auto width) {
            constexpr int V = decltype(width)::value;
            LAUNCH((adamw<V, T>), cuda_grid(count / V, THREADS), THREADS, 0, data<float>(w),
                   data<float>(m), data<float>(v), data<T>(copy), data<float>(grad), count, f);
        });
    });
}
