// ops/cuda/attention_f32.cu - attention in F32 throughout, for parity with the CPU: the same passes as those of
// attention.cu and attention_backward.cu, with products by ordinary arithmetic.
#include "ops/cuda/attention.h"
#include "ops/cuda/mma.cuh"

// A warp takes EACH rows (queries, or keys for dk and dv) and 32 of the others at a time: a lane scores one of
// them, then a lane sums every 32nd element of the head. 64 sums of outputs a thread at D = 256.
constexpr int EACH = 4, WARPS = 4, ROWS = EACH * WARPS, OTHERS = 32, PER_LANE = MOST_HEAD_DIM / 32;

// Rows first .. first + count of head h as rows of D | 1 floats, so that 32 of them lie in 32 banks.
static __device__ void load_rows(float *to, const void *x, int heads, int h, int D, int first,
                                 int count, int rows)
{
    for (int i = threadIdx.x; i < count * D; i += blockDim.x) {
        const int r = i / D, d = i % D;
        to[r * (D | 1) + d] = first + r < rows
                                  ? ((const float *)x)[((int64_t)(first + r) * heads + h) * D + d]
                                  : 0.0f;
    }
}

static __device__ void store_row(void *x, int heads, int h, int D, int row, const float *sums,
                                 float factor)
{
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) {
        const int d = lane + i * WARP;
        if (d < D) ((float *)x)[((int64_t)row * heads + h) * D + d] = sums[i] * factor;
    }
}

static __device__ float dot_rows(const float *a, const float *b, int D)
{
    float sum = 0;
    for (int d = 0; d < D; d++) {
        sum = fmaf(a[d], b[d], sum);
    }
    return sum;
}

// sums += the 32 lanes' weights times the rows of `rows`
static __device__ void add_rows(float (&sums)[PER_LANE], float weight, const float *rows, int D)
{
    const int lane = threadIdx.x % WARP;
    for (int m = 0; m < OTHERS; m++) {
        const float w = __shfl_sync(0xffffffffU, weight, m);
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) {
            const int d = lane + i * WARP;
            if (d < D) sums[i] = fmaf(w, rows[m * (D | 1) + d], sums[i]);
        }
    }
}

static __device__ int2 row_span(const struct attention_problem &a, int row)
{
    if (row >= a.N) return make_int2(1 << 30, -1);
    const int2 s = make_int2(a.span[2 * (int64_t)row], a.span[2 * (int64_t)row + 1]);
    return s.x <= s.y ? s : make_int2(1 << 30, -1);
}

// The keys that the rows of a block reach.
static __device__ int2 block_reach(const struct attention_problem &a, int first)
{
    int2 r = make_int2(1 << 30, -1);
    for (int i = 0; i < ROWS; i++) {
        const int2 s = row_span(a, first + i);
        r = make_int2(min(r.x, s.x), max(r.y, s.y));
    }
    return r;
}

static __global__ void __launch_bounds__(WARPS *WARP) forward_f32(struct attention_problem a)
{
    DYNAMIC_SHARED(float, memory);
    const int ld = a.D | 1, first = blockIdx.x * ROWS, h = blockIdx.y, g = h / (a.H / a.G);
    const int mine = threadIdx.x / WARP * EACH, lane = threadIdx.x % WARP;
    float *q = memory, *k = q + ROWS * ld, *v = k + OTHERS * ld;
    const int2 reach = block_reach(a, first);
    float o[EACH][PER_LANE] = {}, max[EACH], sum[EACH] = {};
    for (int i = 0; i < EACH; i++) {
        max[i] = -INFINITY;
    }
    load_rows(q, a.q, a.H, h, a.D, first, ROWS, a.N);
    for (int key = reach.x; key <= reach.y; key += OTHERS) {
        __syncthreads();
        load_rows(k, a.k, a.G, g, a.D, key, OTHERS, a.M);
        load_rows(v, a.v, a.G, g, a.D, key, OTHERS, a.M);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            const int2 span = row_span(a, first + mine + i);
            const bool seen = key + lane >= span.x && key + lane <= span.y;
            const float score = a.scale * dot_rows(q + (mine + i) * ld, k + lane * ld, a.D);
            const float largest = fmaxf(max[i], warp_max(seen ? score : -INFINITY));
            if (largest == -INFINITY) continue; // no key of this row yet
            const float p = seen ? expf(score - largest) : 0.0f, shrink = expf(max[i] - largest);
            sum[i] = sum[i] * shrink + warp_sum(p);
            max[i] = largest;
#pragma unroll
            for (int j = 0; j < PER_LANE; j++) {
                o[i][j] *= shrink;
            }
            add_rows(o[i], p, v, a.D);
        }
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int n = first + mine + i;
        if (n >= a.N) continue;
        store_row(a.o, a.H, h, a.D, n, o[i], sum[i] > 0 ? 1.0f / sum[i] : 0.0f);
        if (a.lse && lane == 0) a.lse[(int64_t)n * a.H + h] = max[i] + logf(sum[i]);
    }
}

