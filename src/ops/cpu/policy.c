// ops/cpu/policy.c - the small operations that routing policies are made of besides router.c: columns of
// a route, statistics of the router, the step of a bias. (N,E) values, a few per token.
#include "ops/cpu/cpu.h"

#include <assert.h>
#include <math.h>

// F32 and I32 alike: four bytes each.
static int32_t *words(struct tensor x, int64_t row)
{
    return (int32_t *)x.data + row * x.dim[1];
}

void cpu_place_columns(struct tensor y, struct tensor x, int64_t first)
{
    const int64_t N = x.dim[0], k = x.dim[1];
    assert(y.dim[0] == N && first >= 0 && first + k <= y.dim[1] && y.dtype == x.dtype);
    for (int64_t n = 0; n < N; n++) {
        memcpy(words(y, n) + first, words(x, n), (size_t)k * sizeof(int32_t));
    }
}

void cpu_take_columns(struct tensor y, struct tensor x, int64_t first)
{
    const int64_t N = y.dim[0], k = y.dim[1];
    assert(x.dim[0] == N && first >= 0 && first + k <= x.dim[1] && y.dtype == x.dtype);
    for (int64_t n = 0; n < N; n++) {
        memcpy(words(y, n), words(x, n) + first, (size_t)k * sizeof(int32_t));
    }
}

void cpu_repeat_row(struct tensor y, struct tensor row)
{
    assert(tensor_count(row) == y.dim[1] && y.dtype == row.dtype);
    for (int64_t n = 0; n < y.dim[0]; n++) {
        memcpy(words(y, n), row.data, tensor_bytes(row));
    }
}

void cpu_fill(struct tensor y, float value)
{
    for (int64_t i = 0; i < tensor_count(y); i++) {
        data_f32(y)[i] = value;
    }
}

void cpu_put(struct tensor y, struct tensor index, float value)
{
    const int64_t N = index.dim[0], k = index.dim[1];
    for (int64_t n = 0; n < N; n++) {
        for (int64_t i = 0; i < k; i++) {
            const int64_t e = data_i32(index)[n * k + i];
            assert(e >= 0 && e < y.dim[1]);
            row_f32(y, n)[e] = value;
        }
    }
}

void cpu_logsumexp(struct tensor lse, struct tensor z)
{
    const int64_t N = z.dim[0], E = z.dim[1];
    for (int64_t n = 0; n < N; n++) {
        const float *in = row_f32(z, n);
        double max = (double)-INFINITY, sum = 0;
        for (int64_t e = 0; e < E; e++) {
            max = fmax(max, (double)in[e]);
        }
        for (int64_t e = 0; e < E; e++) {
            sum += exp((double)in[e] - max);
        }
        data_f32(lse)[n] = (float)(max + log(sum));
    }
}

void cpu_add_scaled_rows(struct tensor y, struct tensor x, struct tensor s, float a)
{
    const int64_t N = y.dim[0], C = y.dim[1];
    for (int64_t n = 0; n < N; n++) {
        const float factor = a * data_f32(s)[n];
        for (int64_t c = 0; c < C; c++) {
            row_f32(y, n)[c] += factor * row_f32(x, n)[c];
        }
    }
}

void cpu_count_slots(struct tensor count, struct tensor index)
{
    const int64_t slots = tensor_count(index), E = tensor_count(count);
    for (int64_t i = 0; i < slots; i++) {
        const int64_t e = data_i32(index)[i];
        assert(e >= 0 && e < E);
        data_f32(count)[e] += 1;
    }
}

void cpu_add_slots(struct tensor sum, struct tensor index, struct tensor weight)
{
    const int64_t slots = tensor_count(index), E = tensor_count(sum);
    assert(!weight.data || tensor_count(weight) == slots);
    for (int64_t i = 0; i < slots; i++) {
        const int64_t e = data_i32(index)[i];
        assert(e >= 0 && e < E);
        ((double *)sum.data)[e] += weight.data ? (double)data_f32(weight)[i] : 1;
    }
}

static bool among(int32_t x, const int32_t *set, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (set[i] == x) return true;
    }
    return false;
}

void cpu_count_changed(struct tensor changed, struct tensor all, struct tensor index,
                       struct tensor plain)
{
    const int64_t N = index.dim[0], S = index.dim[1], K = plain.dim[1];
    int64_t count = 0;
    for (int64_t n = 0; n < N; n++) {
        for (int64_t s = 0; s < S; s++) {
            count += !among(data_i32(index)[n * S + s], data_i32(plain) + n * K, K);
        }
    }
    *(double *)changed.data += (double)count;
    *(double *)all.data += (double)(N * S);
}

void cpu_count_rows(struct tensor count, struct tensor offsets)
{
    for (int64_t e = 0; e < tensor_count(count); e++) {
        data_f32(count)[e] += (float)(data_i32(offsets)[e + 1] - data_i32(offsets)[e]);
    }
}

void cpu_dot(struct tensor out, struct tensor x, struct tensor y, double a)
{
    double sum = 0;
    for (int64_t i = 0; i < tensor_count(x); i++) {
        sum += (double)data_f32(x)[i] * (double)data_f32(y)[i];
    }
    *(double *)out.data += a * sum;
}

void cpu_sign_step(struct tensor b, struct tensor u, float rate, float limit)
{
    const int64_t E = tensor_count(b);
    double mean = 0;
    for (int64_t e = 0; e < E; e++) {
        mean += (double)data_f32(u)[e];
    }
    mean /= (double)E;
    for (int64_t e = 0; e < E; e++) {
        const double over = (double)data_f32(u)[e] - mean;
        float *be = &data_f32(b)[e];
        *be += rate * (float)((over > 0) - (over < 0));
        if (limit > 0) *be = fminf(fmaxf(*be, -limit), limit);
    }
}

void cpu_normalize_backward_through(struct tensor dp, struct tensor dw, struct tensor w,
                                    struct tensor sum)
{
    const int64_t N = w.dim[0], E = w.dim[1];
    for (int64_t n = 0; n < N; n++) {
        const float *dwn = row_f32(dw, n), *wn = row_f32(w, n);
        double dot = 0;
        for (int64_t e = 0; e < E; e++) {
            dot += (double)dwn[e] * (double)wn[e];
        }
        for (int64_t e = 0; e < E; e++) {
            const double inside = wn[e] != 0.0f ? dot : 0;
            row_f32(dp, n)[e] = (float)(((double)dwn[e] - inside) / (double)data_f32(sum)[n]);
        }
    }
}
