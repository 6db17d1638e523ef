// ops/cpu/swiglu.c - the gated activation of an expert (Shazeer 2020) with the slot's weight folded in.
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector.h"

#include <assert.h>

static int64_t row_count(struct tensor g, const struct dispatch *d)
{
    return d ? data_i32(d->offsets)[tensor_count(d->offsets) - 1] : g.dim[0];
}

static int64_t slot_of(const struct dispatch *d, int64_t r)
{
    return d ? data_i32(d->slot)[r] : r;
}

VECTOR_CLONES
static void forward_block(float *a, const float *g, const float *u, float w, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        a[i] = w * (g[i] * sigmoid_f32(g[i]) * u[i]);
    }
}

void cpu_swiglu_forward(struct tensor a, struct tensor g, struct tensor u, struct tensor weight,
                        const struct dispatch *d)
{
    const int64_t R = row_count(g, d), F = g.dim[1], blocks = ceil_div(F, BLOCK);
    assert(R <= g.dim[0] && R <= a.dim[0] && R <= u.dim[0]);
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (R * F > SMALL_WORK / 4)
    for (int64_t task = 0; task < R * blocks; task++) {
        const int64_t r = task / blocks, c = task % blocks * BLOCK, first = r * F + c;
        const int64_t n = min_i64(BLOCK, F - c);
        const float w = weight.data ? data_f32(weight)[slot_of(d, r)] : 1.0f;
        float buffer[3][BLOCK];
        const float *pg = block_load(buffer[0], g, first, n),
                    *pu = block_load(buffer[1], u, first, n);
        float *pa = block_target(buffer[2], a, first);
        forward_block(pa, pg, pu, w, n);
        block_store(a, first, pa, n);
    }
}

// One row's block. da' is the gradient of the weighted a, da = w da'; silu' = s (1 + g (1 - s)).
// Returns <da', silu(g) u>.
VECTOR_CLONES
static double backward_block(const struct swiglu_grads *out, struct tensor da, struct tensor g,
                             struct tensor u, float w, int64_t first, int64_t n)
{
    float in[3][BLOCK], result[4][BLOCK];
    const float *pda = block_load(in[0], da, first, n), *pg = block_load(in[1], g, first, n);
    const float *pu = block_load(in[2], u, first, n);
    float *dg = out->dg.data ? block_target(result[0], out->dg, first) : result[0];
    float *du = out->du.data ? block_target(result[1], out->du, first) : result[1];
    float *a = out->a.data ? block_target(result[2], out->a, first) : result[2];
    float *product = result[3];
#pragma omp simd
    for (int64_t i = 0; i < n; i++) { // reads all inputs of i first: outputs may lie over them
        const float gate = pg[i], up = pu[i], weighted = pda[i], grad = w * weighted;
        const float s = sigmoid_f32(gate), silu = gate * s;
        product[i] = weighted * (silu * up);
        dg[i] = grad * up * (s * (1.0f + gate * (1.0f - s)));
        du[i] = grad * silu;
        a[i] = w * (silu * up);
    }
    if (out->dg.data) block_store(out->dg, first, dg, n);
    if (out->du.data) block_store(out->du, first, du, n);
    if (out->a.data) block_store(out->a, first, a, n);
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        sum += (double)product[i];
    }
    return sum;
}

static void backward_rows(const struct swiglu_grads *out, struct tensor da, struct tensor g,
                          struct tensor u, struct tensor weight, const struct dispatch *d)
{
    const int64_t R = row_count(g, d), F = g.dim[1];
    assert(R <= g.dim[0] && R <= da.dim[0] && R <= u.dim[0]);
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (R * F > SMALL_WORK / 4)
    for (int64_t r = 0; r < R; r++) {
        const float w = weight.data ? data_f32(weight)[slot_of(d, r)] : 1.0f;
        double dot = 0;
        for (int64_t c = 0; c < F; c += BLOCK) {
            dot += backward_block(out, da, g, u, w, r * F + c, min_i64(BLOCK, F - c));
        }
        if (out->dweight.data) data_f32(out->dweight)[slot_of(d, r)] = (float)dot;
    }
}

void cpu_swiglu_backward(const struct swiglu_grads *out, struct tensor da, struct tensor g,
                         struct tensor u, struct tensor weight, const struct dispatch *d)
{
    if (out->dweight.data) cpu_zero(out->dweight);
    backward_rows(out, da, g, u, weight, d);
}

void cpu_swiglu_dot(struct tensor dweight, struct tensor da, struct tensor g, struct tensor u,
                    const struct dispatch *d)
{
    const struct tensor none = tensor_absent();
    const struct swiglu_grads out = {none, none, none, dweight};
    backward_rows(&out, da, g, u, none, d);
}
