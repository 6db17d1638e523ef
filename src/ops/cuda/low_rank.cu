// ops/cuda/low_rank.cu - what low-rank adapters need besides products: dropout on their input, and the scaling
// by columns that DoRA puts on a linear's output.
#include "ops/cuda/cuda.h"

extern "C" {
#include "base/philox.h"
}

static const int32_t *last_of(struct tensor offsets)
{
    return offsets.data ? data<int32_t>(offsets) + tensor_count(offsets) - 1 : nullptr;
}

// ---- dropout: the bits are those of ops/cpu/dropout.h

struct dropout_rows {
    const int32_t *slot, *offset; // slot NULL: row r is token r; offset (G+1) or NULL
    const int32_t *last;
    int64_t S, G, R, first;
    uint64_t key;
    uint32_t threshold; // of 65536 patterns, those below are dropped
    float scale;
};

// What becomes of y: x * mask; y + x * mask; y where the mask keeps and y - x where it drops.
enum drop_mode { DROP_SET, DROP_ADD, DROP_SUBTRACT };

// V elements, without a fused multiply-add: as the CPU rounds.
template <int V, typename T, typename U>
static __device__ inline void drop(T *y, const U *x, const bool (&kept)[V], float scale,
                                   drop_mode mode)
{
    float in[V], out[V];
    load_many(in, x);
    if (mode != DROP_SET) load_many(out, y);
    for (int k = 0; k < V; k++) {
        const float masked = __fmul_rn(in[k], kept[k] ? scale : 0.0f);
        if (mode == DROP_SUBTRACT) {
            out[k] = kept[k] ? out[k] : out[k] - in[k];
        } else {
            out[k] = mode == DROP_ADD ? __fadd_rn(out[k], masked) : masked;
        }
    }
    store_many(y, out);
}

// A block a row. A word i of the row has one pattern for column i, one for column half + i.
template <int V, typename T, typename U>
static __global__ void dropout(T *y, const U *x, dropout_rows d, int64_t C, drop_mode mode)
{
    const int64_t r = blockIdx.x, half = ceil_div(C, 2);
    if (d.last && r >= *d.last) return;
    const int64_t token = d.slot ? d.slot[r] / d.S : r;
    const uint64_t group = (uint64_t)(d.first + group_of(d.offset, d.G, r));
    const uint64_t random = philox(d.key, group, (uint64_t)token);
    const uint32_t low = (uint32_t)random, high = (uint32_t)(random >> 32);
    for (int64_t i = (int64_t)threadIdx.x * V; i < half; i += (int64_t)blockDim.x * V) {
        bool a[V], b[V];
        for (int k = 0; k < V; k++) {
            const uint32_t z = row_word((uint32_t)(i + k), low, high);
            a[k] = (z & 0xffffU) >= d.threshold;
            b[k] = (z >> 16) >= d.threshold;
        }
        drop(y + r * C + i, x + r * C + i, a, d.scale, mode);
        if (half + i + V <= C) drop(y + r * C + half + i, x + r * C + half + i, b, d.scale, mode);
    }
}

static void run_dropout(struct tensor y, struct tensor x, const struct dropout *d, drop_mode mode)
{
    const struct tensor offsets = d->rows ? d->rows->offsets : tensor_absent();
    const int64_t C = x.dim[1];
    assert(d->p >= 0 && d->p < 1 && y.dim[1] == C);
    dropout_rows rows = {};
    if (d->rows) {
        rows.slot = data<int32_t>(d->rows->slot);
        rows.offset = data<int32_t>(offsets);
        rows.last = last_of(offsets);
        rows.S = d->rows->row.dim[1];
        rows.G = tensor_count(offsets) - 1;
    }
    rows.R = x.dim[0] < y.dim[0] ? x.dim[0] : y.dim[0];
    rows.first = d->first;
    rows.key = d->key;
    rows.threshold = (uint32_t)lrintf(d->p * 65536.0f);
    rows.scale = 1.0f / (1.0f - d->p);
    with_activation(y.dtype, [&](auto zero) {
        using T = decltype(zero);
        with_activation(x.dtype, [&](auto other) {
            using U = decltype(other);
            const bool wide = C % 2 == 0 && wide_rows(C / 2, data<T>(y), data<U>(x));
            with_width(wide, [&](auto v) {
                constexpr int V = decltype(v)::value;
                LAUNCH((dropout<V, T, U>), (unsigned)rows.R, cuda_threads(C / 2 / V), 0, data<T>(y),
                       data<U>(x), rows, C, mode);
            });
        });
    });
}

void cuda_dropout(struct tensor y, struct tensor x, const struct dropout *d, bool accumulate)
{
    run_dropout(y, x, d, accumulate ? DROP_ADD : DROP_SET);
}

// ---- a linear of x and of dropout(x)

template <int V, typename T> static __global__ void subtract(T *y, const T *u, int64_t count)
{
    for (int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * V; i < count;
         i += (int64_t)gridDim.x * blockDim.x * V) {
        float a[V], b[V];
        load_many(a, y + i);
        load_many(b, u + i);
        for (int k = 0; k < V; k++) {
            a[k] -= b[k];
        }
        store_many(y + i, a);
    }
}

static struct tensor offsets_of(const struct dropout *d)
{
    return d->rows ? d->rows->offsets : tensor_absent();
}

// The dropped rows, or the whole product, lie in scratch memory: as large as x.
static struct tensor rows_like(struct tensor x)
{
    return tensor_2d(cuda_scratch(CUDA_SCRATCH_ROWS, tensor_bytes(x)), x.dtype, x.dim[0], x.dim[1]);
}

