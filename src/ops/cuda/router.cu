// ops/cuda/router.cu - the router's values: few columns, F32 throughout, sums in double. A warp a row.
#include "ops/cuda/cuda.h"

// The row of this warp; rows beyond N are for the caller to leave. lane: its place in the warp.
static __device__ inline int64_t row_of_warp(void)
{
    return ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / WARP;
}
static __device__ inline int lane_of(void)
{
    return (int)threadIdx.x % WARP;
}

static unsigned warps_for(int64_t rows)
{
    return (unsigned)ceil_div(rows * WARP, THREADS);
}

static __global__ void softmax_forward(float *p, const float *z, int64_t N, int64_t E)
{
    const int64_t n = row_of_warp();
    if (n >= N) return;
    const float *in = z + n * E;
    float *out = p + n * E, largest = -INFINITY;
    for (int64_t e = lane_of(); e < E; e += WARP) {
        largest = fmaxf(largest, in[e]);
    }
    largest = warp_max(largest);
    double sum = 0;
    for (int64_t e = lane_of(); e < E; e += WARP) {
        sum += (double)expf(in[e] - largest);
    }
    sum = warp_sum(sum);
    for (int64_t e = lane_of(); e < E; e += WARP) {
        out[e] = (float)((double)expf(in[e] - largest) / sum);
    }
}

void cuda_softmax_forward(struct tensor p, struct tensor z)
{
    const int64_t N = z.dim[0], E = z.dim[1];
    LAUNCH(softmax_forward, warps_for(N), THREADS, 0, data<float>(p), data<float>(z), N, E);
}

// <a, b> of a row, in all lanes.
static __device__ inline double row_dot(const float *a, const float *b, int64_t n)
{
    double dot = 0;
    for (int64_t i = lane_of(); i < n; i += WARP) {
        dot += (double)a[i] * (double)b[i];
    }
    return warp_sum(dot);
}

// dz = p (dp - <dp, p>)
static __global__ void softmax_backward(float *dz, const float *dp, const float *p, int64_t N,
                                        int64_t E)
{
    const int64_t n = row_of_warp();
    if (n >= N) return;
    const double dot = row_dot(dp + n * E, p + n * E, E);
    for (int64_t e = n * E + lane_of(); e < (n + 1) * E; e += WARP) {
        dz[e] = (float)((double)p[e] * ((double)dp[e] - dot));
    }
}

void cuda_softmax_backward(struct tensor dz, struct tensor dp, struct tensor p)
{
    const int64_t N = p.dim[0], E = p.dim[1];
    LAUNCH(softmax_backward, warps_for(N), THREADS, 0, data<float>(dz), data<float>(dp),
           data<float>(p), N, E);
}

// A total order of (key, index) as integers: larger keys first, then lower indices; -0 equals 0, NaN is below
// everything. Never 0.
static __device__ inline uint64_t rank_of(float key, int64_t index)
{
    const uint32_t bits = __float_as_uint(key == 0.0f ? 0.0f : key);
    const uint32_t order = key != key ? 0 : bits >> 31 ? ~bits : bits | 0x80000000U;
    return (uint64_t)order << 32 | (0xffffffffU - (uint32_t)index);
}

// In each round the largest rank below the last one.
static __global__ void topk(int32_t *index, const float *key, int64_t N, int64_t E, int64_t K)
{
    const int64_t n = row_of_warp();
    if (n >= N) return;
    uint64_t last = UINT64_MAX;
    for (int64_t k = 0; k < K; k++) {
        unsigned long long best = 0;
        for (int64_t e = lane_of(); e < E; e += WARP) {
            const uint64_t r = rank_of(key[n * E + e], e);
            if (r < last && r > best) best = r;
        }
        for (int lane = WARP / 2; lane > 0; lane /= 2) {
            const unsigned long long other = __shfl_xor_sync(0xffffffffU, best, lane);
            if (other > best) best = other;
        }
        last = best;
        if (lane_of() == 0) index[n * K + k] = (int32_t)(0xffffffffU - (uint32_t)best);
    }
}

void cuda_topk(struct tensor index, struct tensor key)
{
    const int64_t N = key.dim[0], E = key.dim[1], K = index.dim[1];
    assert(K <= E);
    LAUNCH(topk, warps_for(N), THREADS, 0, data<int32_t>(index), data<float>(key), N, E, K);
}

static __global__ void pick_forward(float *w, const float *p, const int32_t *index, int64_t N,
                                    int64_t S, int64_t E)
{
    const int64_t n = row_of_warp();
    if (n >= N) return;
    for (int64_t s = lane_of(); s < S; s += WARP) {
        w[n * S + s] = p[n * E + index[n * S + s]];
    }
}

