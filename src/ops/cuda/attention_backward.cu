// ops/cuda/attention_backward.cu - the gradients of attention, with p recomputed from lse:
//   p = e^(scale q k^T - lse),  dv = p^T do,  ds = p (do v^T - <do, o>),  dq = scale ds k,
//   dk = scale ds^T q
// One pass forms tiles for dq, another their transposes for dk and dv: each output is summed by one block in a
// fixed order (heads of a group, queries, keys ascending), and nothing is added atomically.
#include "ops/cuda/attention.cuh"

// dq: 16 queries a warp. With heads wider than 128, half the warps, so that queries, do and two stages of keys
// and values fit in 128 KB.
template <int D> struct dq_tile {
    static constexpr int QUERIES = D > 128 ? 64 : 128;
    static constexpr int KEYS = D > 128 ? 32 : 64;
    static constexpr int THREADS = QUERIES / 16 * 32;
    static constexpr int ROW = head<D>::ROW_BYTES;
    static constexpr int STAGE = 2 * KEYS * ROW; // keys, then values
    static constexpr int BYTES = 1024 + 2 * QUERIES * ROW + 2 * STAGE;
};

// dk, dv: 16 keys a warp; heads wider than 128 are cut in two, and each half of the warps sums one. 96 KB at
// D = 128, 128 KB at 256. Of each query of a stage, also its lse, delta and span (16 bytes).
template <int D> struct dkv_tile {
    static constexpr int PARTS = D > 128 ? 2 : 1;
    static constexpr int WIDTH = D / PARTS; // of the columns a warp sums
    static constexpr int KEYS = D > 128 ? 64 : 128;
    static constexpr int QUERIES = D > 64 ? 32 : 64;
    static constexpr int THREADS = KEYS / 16 * 32 * PARTS;
    static constexpr int ROW = head<D>::ROW_BYTES;
    static constexpr int STAGE = 2 * QUERIES * ROW; // queries, then do
    static constexpr int BYTES = 1024 + 2 * KEYS * ROW + 2 * STAGE;
};

struct query { // what a tile needs to know of one
    float lse, delta;
    int first, last;
};

template <int D>
static __global__ void __launch_bounds__(dq_tile<D>::THREADS) dq_kernel(struct attention_problem a)
{
    using tile = dq_tile<D>;
    DYNAMIC_SHARED(char, memory);
    const uint32_t q_tile = (shared_address(memory) + 1023) & ~1023U,
                   do_tile = q_tile + tile::QUERIES * tile::ROW;
    const uint32_t stages = do_tile + tile::QUERIES * tile::ROW;
    const int first = (gridDim.x - 1 - blockIdx.x) * tile::QUERIES, h = blockIdx.y,
              g = h / (a.H / a.G);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = first + warp * 16 + lane / 4;
    const int2 all = reach_of(a, first, tile::QUERIES), mine = reach_of(a, first + warp * 16, 16);
    const int2 span[2] = {span_of(a, row), span_of(a, row + 8)};
    float lse[2], delta[2];
    for (int half = 0; half < 2; half++) {
        const int64_t at = (int64_t)min(row + half * 8, a.N - 1) * a.H + h;
        lse[half] = a.lse[at] * LOG2_E;
        delta[half] = a.delta[at];
    }
    const int steps = all.x <= all.y ? (all.y - all.x) / tile::KEYS + 1 : 0;
    load_head<D, tile::QUERIES, tile::THREADS>(q_tile, a.q, a.H, h, a.D, first, a.N);
    load_head<D, tile::QUERIES, tile::THREADS>(do_tile, a.dout, a.H, h, a.D, first, a.N);
    load_keys<D, tile>(stages, a, g, all.x, 0, steps);
    float dq[D / 8][4];
    clear_rows<D>(dq);
    for (int step = 0; step < steps; step++) {
        const int key = all.x + step * tile::KEYS;
        const uint32_t at = stages + step % 2 * tile::STAGE;
        copy_wait<0>();
        __syncthreads();
        load_keys<D, tile>(stages, a, g, all.x, step + 1, steps);
        if (mine.x >= key + tile::KEYS || mine.y < key) continue;
        float s[tile::KEYS / 8][4], ds[tile::KEYS / 8][4];
        multiply_heads<D, tile::QUERIES, tile::KEYS, tile::KEYS>(s, q_tile, warp * 16, at);
        multiply_heads<D, tile::QUERIES, tile::KEYS, tile::KEYS>(ds, do_tile, warp * 16,
                                                                 at + tile::STAGE / 2);
#pragma unroll
        for (int j = 0; j < tile::KEYS / 8; j++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int m = key + j * 8 + lane % 4 * 2 + e % 2, half = e / 2;
                const bool seen = m >= span[half].x && m <= span[half].y;
                const float p = seen ? exp2f(s[j][e] * (a.scale * LOG2_E) - lse[half]) : 0.0f;
                ds[j][e] = seen ? p * (ds[j][e] - delta[half]) : 0.0f;
            }
        }
        multiply_rows_of<tile::KEYS, D>(dq, ds, at, 0);
    }
    copy_wait<0>();
    store_head<D>(a.dq, a.H, h, a.D, a.N, row, 0, dq, a.scale, a.scale);
}