static __global__ void __launch_bounds__(WARPS *WARP) dq_f32(struct attention_problem a)
{
    DYNAMIC_SHARED(float, memory);
    const int ld = a.D | 1, first = blockIdx.x * ROWS, h = blockIdx.y, g = h / (a.H / a.G);
    const int mine = threadIdx.x / WARP * EACH, lane = threadIdx.x % WARP;
    float *q = memory, *dout = q + ROWS * ld, *k = dout + ROWS * ld, *v = k + OTHERS * ld;
    const int2 reach = block_reach(a, first);
    float dq[EACH][PER_LANE] = {};
    load_rows(q, a.q, a.H, h, a.D, first, ROWS, a.N);
    load_rows(dout, a.dout, a.H, h, a.D, first, ROWS, a.N);
    for (int key = reach.x; key <= reach.y; key += OTHERS) {
        __syncthreads();
        load_rows(k, a.k, a.G, g, a.D, key, OTHERS, a.M);
        load_rows(v, a.v, a.G, g, a.D, key, OTHERS, a.M);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            const int n = first + mine + i;
            const int2 span = row_span(a, n);
            const bool seen = key + lane >= span.x && key + lane <= span.y;
            const int64_t at = (int64_t)(seen ? n : 0) * a.H + h;
            const float score = a.scale * dot_rows(q + (mine + i) * ld, k + lane * ld, a.D);
            const float dp = dot_rows(dout + (mine + i) * ld, v + lane * ld, a.D);
            add_rows(dq[i], seen ? expf(score - a.lse[at]) * (dp - a.delta[at]) : 0.0f, k, a.D);
        }
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int n = first + mine + i;
        if (n < a.N) store_row(a.dq, a.H, h, a.D, n, dq[i], a.scale);
    }
}

// A lane's query: of tiles of OTHERS queries.
static __global__ void __launch_bounds__(WARPS *WARP) dkv_f32(struct attention_problem a)
{
    DYNAMIC_SHARED(float, memory);
    const int ld = a.D | 1, first = blockIdx.x * ROWS, g = blockIdx.y, heads = a.H / a.G;
    const int mine = threadIdx.x / WARP * EACH, lane = threadIdx.x % WARP;
    float *k = memory, *v = k + ROWS * ld, *q = v + ROWS * ld, *dout = q + OTHERS * ld;
    float dk[EACH][PER_LANE] = {}, dv[EACH][PER_LANE] = {};
    load_rows(k, a.k, a.G, g, a.D, first, ROWS, a.M);
    load_rows(v, a.v, a.G, g, a.D, first, ROWS, a.M);
    for (int h = g * heads; h < (g + 1) * heads; h++) {
        for (int t = 0; t * OTHERS < a.N; t++) {
            if (a.reach[t].x >= first + ROWS || a.reach[t].y < first) continue;
            __syncthreads();
            load_rows(q, a.q, a.H, h, a.D, t * OTHERS, OTHERS, a.N);
            load_rows(dout, a.dout, a.H, h, a.D, t * OTHERS, OTHERS, a.N);
            __syncthreads();
            const int n = t * OTHERS + lane;
            const int2 span = row_span(a, n);
            const int64_t at = (int64_t)min(n, a.N - 1) * a.H + h;
            const float lse = a.lse[at], delta = a.delta[at];
#pragma unroll
            for (int i = 0; i < EACH; i++) {
                const bool seen = first + mine + i >= span.x && first + mine + i <= span.y;
                const float score = a.scale * dot_rows(k + (mine + i) * ld, q + lane * ld, a.D);
                const float dp = dot_rows(v + (mine + i) * ld, dout + lane * ld, a.D);
                const float p = seen ? expf(score - lse) : 0.0f;
                add_rows(dv[i], p, dout, a.D);
                add_rows(dk[i], seen ? p * (dp - delta) : 0.0f, q, a.D);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int m = first + mine + i;
        if (m >= a.M) continue;
        if (a.dk) store_row(a.dk, a.G, g, a.D, m, dk[i], a.scale);
        if (a.dv) store_row(a.dv, a.G, g, a.D, m, dv[i], 1.0f);
    }
}

static size_t bytes_of(const struct attention_problem *a, int rows)
{
    return (size_t)rows * (size_t)(a->D | 1) * sizeof(float);
}

void attention_forward_f32(const struct attention_problem *a)
{
    LAUNCH(forward_f32, dim3((unsigned)ceil_div(a->N, ROWS), a->H), WARPS * WARP,
           bytes_of(a, ROWS + 2 * OTHERS), *a);
}

void attention_backward_f32(struct attention_problem *a)
{
    const size_t bytes = bytes_of(a, 2 * ROWS + 2 * OTHERS); // 99 KB at D = 256
    if (a->dq) LAUNCH(dq_f32, dim3((unsigned)ceil_div(a->N, ROWS), a->H), WARPS * WARP, bytes, *a);
    if (!a->dk && !a->dv) return;
    attention_find_reach(a, OTHERS);
    LAUNCH(dkv_f32, dim3((unsigned)ceil_div(a->M, ROWS), a->G), WARPS * WARP, bytes, *a);
}