void cuda_dropped_forward(struct tensor u, struct tensor y, struct tensor x,
                          const struct matrices *w, const struct dropout *d)
{
    const struct tensor dropped = rows_like(x);
    const int64_t count = tensor_count(y);
    assert(u.dtype == y.dtype && tensor_count(u) == count);
    if (!dropped.data) return;
    cuda_dropout(dropped, x, d, false);
    cuda_matmul_forward(u, dropped, w, offsets_of(d), false);
    with_activation(y.dtype, [&](auto zero) {
        using T = decltype(zero);
        with_width(wide_rows(count, data<T>(y), data<T>(u)), [&](auto v) {
            constexpr int V = decltype(v)::value;
            LAUNCH((subtract<V, T>), cuda_grid(count / V, THREADS), THREADS, 0, data<T>(y),
                   data<T>(u), count);
        });
    });
}

void cuda_dropped_dinput(struct tensor dx, struct tensor dy, const struct matrices *w,
                         const struct dropout *d)
{
    const struct tensor whole = rows_like(dx);
    if (!whole.data) return;
    cuda_matmul_dinput(whole, dy, w, offsets_of(d), false);
    run_dropout(dx, whole, d, DROP_SUBTRACT);
}

// ---- columns

template <typename T, typename U>
static __global__ void scale_columns(T *y, const U *x, const float *c, const int32_t *offset,
                                     int64_t G, int64_t C, bool accumulate)
{
    const int64_t r = blockIdx.x;
    if (offset && r >= offset[G]) return;
    const float *factor = c + (int64_t)group_of(offset, G, r) * C;
    for (int64_t i = threadIdx.x; i < C; i += blockDim.x) {
        const float scaled = to_float(x[r * C + i]) * factor[i];
        y[r * C + i] = from_float<T>(accumulate ? to_float(y[r * C + i]) + scaled : scaled);
    }
}

void cuda_scale_columns(struct tensor y, struct tensor x, struct tensor c, struct tensor offsets,
                        bool accumulate)
{
    const int64_t C = x.dim[1], G = c.dim[0], R = x.dim[0] < y.dim[0] ? x.dim[0] : y.dim[0];
    assert(y.dim[1] == C && c.dim[1] == C);
    assert(offsets.data ? tensor_count(offsets) == G + 1 : G == 1);
    with_activation(y.dtype, [&](auto zero) {
        using T = decltype(zero);
        with_activation(x.dtype, [&](auto other) {
            using U = decltype(other);
            LAUNCH((scale_columns<T, U>), (unsigned)R, cuda_threads(C), 0, data<T>(y), data<U>(x),
                   data<float>(c), data<int32_t>(offsets), G, C, accumulate);
        });
    });
}

// ---- norms

// A warp a row of a matrix.
template <typename W>
static __global__ void row_squares(float *s, void *const *matrix, int64_t rows, int64_t cols,
                                   int64_t all)
{
    const int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    if (i >= all) return;
    const W *row = (const W *)matrix[i / rows] + i % rows * cols;
    double sum = 0;
    for (int64_t c = threadIdx.x % WARP; c < cols; c += WARP) {
        const float x = to_float(row[c]);
        sum += (double)(x * x);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) s[i] = (float)sum;
}

void cuda_row_squares(struct tensor s, const struct matrices *w)
{
    const int64_t all = w->groups * w->rows;
    assert(tensor_count(s) == all);
    with_floating(w->dtype, [&](auto zero) {
        using W = decltype(zero);
        LAUNCH((row_squares<W>), (unsigned)ceil_div(all * WARP, THREADS), THREADS, 0,
               data<float>(s), w->data, w->rows, w->cols, all);
    });
}

struct norm_in {
    const float *magnitude, *squares, *p, *q;
    float a;
};
struct norm_out {
    float *scale, *rest, *inverse;
};

template <typename B>
static __global__ void magnitude_scale(norm_out out, norm_in in, const B *b, int64_t N, int64_t K)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= N) return;
    double square = (double)in.squares[i];
    for (int64_t k = i * K; k < (i + 1) * K; k++) {
        square += (double)(in.a * to_float(b[k])) *
                  (2 * (double)in.p[k] + (double)in.a * (double)in.q[k]);
    }
    const double norm = square > 0 ? sqrt(square) : 0;
    const double scale = norm > 0 ? (double)in.magnitude[i] / norm : 0;
    out.inverse[i] = (float)(norm > 0 ? 1 / norm : 0);
    out.scale[i] = (float)scale;
    out.rest[i] = (float)(scale - 1);
}

void cuda_magnitude_scale(const struct magnitude_scale *out, const struct magnitude_norm *in)
{
    const int64_t N = tensor_count(in->magnitude), K = in->b.dim[1];
    assert(tensor_count(in->squares) == N && in->b.dim[0] == N && in->p.dim[1] == K);
    const norm_out to = {data<float>(out->scale), data<float>(out->rest),
                         data<float>(out->inverse)};
    const norm_in from = {data<float>(in->magnitude), data<float>(in->squares), data<float>(in->p),
                          data<float>(in->q), in->a};
    with_floating(in->b.dtype, [&](auto zero) {
        using B = decltype(zero);
        LAUNCH((magnitude_scale<B>), (unsigned)ceil_div(N, THREADS), THREADS, 0, to, from,
               data<B>(in->b), N, K);
    });
}