// The tiles of queries that see keys [key, key + keys): of each head of the group, in order. Those between the
// first and the last that do are looked at one by one.
struct query_tiles {
    int h, t, first, last, end_h;
};

static __device__ __forceinline__ bool tile_sees(const struct attention_problem &a, int t, int key,
                                                 int keys)
{
    const int2 r = a.reach[t];
    return r.x < key + keys && r.y >= key;
}

static __device__ void seek_tile(query_tiles &c, const struct attention_problem &a, int key,
                                 int keys)
{
    while (c.t <= c.last && !tile_sees(a, c.t, key, keys)) {
        c.t++;
    }
    if (c.t > c.last) {
        c.h++;
        c.t = c.first;
    }
}

static __device__ query_tiles first_tile(const struct attention_problem &a, int g, int key,
                                         int keys, int tiles)
{
    query_tiles c = {g * (a.H / a.G), 0, 0, tiles - 1, (g + 1) * (a.H / a.G)};
    while (c.first < tiles && !tile_sees(a, c.first, key, keys)) {
        c.first++;
    }
    while (c.last > c.first && !tile_sees(a, c.last, key, keys)) {
        c.last--;
    }
    c.t = c.first;
    if (c.first == tiles) c.h = c.end_h;
    return c;
}

// Transposed scores become p, and do v^T becomes ds, of keys m and m + 8 of the lane.
template <int QUERIES>
static __device__ __forceinline__ void differentiate(float (&p)[QUERIES / 8][4],
                                                     float (&ds)[QUERIES / 8][4],
                                                     const query *queries, int m, float scale)
{
#pragma unroll
    for (int j = 0; j < QUERIES / 8; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const query q = queries[j * 8 + threadIdx.x % 4 * 2 + e % 2];
            const bool seen = m + e / 2 * 8 >= q.first && m + e / 2 * 8 <= q.last;
            p[j][e] = seen ? exp2f(p[j][e] * (scale * LOG2_E) - q.lse) : 0.0f;
            ds[j][e] = seen ? p[j][e] * (ds[j][e] - q.delta) : 0.0f;
        }
    }
}

template <int D>
static __global__ void __launch_bounds__(dkv_tile<D>::THREADS)
    dkv_kernel(struct attention_problem a)
{
    using tile = dkv_tile<D>;
    DYNAMIC_SHARED(char, memory);
    __shared__ query queries[2][tile::QUERIES];
    const uint32_t k_tile = (shared_address(memory) + 1023) & ~1023U,
                   v_tile = k_tile + tile::KEYS * tile::ROW;
    const uint32_t stages = v_tile + tile::KEYS * tile::ROW;
    const int first = blockIdx.x * tile::KEYS, g = blockIdx.y;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int slab = warp % (tile::KEYS / 16) * 16, column = warp / (tile::KEYS / 16) * tile::WIDTH;
    query_tiles next = first_tile(a, g, first, tile::KEYS, div_up(a.N, tile::QUERIES));
    auto load = [&](int stage) { // what `next` names, and goes on to the one after it
        const uint32_t at = stages + stage * tile::STAGE;
        if (next.h < next.end_h) {
            const int row = next.t * tile::QUERIES;
            load_head<D, tile::QUERIES, tile::THREADS>(at, a.q, a.H, next.h, a.D, row, a.N);
            load_head<D, tile::QUERIES, tile::THREADS>(at + tile::STAGE / 2, a.dout, a.H, next.h,
                                                       a.D, row, a.N);
            if (threadIdx.x < tile::QUERIES) {
                const int n = row + threadIdx.x;
                const int64_t i = (int64_t)min(n, a.N - 1) * a.H + next.h;
                const int2 span = span_of(a, n);
                queries[stage][threadIdx.x] = {a.lse[i] * LOG2_E, a.delta[i], span.x, span.y};
            }
            next.t++;
            seek_tile(next, a, first, tile::KEYS);
        }
        copy_commit();
    };
    load_head<D, tile::KEYS, tile::THREADS>(k_tile, a.k, a.G, g, a.D, first, a.M);
    load_head<D, tile::KEYS, tile::THREADS>(v_tile, a.v, a.G, g, a.D, first, a.M);
    bool more = next.h < next.end_h;
    load(0);
    float dk[tile::WIDTH / 8][4], dv[tile::WIDTH / 8][4];
    clear_rows<tile::WIDTH>(dk);
    clear_rows<tile::WIDTH>(dv);
    for (int stage = 0; more; stage ^= 1) {
        const uint32_t at = stages + stage * tile::STAGE;
        copy_wait<0>();
        __syncthreads();
        more = next.h < next.end_h;
        load(stage ^ 1);
        float p[tile::QUERIES / 8][4], ds[tile::QUERIES / 8][4];
        multiply_heads<D, tile::KEYS, tile::QUERIES, tile::QUERIES>(p, k_tile, slab, at);
        multiply_heads<D, tile::KEYS, tile::QUERIES, tile::QUERIES>(ds, v_tile, slab,
                                                                    at + tile::STAGE / 2);
        differentiate<tile::QUERIES>(p, ds, queries[stage], first + slab + lane / 4, a.scale);
        multiply_rows_of<tile::QUERIES, tile::WIDTH>(dv, p, at + tile::STAGE / 2, column);
        multiply_rows_of<tile::QUERIES, tile::WIDTH>(dk, ds, at, column);
    }
    copy_wait<0>();
    const int row = first + slab + lane / 4;
    if (a.dk) store_head<tile::WIDTH>(a.dk, a.G, g, a.D, a.M, row, column, dk, a.scale, a.scale);
    if (a.dv) store_head<tile::WIDTH>(a.dv, a.G, g, a.D, a.M, row, column, dv, 1.0f, 1.0f);
}

