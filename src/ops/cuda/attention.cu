// ops/cuda/attention.cu - attention forward: softmax(scale q k^T) v over spans with a running maximum and sum
// (Milakov & Gimelshein 2018, tiled as in Dao 2023), in tiles that the rows of a block reach.
#include "ops/cuda/attention.cuh"

// A block takes 128 queries of a head, 16 a warp, and walks over tiles of keys, two in shared memory at a time.
// Registers a thread: D / 2 sums of o, KEYS / 2 scores. Shared memory at D = 128: 96 KB, two blocks a
// multiprocessor of Hopper where registers stay within 128, else one.
template <int D> struct forward_tile {
    static constexpr int QUERIES = 128;
    static constexpr int KEYS = D > 192 ? 32 : 64;
    static constexpr int THREADS = QUERIES / 16 * 32;
    static constexpr int ROW = head<D>::ROW_BYTES;
    static constexpr int STAGE = 2 * KEYS * ROW; // keys, then values
    static constexpr int BYTES = 1024 + QUERIES * ROW + 2 * STAGE;
};

struct running { // of a lane's two rows
    float max[2], sum[2];
};

// Scores become e^(score - max), zero outside the spans; what is in o is scaled to a new maximum.
template <int KEYS, int D>
static __device__ __forceinline__ void soften(float (&s)[KEYS / 8][4], float (&o)[D / 8][4],
                                              running &r, const int2 (&span)[2], int key,
                                              float scale)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float largest = -INFINITY;
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++) {
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; e++) {
                const int m = key + j * 8 + lane % 4 * 2 + e % 2;
                s[j][e] = m >= span[half].x && m <= span[half].y ? s[j][e] * scale : -INFINITY;
                largest = fmaxf(largest, s[j][e]);
            }
        }
        largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFU, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFU, largest, 2));
        largest = fmaxf(largest, r.max[half]);
        const float base = largest == -INFINITY ? 0.0f : largest; // no key yet: all become 0
        const float shrink = exp2f(r.max[half] - base);
        float sum = 0;
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++) {
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; e++) {
                s[j][e] = exp2f(s[j][e] - base);
                sum += s[j][e];
            }
        }
        r.sum[half] = r.sum[half] * shrink + sum; // the lane's own columns: added up at the end
        r.max[half] = largest;
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            o[j][2 * half] *= shrink;
            o[j][2 * half + 1] *= shrink;
        }
    }
}

template <int D>
static __device__ __forceinline__ void
finish(const struct attention_problem &a, const float (&o)[D / 8][4], running &r, int row, int h)
{
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        r.sum[half] += __shfl_xor_sync(0xFFFFFFFFU, r.sum[half], 1);
        r.sum[half] += __shfl_xor_sync(0xFFFFFFFFU, r.sum[half], 2);
        inverse[half] = r.sum[half] > 0 ? 1.0f / r.sum[half] : 0.0f; // 0: an empty span
        const int n = row + half * 8;
        if (a.lse && n < a.N && threadIdx.x % 4 == 0) {
            a.lse[(int64_t)n * a.H + h] = r.max[half] / LOG2_E + logf(r.sum[half]);
        }
    }
    store_head<D>(a.o, a.H, h, a.D, a.N, row, 0, o, inverse[0], inverse[1]);
}

template <int D>
static __global__ void __launch_bounds__(forward_tile<D>::THREADS)
    forward_kernel(struct attention_problem a)
{
    using tile = forward_tile<D>;
    DYNAMIC_SHARED(char, memory);
    const uint32_t q_tile = (shared_address(memory) + 1023) & ~1023U,
                   stages = q_tile + tile::QUERIES * tile::ROW;
    // Later rows see more keys in most batches: they begin first.
    const int first = (gridDim.x - 1 - blockIdx.x) * tile::QUERIES, h = blockIdx.y,
              g = h / (a.H / a.G);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = first + warp * 16 + lane / 4;
    const int2 all = reach_of(a, first, tile::QUERIES), mine = reach_of(a, first + warp * 16, 16);
    const int2 span[2] = {span_of(a, row), span_of(a, row + 8)};
    const int steps = all.x <= all.y ? (all.y - all.x) / tile::KEYS + 1 : 0;
    load_head<D, tile::QUERIES, tile::THREADS>(q_tile, a.q, a.H, h, a.D, first, a.N);
    load_keys<D, tile>(stages, a, g, all.x, 0, steps);
    float o[D / 8][4];
    clear_rows<D>(o);
    running r = {{-INFINITY, -INFINITY}, {0, 0}};
    for (int step = 0; step < steps; step++) {
        const int key = all.x + step * tile::KEYS;
        const uint32_t at = stages + step % 2 * tile::STAGE;
        copy_wait<0>();
        __syncthreads(); // the tile is there, and nobody reads the other one any more
        load_keys<D, tile>(stages, a, g, all.x, step + 1, steps);
        if (mine.x >= key + tile::KEYS || mine.y < key) continue;
        float s[tile::KEYS / 8][4];
        multiply_heads<D, tile::QUERIES, tile::KEYS, tile::KEYS>(s, q_tile, warp * 16, at);
        soften<tile::KEYS, D>(s, o, r, span, key, a.scale * LOG2_E);
        multiply_rows_of<tile::KEYS, D>(o, s, at + tile::STAGE / 2, 0);
    }
    copy_wait<0>();
    finish<D>(a, o, r, row, h);
}

template <int D> static void forward(const struct attention_problem &a)
{
    using tile = forward_tile<D>;
    const auto kernel = forward_kernel<D>;
    LAUNCH(kernel, dim3(div_up(a.N, tile::QUERIES), a.H), tile::THREADS, tile::BYTES, a);
}

struct attention_problem attention_problem(struct tensor q, struct tensor k, struct tensor v,
                                           struct tensor span, int64_t head_dim, float scale)
{
    struct attention_problem a = {};
    assert(head_dim <= MOST_HEAD_DIM);
    a.q = q.data;
    a.k = k.data;
    a.v = v.data;
    a.span = data<int32_t>(span);
    a.N = (int)q.dim[0];
    a.M = (int)k.dim[0];
    a.D = (int)head_dim;
    a.H = (int)(q.dim[1] / head_dim);
    a.G = (int)(k.dim[1] / head_dim);
    a.scale = scale;
    return a;
}

void cuda_attention_forward(struct tensor o, struct tensor lse, struct tensor q, struct tensor k,
                            struct tensor v, struct tensor span, int64_t head_dim, float scale)
{
    struct attention_problem a = attention_problem(q, k, v, span, head_dim, scale);
    a.o = o.data;
    a.lse = data<float>(lse);
    if (a.N == 0) return;
    if (q.dtype == DTYPE_F32) {
        attention_forward_f32(&a);
    } else if (a.D <= 64) {
        forward<64>(a);
    } else if (a.D <= 96) {
        forward<96>(a);
    } else if (a.D <= 128) {
        forward<128>(a);
    } else if (a.D <= 192) {
        forward<192>(a);
    } else {
        forward<256>(a);
    }
}
