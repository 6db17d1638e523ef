// ops/cuda/swiglu.cu - the gated activation of an expert (Shazeer 2020) with the slot's weight folded in. A
// block a row; blocks beyond the rows there are return.
#include "ops/cuda/swiglu.cuh"

struct swiglu_rows {            // where the rows of a call come from; slot NULL: row r is token r
    const int32_t *slot, *last; // last: the number of rows, on the device
    int64_t R, F;
};

static swiglu_rows rows_of(struct tensor g, const struct dispatch *d)
{
    if (!d) return {nullptr, nullptr, g.dim[0], g.dim[1]};
    const int64_t E = tensor_count(d->offsets) - 1;
    const int64_t most = tensor_count(d->slot) < g.dim[0] ? tensor_count(d->slot) : g.dim[0];
    return {data<int32_t>(d->slot), data<int32_t>(d->offsets) + E, most, g.dim[1]};
}

template <int V, typename T>
static __global__ void swiglu_forward(T *a, const T *g, const T *u, const float *weight,
                                      swiglu_rows rows)
{
    const int64_t r = blockIdx.x, at = r * rows.F;
    if (rows.last && r >= *rows.last) return;
    const float w = weight ? weight[rows.slot ? rows.slot[r] : r] : 1.0f;
    for (int64_t c = (int64_t)threadIdx.x * V; c < rows.F; c += (int64_t)blockDim.x * V) {
        float gate[V], up[V];
        load_many(gate, g + at + c);
        load_many(up, u + at + c);
        for (int k = 0; k < V; k++) {
            gate[k] = swiglu(w, gate[k], up[k]);
        }
        store_many(a + at + c, gate);
    }
}

void cuda_swiglu_forward(struct tensor a, struct tensor g, struct tensor u, struct tensor weight,
                         const struct dispatch *d)
{
    const swiglu_rows rows = rows_of(g, d);
    assert(a.dtype == g.dtype && u.dtype == g.dtype);
    with_activation(g.dtype, [&](auto zero) {
        using T = decltype(zero);
        with_width(wide_rows(rows.F, data<T>(a), data<T>(g), data<T>(u)), [&](auto v) {
            constexpr int V = decltype(v)::value;
            LAUNCH((swiglu_forward<V, T>), (unsigned)rows.R, cuda_threads(rows.F / V), 0,
                   data<T>(a), data<T>(g), data<T>(u), data<float>(weight), rows);
        });
    });
}

// A thread reads all inputs of its elements first: outputs may lie over them.
template <int V, typename T>
static __global__ void swiglu_backward(T *dg, T *du, T *a, float *dweight, const T *da, const T *g,
                                       const T *u, const float *weight, swiglu_rows rows)
{
    const int64_t r = blockIdx.x, at = r * rows.F;
    if (rows.last && r >= *rows.last) return;
    const int64_t slot = rows.slot ? rows.slot[r] : r;
    const float w = weight ? weight[slot] : 1.0f;
    float dot = 0;
    for (int64_t c = (int64_t)threadIdx.x * V; c < rows.F; c += (int64_t)blockDim.x * V) {
        float gate[V], up[V], weighted[V];
        load_many(gate, g + at + c);
        load_many(up, u + at + c);
        load_many(weighted, da + at + c);
        for (int k = 0; k < V; k++) {
            const swiglu_gradient d = swiglu_gradients(w, weighted[k], gate[k], up[k]);
            dot += d.dot;
            weighted[k] = d.a;
            gate[k] = d.dg;
            up[k] = d.du;
        }
        if (dg) store_many(dg + at + c, gate);
        if (du) store_many(du + at + c, up);
        if (a) store_many(a + at + c, weighted);
    }
    if (!dweight) return;
    dot = block_sum(dot);
    if (threadIdx.x == 0) dweight[slot] = dot;
}

static void backward_rows(const struct swiglu_grads *out, struct tensor da, struct tensor g,
                          struct tensor u, struct tensor weight, const struct dispatch *d)
{
    const swiglu_rows rows = rows_of(g, d);
    assert(da.dtype == g.dtype && u.dtype == g.dtype);
    with_activation(g.dtype, [&](auto zero) {
        using T = decltype(zero);
        const bool wide = wide_rows(rows.F, data<T>(out->dg), data<T>(out->du), data<T>(out->a),
                                    data<T>(da), data<T>(g), data<T>(u));
        with_width(wide, [&](auto v) {
            constexpr int V = decltype(v)::value;
            LAUNCH((swiglu_backward<V, T>), (unsigned)rows.R, cuda_threads(rows.F / V), 0,
                   data<T>(out->dg), data<T>(out->du), data<T>(out->a), data<float>(out->dweight),
                   data<T>(da), data<T>(g), data<T>(u), data<float>(weight), rows);
        });
    });
}

void cuda_swiglu_backward(const struct swiglu_grads *out, struct tensor da, struct tensor g,
                          struct tensor u, struct tensor weight, const struct dispatch *d)
{
    if (out->dweight.data) cuda_zero(out->dweight);
    backward_rows(out, da, g, u, weight, d);
}

void cuda_swiglu_dot(struct tensor dweight, struct tensor da, struct tensor g, struct tensor u,
                     const struct dispatch *d)
{
    const struct tensor none = tensor_absent();
    const struct swiglu_grads out = {none, none, none, dweight};
    backward_rows(&out, da, g, u, none, d);
}