void cuda_pick_forward(struct tensor w, struct tensor p, struct tensor index)
{
    const int64_t N = w.dim[0], S = w.dim[1], E = p.dim[1];
    LAUNCH(pick_forward, warps_for(N), THREADS, 0, data<float>(w), data<float>(p),
           data<int32_t>(index), N, S, E);
}

// 32 slots at a time: of those that name the same column the first adds all, in order.
static __global__ void pick_backward(float *dp, const float *dw, const int32_t *index, int64_t N,
                                     int64_t S, int64_t E)
{
    const int64_t n = row_of_warp();
    if (n >= N) return;
    for (int64_t e = lane_of(); e < E; e += WARP) {
        dp[n * E + e] = 0;
    }
    __syncwarp();
    for (int64_t first = 0; first < S; first += WARP) {
        const int64_t s = first + lane_of();
        const int e = s < S ? index[n * S + s] : -1;
        const unsigned same = __match_any_sync(0xffffffffU, e);
        if (e >= 0 && !(same & ((1U << lane_of()) - 1U))) {
            float sum = dp[n * E + e];
            for (int lane = 0; lane < WARP; lane++) {
                if (same >> lane & 1U) sum += dw[n * S + first + lane];
            }
            dp[n * E + e] = sum;
        }
        __syncwarp();
    }
}

void cuda_pick_backward(struct tensor dp, struct tensor dw, struct tensor index)
{
    const int64_t N = dw.dim[0], S = dw.dim[1], E = dp.dim[1];
    LAUNCH(pick_backward, warps_for(N), THREADS, 0, data<float>(dp), data<float>(dw),
           data<int32_t>(index), N, S, E);
}

static __global__ void normalize_forward(float *y, float *sum, const float *x, int64_t N, int64_t S)
{
    const int64_t n = row_of_warp();
    if (n >= N) return;
    double total = 0;
    for (int64_t s = lane_of(); s < S; s += WARP) {
        total += (double)x[n * S + s];
    }
    total = warp_sum(total);
    if (sum && lane_of() == 0) sum[n] = (float)total;
    for (int64_t s = lane_of(); s < S; s += WARP) {
        y[n * S + s] = (float)((double)x[n * S + s] / total);
    }
}

void cuda_normalize_forward(struct tensor y, struct tensor sum, struct tensor x)
{
    const int64_t N = x.dim[0], S = x.dim[1];
    LAUNCH(normalize_forward, warps_for(N), THREADS, 0, data<float>(y), data<float>(sum),
           data<float>(x), N, S);
}

// dx = (dy - <dy, y>) / sum; through: outside the set, where y is 0, dy / sum
static __global__ void normalize_backward(float *dx, const float *dy, const float *y,
                                          const float *sum, int64_t N, int64_t S, bool through)
{
    const int64_t n = row_of_warp();
    if (n >= N) return;
    const double dot = row_dot(dy + n * S, y + n * S, S), total = (double)sum[n];
    for (int64_t i = n * S + lane_of(); i < (n + 1) * S; i += WARP) {
        const double inside = through && y[i] == 0.0f ? 0 : dot;
        dx[i] = (float)(((double)dy[i] - inside) / total);
    }
}

void cuda_normalize_backward(struct tensor dx, struct tensor dy, struct tensor y, struct tensor sum)
{
    const int64_t N = y.dim[0], S = y.dim[1];
    LAUNCH(normalize_backward, warps_for(N), THREADS, 0, data<float>(dx), data<float>(dy),
           data<float>(y), data<float>(sum), N, S, false);
}

void cuda_normalize_backward_through(struct tensor dp, struct tensor dw, struct tensor w,
                                     struct tensor sum)
{
    const int64_t N = w.dim[0], E = w.dim[1];
    LAUNCH(normalize_backward, warps_for(N), THREADS, 0, data<float>(dp), data<float>(dw),
           data<float>(w), data<float>(sum), N, E, true);
}

static __global__ void logsumexp(float *lse, const float *z, int64_t N, int64_t E)
{
    const int64_t n = row_of_warp();
    if (n >= N) return;
    float largest = -INFINITY;
    for (int64_t e = lane_of(); e < E; e += WARP) {
        largest = fmaxf(largest, z[n * E + e]);
    }
    const double most = (double)warp_max(largest);
    double sum = 0;
    for (int64_t e = lane_of(); e < E; e += WARP) {
        sum += exp((double)z[n * E + e] - most);
    }
    sum = warp_sum(sum);
    if (lane_of() == 0) lse[n] = (float)(most + log(sum));
}

void cuda_logsumexp(struct tensor lse, struct tensor z)
{
    const int64_t N = z.dim[0], E = z.dim[1];
    LAUNCH(logsumexp, warps_for(N), THREADS, 0, data<float>(lse), data<float>(z), N, E);
}
