// ops/cpu/router.c - the router's values: few columns, F32 throughout, sums in double.
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector.h"

#include <assert.h>

void cpu_softmax_forward(struct tensor p, struct tensor z)
{
    const int64_t N = z.dim[0], E = z.dim[1];
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (N * E > SMALL_WORK)
    for (int64_t n = 0; n < N; n++) {
        const float *in = row_f32(z, n), max = max_f32(in, E);
        float *out = row_f32(p, n);
        double sum = 0;
        for (int64_t e = 0; e < E; e++) {
            out[e] = expf(in[e] - max);
            sum += (double)out[e];
        }
        for (int64_t e = 0; e < E; e++) {
            out[e] = (float)((double)out[e] / sum);
        }
    }
}

// dz = p (dp - <dp, p>)
void cpu_softmax_backward(struct tensor dz, struct tensor dp, struct tensor p)
{
    const int64_t N = p.dim[0], E = p.dim[1];
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (N * E > SMALL_WORK)
    for (int64_t n = 0; n < N; n++) {
        const float *pn = row_f32(p, n), *dpn = row_f32(dp, n);
        double dot = 0;
        for (int64_t e = 0; e < E; e++) {
            dot += (double)dpn[e] * (double)pn[e];
        }
        float *out = row_f32(dz, n);
        for (int64_t e = 0; e < E; e++) {
            out[e] = (float)((double)pn[e] * ((double)dpn[e] - dot));
        }
    }
}

// A total order of keys as integers: -0 equals 0, NaN is below everything.
static int64_t rank_of(float key)
{
    if (key != key) return INT64_MIN;
    const int64_t bits = (int64_t)(f32_bits(key) & 0x7fffffffU);
    return f32_bits(key) >> 31 ? -bits : bits;
}

// The first, in descending order (ties: lower index first), of those after index `last`; -1: of all.
static int64_t next_largest(const float *key, int64_t E, int64_t last)
{
    int64_t best = -1, best_rank = 0;
    const int64_t last_rank = last < 0 ? 0 : rank_of(key[last]);
    for (int64_t e = 0; e < E; e++) {
        const int64_t r = rank_of(key[e]);
        const bool taken = last >= 0 && (r > last_rank || (r == last_rank && e <= last));
        if (!taken && (best < 0 || r > best_rank)) {
            best = e;
            best_rank = r;
        }
    }
    return best;
}

void cpu_topk(struct tensor index, struct tensor key)
{
    const int64_t N = key.dim[0], E = key.dim[1], K = index.dim[1];
    assert(K <= E);
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (N * E * K > SMALL_WORK)
    for (int64_t n = 0; n < N; n++) {
        int64_t last = -1;
        for (int64_t k = 0; k < K; k++) {
            last = next_largest(row_f32(key, n), E, last);
            data_i32(index)[n * K + k] = (int32_t)last;
        }
    }
}

void cpu_pick_forward(struct tensor w, struct tensor p, struct tensor index)
{
    const int64_t N = w.dim[0], S = w.dim[1], E = p.dim[1];
    for (int64_t n = 0; n < N; n++) {
        for (int64_t s = 0; s < S; s++) {
            const int64_t e = data_i32(index)[n * S + s];
            assert(e >= 0 && e < E);
            row_f32(w, n)[s] = row_f32(p, n)[e];
        }
    }
}

void cpu_pick_backward(struct tensor dp, struct tensor dw, struct tensor index)
{
    const int64_t N = dw.dim[0], S = dw.dim[1], E = dp.dim[1];
    cpu_zero(dp);
    for (int64_t n = 0; n < N; n++) {
        for (int64_t s = 0; s < S; s++) {
            const int64_t e = data_i32(index)[n * S + s];
            assert(e >= 0 && e < E);
            row_f32(dp, n)[e] += row_f32(dw, n)[s];
        }
    }
}

void cpu_normalize_forward(struct tensor y, struct tensor sum, struct tensor x)
{
    const int64_t N = x.dim[0], S = x.dim[1];
    for (int64_t n = 0; n < N; n++) {
        double total = 0;
        for (int64_t s = 0; s < S; s++) {
            total += (double)row_f32(x, n)[s];
        }
        if (sum.data) data_f32(sum)[n] = (float)total;
        for (int64_t s = 0; s < S; s++) {
            row_f32(y, n)[s] = (float)((double)row_f32(x, n)[s] / total);
        }
    }
}

// dx = (dy - <dy, y>) / sum
void cpu_normalize_backward(struct tensor dx, struct tensor dy, struct tensor y, struct tensor sum)
{
    const int64_t N = y.dim[0], S = y.dim[1];
    for (int64_t n = 0; n < N; n++) {
        double dot = 0;
        for (int64_t s = 0; s < S; s++) {
            dot += (double)row_f32(dy, n)[s] * (double)row_f32(y, n)[s];
        }
        const double total = (double)data_f32(sum)[n];
        for (int64_t s = 0; s < S; s++) {
            row_f32(dx, n)[s] = (float)(((double)row_f32(dy, n)[s] - dot) / total);
        }
    }
}

void cpu_sigmoid_forward(struct tensor y, struct tensor x)
{
    const int64_t count = tensor_count(x);
    float *out = data_f32(y);
    const float *in = data_f32(x);
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        out[i] = sigmoid_f32(in[i]);
    }
}

void cpu_sigmoid_backward(struct tensor dx, struct tensor dy, struct tensor y)
{
    const int64_t count = tensor_count(y);
    float *out = data_f32(dx);
    const float *dyn = data_f32(dy), *yn = data_f32(y);
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        out[i] = dyn[i] * yn[i] * (1.0f - yn[i]);
    }
}
