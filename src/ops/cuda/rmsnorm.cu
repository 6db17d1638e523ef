// ops/cuda/rmsnorm.cu - root-mean-square norm (Zhang & Sennrich 2019), forward and backward. A block a row, or
// for short rows (heads) a warp a row. A row is read twice.
#include "ops/cuda/columns.cuh"

constexpr int64_t SHORT = 1024; // columns up to which a warp does a row

// Where a thread stands: its row, its place among the threads of the row, and their number.
struct place {
    int64_t row;
    int thread, threads;
};

template <bool A_WARP> static __device__ inline place place_in_row(void)
{
    if (!A_WARP) return {(int64_t)blockIdx.x, (int)threadIdx.x, (int)blockDim.x};
    const int64_t warp = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    return {warp, (int)threadIdx.x % WARP, WARP};
}

template <bool A_WARP> static __device__ inline float row_sum(float x)
{
    return A_WARP ? warp_sum(x) : block_sum(x);
}

// y = x * rstd * w, rstd = 1/sqrt(mean x^2 + eps)
template <int V, bool A_WARP, typename T, typename W>
static __global__ void rmsnorm_forward(T *y, float *rstd, const T *x, const W *w, float eps,
                                       int64_t N, int64_t C)
{
    const place p = place_in_row<A_WARP>();
    if (p.row >= N) return; // whole warps, and no barrier follows where a warp does a row
    const T *px = x + p.row * C;
    T *py = y + p.row * C;
    float squares = 0;
    for (int64_t c = (int64_t)p.thread * V; c < C; c += (int64_t)p.threads * V) {
        float v[V];
        load_many(v, px + c);
        for (int k = 0; k < V; k++) {
            squares += v[k] * v[k];
        }
    }
    const float mean = row_sum<A_WARP>(squares) / (float)C;
    const float r = 1.0f / sqrtf(mean + eps);
    if (rstd && p.thread == 0) rstd[p.row] = r;
    for (int64_t c = (int64_t)p.thread * V; c < C; c += (int64_t)p.threads * V) {
        float v[V], weight[V];
        load_many(v, px + c);
        load_many(weight, w + c);
        for (int k = 0; k < V; k++) {
            v[k] = v[k] * r * weight[k];
        }
        store_many(py + c, v);
    }
}

// With s = mean over c of dy w x rstd:  dx = rstd (dy w - x rstd s)
template <int V, bool A_WARP, typename T, typename W>
static __global__ void rmsnorm_backward(T *dx, const T *dy, const T *x, const W *w,
                                        const float *rstd, int64_t N, int64_t C)
{
    const place p = place_in_row<A_WARP>();
    if (p.row >= N) return;
    const T *px = x + p.row * C, *pdy = dy + p.row * C;
    float sum = 0;
    for (int64_t c = (int64_t)p.thread * V; c < C; c += (int64_t)p.threads * V) {
        float v[V], d[V], weight[V];
        load_many(v, px + c);
        load_many(d, pdy + c);
        load_many(weight, w + c);
        for (int k = 0; k < V; k++) {
            sum += d[k] * weight[k] * v[k];
        }
    }
    const float r = rstd[p.row], s = row_sum<A_WARP>(sum) * r * r / (float)C;
    for (int64_t c = (int64_t)p.thread * V; c < C; c += (int64_t)p.threads * V) {
        float v[V], d[V], weight[V];
        load_many(v, px + c);
        load_many(d, pdy + c);
        load_many(weight, w + c);
        for (int k = 0; k < V; k++) {
            d[k] = r * (d[k] * weight[k] - v[k] * s);
        }
        store_many(dx + p.row * C + c, d); // the thread's own elements: dx may be dy
    }
}

static unsigned blocks_for(bool a_warp, int64_t N)
{
    return (unsigned)(a_warp ? ceil_div(N * WARP, THREADS) : N);
}

void cuda_rmsnorm_forward(struct tensor y, struct tensor rstd, struct tensor x, struct tensor w,
                          float eps)
{
    const int64_t N = x.dim[0], C = x.dim[1];
    assert(tensor_count(w) == C && tensor_count(y) == N * C && y.dtype == x.dtype);
    with_activation(x.dtype, [&](auto zero) {
        using T = decltype(zero);
        with_floating(w.dtype, [&](auto other) {
            using W = decltype(other);
            const bool wide = wide_rows(C, data<T>(y), data<T>(x), data<W>(w));
            with_width(wide, [&](auto v) {
                constexpr int V = decltype(v)::value;
                if (C <= SHORT) {
                    LAUNCH((rmsnorm_forward<V, true, T, W>), blocks_for(true, N), THREADS, 0,
                           data<T>(y), data<float>(rstd), data<T>(x), data<W>(w), eps, N, C);
                } else {
                    LAUNCH((rmsnorm_forward<V, false, T, W>), blocks_for(false, N),
                           cuda_threads(C / V), 0, data<T>(y), data<float>(rstd), data<T>(x),
                           data<W>(w), eps, N, C);
                }
            });
        });
    });
}

template <typename T> struct weight_gradient { // dy x rstd
    typedef float type;
    const T *dy, *x;
    const float *rstd;
    int64_t C;
    __device__ float operator()(int64_t r, int64_t c) const
    {
        return to_float(dy[r * C + c]) * to_float(x[r * C + c]) * rstd[r];
    }
};
struct add_weight_gradient {
    float *dw;
    __device__ void operator()(int64_t, int64_t c, double sum, int64_t) const
    {
        dw[c] += (float)sum;
    }
};

void cuda_rmsnorm_backward(struct tensor dx, struct tensor dw, struct tensor dy, struct tensor x,
                           struct tensor w, struct tensor rstd)
{
    const int64_t N = x.dim[0], C = x.dim[1];
    assert(tensor_count(w) == C && tensor_count(dy) == N * C && dy.dtype == x.dtype);
    with_activation(x.dtype, [&](auto zero) {
        using T = decltype(zero);
        if (dw.data) { // first: dx may be dy
            column_sums(weight_gradient<T>{data<T>(dy), data<T>(x), data<float>(rstd), C},
                        add_weight_gradient{data<float>(dw)}, tensor_absent(), 1, N, C);
        }
        if (!dx.data) return;
        with_floating(w.dtype, [&](auto other) {
            using W = decltype(other);
            const bool wide = wide_rows(C, data<T>(dx), data<T>(dy), data<T>(x), data<W>(w));
            with_width(wide, [&](auto v) {
                constexpr int V = decltype(v)::value;
                if (C <= SHORT) {
                    LAUNCH((rmsnorm_backward<V, true, T, W>), blocks_for(true, N), THREADS, 0,
                           data<T>(dx), data<T>(dy), data<T>(x), data<W>(w), data<float>(rstd), N,
                           C);
                } else {
                    LAUNCH((rmsnorm_backward<V, false, T, W>), blocks_for(false, N),
                           cuda_threads(C / V), 0, data<T>(dx), data<T>(dy), data<T>(x), data<W>(w),
                           data<float>(rstd), N, C);
                }
            });
        });
    });
}
