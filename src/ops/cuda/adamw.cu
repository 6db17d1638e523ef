// ops/cuda/adamw.cu - AdamW (Loshchilov & Hutter 2019) in one pass, with torch's order of operations.
#include "ops/cuda/cuda.h"

struct adamw_factors { // computed in double, applied in float, as torch does
    float keep, one_minus_beta1, beta2, one_minus_beta2, step, root_correction2, eps, grad_scale;
};

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
            const float g = pg[k] * f.grad_scale, decayed = pw[k] * f.keep;
            pm[k] = pm[k] + f.one_minus_beta1 * (g - pm[k]);
            pv[k] = pv[k] * f.beta2 + f.one_minus_beta2 * g * g;
            pw[k] = decayed - f.step * (pm[k] / (sqrtf(pv[k]) / f.root_correction2 + f.eps));
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
    adamw_factors f;
    f.keep = (float)(1.0 - p->lr * p->weight_decay);
    f.one_minus_beta1 = (float)(1.0 - p->beta1);
    f.beta2 = (float)p->beta2;
    f.one_minus_beta2 = (float)(1.0 - p->beta2);
    f.step = (float)(p->lr / p->correction1);
    f.root_correction2 = (float)sqrt(p->correction2);
    f.eps = (float)p->eps;
    f.grad_scale = grad_scale;
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
