// ops/cuda/rope.cu - rotary position embedding (Su et al. 2021) on halves of a head, in place.
#include "ops/cuda/cuda.h"

// A block a row: (x1, x2) <- (x1 cos - x2 sin, x2 cos + x1 sin); turn = -1 turns back.
template <int V, typename T>
static __global__ void rope(T *x, const int32_t *positions, const float *table, int heads,
                            int head_dim, int half, float turn)
{
    const int64_t n = blockIdx.x;
    const float *cosine = table + (int64_t)positions[n] * 2 * half, *sine = cosine + half;
    T *row = x + n * heads * head_dim;
    const int in_head = half / V;
    for (int i = (int)threadIdx.x; i < heads * in_head; i += (int)blockDim.x) {
        const int c = i % in_head * V;
        T *first = row + i / in_head * head_dim + c;
        float a[V], b[V], cs[V], sn[V], y1[V], y2[V];
        load_many(a, first);
        load_many(b, first + half);
        load_many(cs, cosine + c);
        load_many(sn, sine + c);
        for (int k = 0; k < V; k++) {
            const float s = turn * sn[k];
            y1[k] = a[k] * cs[k] - b[k] * s;
            y2[k] = b[k] * cs[k] + a[k] * s;
        }
        store_many(first, y1);
        store_many(first + half, y2);
    }
}

void cuda_rope(struct tensor x, struct tensor positions, struct tensor table, int64_t head_dim,
               bool inverse)
{
    const int64_t N = x.dim[0], C = x.dim[1], half = table.dim[1] / 2;
    assert(C % head_dim == 0 && 2 * half <= head_dim && table.dim[1] % 2 == 0);
    if (!half) return;
    with_activation(x.dtype, [&](auto zero) {
        using T = decltype(zero);
        const bool wide = wide_rows(half, data<T>(x), data<float>(table)) && head_dim % WIDE == 0;
        with_width(wide, [&](auto v) {
            constexpr int V = decltype(v)::value;
            LAUNCH((rope<V, T>), (unsigned)N, cuda_threads(C / head_dim * half / V), 0, data<T>(x),
                   data<int32_t>(positions), data<float>(table), (int)(C / head_dim), (int)head_dim,
                   (int)half, inverse ? -1.0f : 1.0f);
        });
    });
}
