// ops/cuda/adamw.cuh - one element of AdamW, for leaves in float32 and in fewer bits.
#pragma once
#include "ops/cuda/cuda.h"

struct adamw_factors { // computed in double, applied in float, as torch does
    float keep, one_minus_beta1, beta2, one_minus_beta2, step, root_correction2, eps, grad_scale;
};

static inline adamw_factors adamw_factors_of(const struct adamw *p, float grad_scale)
{
    adamw_factors f;
    f.keep = (float)(1.0 - p->lr * p->weight_decay);
    f.one_minus_beta1 = (float)(1.0 - p->beta1);
    f.beta2 = (float)p->beta2;
    f.one_minus_beta2 = (float)(1.0 - p->beta2);
    f.step = (float)(p->lr / p->correction1);
    f.root_correction2 = (float)sqrt(p->correction2);
    f.eps = (float)p->eps;
    f.grad_scale = grad_scale;
    return f;
}

static __device__ inline void adamw_element(float &w, float &m, float &v, float grad,
                                            const adamw_factors &f)
{
    const float g = grad * f.grad_scale, decayed = w * f.keep;
    m = m + f.one_minus_beta1 * (g - m);
    v = v * f.beta2 + f.one_minus_beta2 * g * g;
    w = decayed - f.step * (m / (sqrtf(v) / f.root_correction2 + f.eps));
}
