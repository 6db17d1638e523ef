// ops/cpu/adamw.c - AdamW (Loshchilov & Hutter 2019) in one pass, with torch's order of operations, over a list of
// leaves.
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector.h"

#include "base/clip.h"
#include "base/rng.h"

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

static struct adamw_factors factors(const struct adamw *p, bool decays, float grad_scale)
{
    return (struct adamw_factors){
        .keep = (float)(1.0 - p->lr * (decays ? p->weight_decay : 0)),
        .one_minus_beta1 = (float)(1.0 - p->beta1),
        .beta2 = (float)p->beta2,
        .one_minus_beta2 = (float)(1.0 - p->beta2),
        .step = (float)(p->lr / p->correction1),
        .root_correction2 = (float)sqrt(p->correction2),
        .eps = (float)p->eps,
        .grad_scale = grad_scale,
    };
}

static void move_f32(const struct adamw_leaf *x, struct adamw_factors f)
{
    const int64_t count = tensor_count(x->w);
    assert(tensor_count(x->m) == count && tensor_count(x->v) == count);
    assert(tensor_count(x->grad) == count);
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (count > SMALL_WORK)
    for (int64_t first = 0; first < count; first += BLOCK) {
        const int64_t n = min_i64(BLOCK, count - first);
        float *weights = data_f32(x->w) + first, *grad = data_f32(x->grad) + first;
        adamw_update(weights, data_f32(x->m) + first, data_f32(x->v) + first, grad, n, f);
        if (x->copy.data) block_store(x->copy, first, weights, n);
        memset(grad, 0, (size_t)n * sizeof *grad);
    }
}

void cpu_adamw(const struct leaf_list *l, const struct adamw *p, struct tensor scale, uint64_t seed,
               uint64_t update)
{
    const float by = *data_f32(scale);
    for (int64_t i = 0; i < l->count; i++) {
        const struct adamw_leaf *x = &l->leaf[i];
        const struct adamw_factors f = factors(p, x->decays, by);
        if (isnan(by)) {
            cpu_zero(x->grad);
        } else if (x->w.dtype == DTYPE_F32 && x->m.dtype == DTYPE_F32) {
            move_f32(x, f);
        } else {
            adamw_reduced(x, f, seed, rng_at(seed, x->stream, update));
        }
    }
}

void cpu_grad_squares(struct tensor out, const struct leaf_list *l)
{
    for (int64_t i = 0; i < l->count; i++) {
        cpu_sum_squares(out, l->leaf[i].grad);
    }
}

void cpu_clip_scale(struct tensor scale, struct tensor squares, struct tensor loss, double clip)
{
    assert(squares.dtype == DTYPE_F64 && (!loss.data || loss.dtype == DTYPE_F64));
    *data_f32(scale) = clip_factor(*(const double *)squares.data,
                                   loss.data ? *(const double *)loss.data : 0, clip);
}
