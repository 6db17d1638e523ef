// ops/cuda/elementwise.cu - ops on one element at a time.
#include "ops/cuda/cuda.h"

// Each thread takes V elements at a time, a grid apart.
#define EACH(i, count)                                                                             \
    for (int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * V; i < (count);            \
         i += (int64_t)gridDim.x * blockDim.x * V)

template <int V, typename T> static __global__ void add(T *y, const T *a, const T *b, int64_t count)
{
    EACH(i, count)
    {
        float x[V], z[V];
        load_many(x, a + i);
        load_many(z, b + i);
        for (int k = 0; k < V; k++) {
            x[k] += z[k];
        }
        store_many(y + i, x);
    }
}

void cuda_add(struct tensor y, struct tensor a, struct tensor b)
{
    const int64_t count = tensor_count(y);
    assert(tensor_count(a) == count && tensor_count(b) == count);
    assert(a.dtype == y.dtype && b.dtype == y.dtype);
    with_activation(y.dtype, [&](auto zero) {
        using T = decltype(zero);
        T *py = data<T>(y), *pa = data<T>(a), *pb = data<T>(b);
        with_width(wide_rows(count, py, pa, pb), [&](auto v) {
            constexpr int V = decltype(v)::value;
            LAUNCH((add<V, T>), cuda_grid(count / V, THREADS), THREADS, 0, py, pa, pb, count);
        });
    });
}

template <int V, typename T> static __global__ void scale(T *x, float a, int64_t count)
{
    EACH(i, count)
    {
        float z[V];
        load_many(z, x + i);
        for (int k = 0; k < V; k++) {
            z[k] *= a;
        }
        store_many(x + i, z);
    }
}

void cuda_scale(struct tensor x, float a)
{
    const int64_t count = tensor_count(x);
    with_floating(x.dtype, [&](auto zero) {
        using T = decltype(zero);
        with_width(wide_rows(count, data<T>(x)), [&](auto v) {
            constexpr int V = decltype(v)::value;
            LAUNCH((scale<V, T>), cuda_grid(count / V, THREADS), THREADS, 0, data<T>(x), a, count);
        });
    });
}

template <int V, typename T> static __global__ void clamp_forward(T *y, float limit, int64_t count)
{
    EACH(i, count)
    {
        float x[V];
        load_many(x, y + i);
        for (int k = 0; k < V; k++) {
            x[k] = x[k] < -limit ? -limit : x[k]; // NaN stays
            x[k] = x[k] > limit ? limit : x[k];
        }
        store_many(y + i, x);
    }
}

void cuda_clamp_forward(struct tensor y, float limit)
{
    const int64_t count = tensor_count(y);
    with_activation(y.dtype, [&](auto zero) {
        using T = decltype(zero);
        with_width(wide_rows(count, data<T>(y)), [&](auto v) {
            constexpr int V = decltype(v)::value;
            LAUNCH((clamp_forward<V, T>), cuda_grid(count / V, THREADS), THREADS, 0, data<T>(y),
                   limit, count);
        });
    });
}

template <int V, typename T>
static __global__ void clamp_backward(T *dy, const T *y, float bound, int64_t count)
{
    EACH(i, count)
    {
        float d[V], x[V];
        load_many(d, dy + i);
        load_many(x, y + i);
        for (int k = 0; k < V; k++) {
            d[k] = fabsf(x[k]) >= bound ? 0.0f : d[k];
        }
        store_many(dy + i, d);
    }
}

void cuda_clamp_backward(struct tensor dy, struct tensor y, float limit)
{
    const int64_t count = tensor_count(y);
    assert(tensor_count(dy) == count && dy.dtype == y.dtype);
    // In BF16 the clamped value is the rounded limit, so that is what y is compared with.
    const float stored = y.dtype == DTYPE_BF16 ? f32_from_bf16(bf16_from_f32(limit)) : limit;
    const float bound = fminf(limit, stored);
    with_activation(y.dtype, [&](auto zero) {
        using T = decltype(zero);
        with_width(wide_rows(count, data<T>(dy), data<T>(y)), [&](auto v) {
            constexpr int V = decltype(v)::value;
            LAUNCH((clamp_backward<V, T>), cuda_grid(count / V, THREADS), THREADS, 0, data<T>(dy),
                   data<T>(y), bound, count);
        });
    });
}

// A block a row.
template <typename T, typename B> static __global__ void bias_forward(T *y, const B *b, int64_t C)
{
    T *row = y + (int64_t)blockIdx.x * C;
    for (int64_t c = threadIdx.x; c < C; c += blockDim.x) {
        row[c] = from_float<T>(to_float(row[c]) + to_float(b[c]));
    }
}

void cuda_bias_forward(struct tensor y, struct tensor b)
{
    const int64_t N = y.dim[0], C = y.dim[1];
    assert(tensor_count(b) == C);
    with_activation(y.dtype, [&](auto zero) {
        using T = decltype(zero);
        with_activation(b.dtype, [&](auto other) {
            using B = decltype(other);
            LAUNCH((bias_forward<T, B>), (unsigned)N, cuda_threads(C), 0, data<T>(y), data<B>(b),
                   C);
        });
    });
}

static __global__ void sigmoid_forward(float *y, const float *x, int64_t count)
{
    constexpr int V = 1;
    EACH(i, count)
    {
        const float e = expf(-fabsf(x[i]));
        y[i] = (x[i] >= 0.0f ? 1.0f : x[i] != x[i] ? x[i] : e) / (1.0f + e);
    }
}

void cuda_sigmoid_forward(struct tensor y, struct tensor x)
{
    const int64_t count = tensor_count(x);
    LAUNCH(sigmoid_forward, cuda_grid(count, THREADS), THREADS, 0, data<float>(y), data<float>(x),
           count);
}

static __global__ void sigmoid_backward(float *dx, const float *dy, const float *y, int64_t count)
{
    constexpr int V = 1;
    EACH(i, count)
    {
        dx[i] = dy[i] * y[i] * (1.0f - y[i]);
    }
}

void cuda_sigmoid_backward(struct tensor dx, struct tensor dy, struct tensor y)
{
    const int64_t count = tensor_count(y);
    LAUNCH(sigmoid_backward, cuda_grid(count, THREADS), THREADS, 0, data<float>(dx),
           data<float>(dy), data<float>(y), count);
}

static __global__ void fill(float *y, float value, int64_t count)
{
    constexpr int V = 1;
    EACH(i, count)
    {
        y[i] = value;
    }
}

void cuda_fill(struct tensor y, float value)
{
    const int64_t count = tensor_count(y);
    LAUNCH(fill, cuda_grid(count, THREADS), THREADS, 0, data<float>(y), value, count);
}

static __global__ void add_scaled_rows(float *y, const float *x, const float *s, float a, int64_t C,
                                       int64_t count)
{
    constexpr int V = 1;
    EACH(i, count)
    {
        y[i] += a * s[i / C] * x[i];
    }
}

void cuda_add_scaled_rows(struct tensor y, struct tensor x, struct tensor s, float a)
{
    const int64_t count = tensor_count(y);
    LAUNCH(add_scaled_rows, cuda_grid(count, THREADS), THREADS, 0, data<float>(y), data<float>(x),
           data<float>(s), a, y.dim[1], count);
}