// delta (N,H) = <do, o> over each head: a warp each
template <class T>
static __global__ void __launch_bounds__(THREADS)
    delta_kernel(float *delta, const T *dout, const T *o, int64_t count, int D)
{
    const int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) / WARP;
    if (i >= count) return;
    float sum = 0;
    for (int d = threadIdx.x % WARP; d < D; d += WARP) {
        sum = fmaf(to_float(dout[i * D + d]), to_float(o[i * D + d]), sum);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) delta[i] = sum;
}

static __global__ void __launch_bounds__(THREADS)
    reach_kernel(int2 *reach, struct attention_problem a, int queries)
{
    const int t = (blockIdx.x * THREADS + threadIdx.x) / WARP;
    if (t * queries >= a.N) return;
    const int2 r = reach_of(a, t * queries, queries);
    if (threadIdx.x % WARP == 0) reach[t] = r;
}

void attention_find_reach(struct attention_problem *a, int queries)
{
    const int tiles = div_up(a->N, queries);
    int2 *reach = (int2 *)cuda_scratch(CUDA_SCRATCH_B, (size_t)tiles * sizeof *reach);
    LAUNCH(reach_kernel, div_up(tiles * WARP, THREADS), THREADS, 0, reach, *a, queries);
    a->reach = reach;
}

template <int D> static void backward(struct attention_problem *a)
{
    if (a->dq) {
        using tile = dq_tile<D>;
        const auto kernel = dq_kernel<D>;
        LAUNCH(kernel, dim3(div_up(a->N, tile::QUERIES), a->H), tile::THREADS, tile::BYTES, *a);
    }
    if (a->dk || a->dv) {
        using tile = dkv_tile<D>;
        const auto kernel = dkv_kernel<D>;
        attention_find_reach(a, tile::QUERIES);
        LAUNCH(kernel, dim3(div_up(a->M, tile::KEYS), a->G), tile::THREADS, tile::BYTES, *a);
    }
}

void cuda_attention_backward(const struct attention_grads *d, const struct attention_saved *s,
                             struct tensor span, int64_t head_dim, float scale)
{
    struct attention_problem a = attention_problem(s->q, s->k, s->v, span, head_dim, scale);
    const int64_t pairs = (int64_t)a.N * a.H;
    if (pairs == 0) {
        if (d->dk.data) cuda_zero(d->dk);
        if (d->dv.data) cuda_zero(d->dv);
        return;
    }
    float *delta = (float *)cuda_scratch(CUDA_SCRATCH_A, (size_t)pairs * sizeof *delta);
    with_activation(s->q.dtype, [&](auto zero) {
        using T = decltype(zero);
        const auto kernel = delta_kernel<T>;
        LAUNCH(kernel, ceil_div(pairs * WARP, THREADS), THREADS, 0, delta, data<T>(s->dout),
               data<T>(s->o), pairs, a.D);
    });
    a.delta = delta;
    a.lse = data<float>(s->lse);
    a.dout = s->dout.data;
    a.dq = d->dq.data;
    a.dk = d->dk.data;
    a.dv = d->dv.data;
    if (s->q.dtype == DTYPE_F32) {
        attention_backward_f32(&a);
    } else if (a.D <= 64) {
        backward<64>(&a);
    } else if (a.D <= 96) {
        backward<96>(&a);
    } else if (a.D <= 128) {
        backward<128>(&a);
    } else if (a.D <= 192) {
        backward<192>(&a);
    } else {
        backward<256>(&a);
    }
}
