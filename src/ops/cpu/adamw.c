// ops/cpu/adamw.c - AdamW (Loshchilov & Hutter 2019) in one pass, with torch's order of operations.
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector.h"

#include <assert.h>

VECTOR_CLONES
static void update(float *restrict w, float *restrict m, float *restrict v,
                   const float *restrict grad, int64_t n, struct adamw_factors f)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const float g = grad[i] * f.grad_scale;
        const float decayed = w[i] * f.keep;
        m[i] = m[i] + f.one_minus_beta1 * (g - m[i]);
        v[i] = v[i] * f.beta2 + f.one_minus_beta2 * g * g;
        w[i] = decayed - f.step * (m[i] / (sqrtf(v[i]) / f.root_correction2 + f.eps));
    }
}

// Apart from its variants: clang 14 gives a function that has them no name for other files.
void adamw_update(float *restrict w, float *restrict m, float *restrict v,
                  const float *restrict grad, int64_t n, struct adamw_factors f)
{
    update(w, m, v, grad, n, f);
}

struct adamw_factors adamw_factors(const struct adamw *p, float grad_scale)
{
    return (struct adamw_factors){
        .keep = (float)(1.0 - p->lr * p->weight_decay),
        .one_minus_beta1 = (float)(1.0 - p->beta1),
        .beta2 = (float)p->beta2,
        .one_minus_beta2 = (float)(1.0 - p->beta2),
        .step = (float)(p->lr / p->correction1),
        .root_correction2 = (float)sqrt(p->correction2),
        .eps = (float)p->eps,
        .grad_scale = grad_scale,
    };
}

void cpu_adamw(struct tensor w, struct tensor m, struct tensor v, struct tensor copy,
               struct tensor grad, const struct adamw *p, float grad_scale)
{
    const int64_t count = tensor_count(w);
    assert(tensor_count(m) == count && tensor_count(v) == count && tensor_count(grad) == count);
    const struct adamw_factors f = adamw_factors(p, grad_scale);
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (count > SMALL_WORK)
    for (int64_t first = 0; first < count; first += BLOCK) {
        const int64_t n = min_i64(BLOCK, count - first);
        float *weights = data_f32(w) + first;
        adamw_update(weights, data_f32(m) + first, data_f32(v) + first, data_f32(grad) + first, n,
                     f);
        if (copy.data) block_store(copy, first, weights, n);
    }
}
