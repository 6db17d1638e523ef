// ops/cuda/expert.cuh - products of experts that are more than products: their rows are those of tokens, read where
// they lie, and SwiGLU or its gradient is computed from the sums before they are stored.
#pragma once
#include "ops/cuda/swiglu.cuh"
#include "ops/cuda/warp_product.cuh"

// Tiles of g and of u for the same rows of tokens and the same `n` columns: EACH columns of the one, as many of the
// other, and so on, so that a thread holds both of an element.
template <int EACH> struct up_work : work {
    const char *second; // of W_up, as b is of W_gate
    const int32_t *token;
    int64_t row, column; // the tile's first
};

struct up_product {
    template <int EACH> using work_of = up_work<EACH>;
    const char *x;
    char *g, *u, *a;                // (R, columns); a NULL: not wanted
    void *const *gate, *const *up;  // (columns, depth)
    const int32_t *offsets, *token; // token: of each row, cuda_tokens
    const int32_t *slot;            // of each row, an index into weight
    const float *weight;            // NULL: 1
    int groups, rows, columns, depth;
    int x_size, w_size;
};

template <int EACH>
static __device__ __forceinline__ token_operand operand_a(const up_work<EACH> &w)
{
    return {w.a, w.lda, w.token};
}
template <int EACH>
static __device__ __forceinline__ pair_operand<EACH> operand_b(const up_work<EACH> &w)
{
    return {w.b, w.second, w.ldb};
}

// width: of both together
template <int EACH>
static __device__ __forceinline__ bool find_work(up_work<EACH> &w, const up_product &p, int height,
                                                 int width, int t)
{
    const int across = div_up(p.columns, width / 2);
    found f;
    if (!find_group(f, p.offsets, p.groups, p.rows, height, across, t)) return false;
    int i, j;
    place_tile(f.tile, div_up(f.rows, height), across, i, j);
    w.row = f.begin + (int64_t)i * height;
    w.column = (int64_t)j * (width / 2);
    w.m = min(height, f.rows - i * height);
    w.n = min(width / 2, p.columns - j * (width / 2));
    w.k = p.depth;
    w.lda = w.ldb = p.depth;
    w.a = p.x;
    w.token = p.token + w.row;
    w.b = (const char *)p.gate[f.group] + w.column * p.depth * p.w_size;
    w.second = (const char *)p.up[f.group] + w.column * p.depth * p.w_size;
    return true;
}

static __device__ __forceinline__ float slot_weight(const float *weight, const int32_t *slot,
                                                    int64_t row)
{
    return weight ? weight[slot[row]] : 1.0f;
}

// As T keeps it.
template <class T> static __device__ __forceinline__ float rounded(float x)
{
    T kept;
    write_element(&kept, x);
    return read_element(&kept);
}

// SwiGLU of what is kept of g and u, so that the backward pass finds the same a.
template <class T>
static __device__ __forceinline__ float2 swiglu_pair(float weight, float2 g, float2 u)
{
    return make_float2(swiglu(weight, rounded<T>(g.x), rounded<T>(u.x)),
                       swiglu(weight, rounded<T>(g.y), rounded<T>(u.y)));
}

// g and u of one row and two neighbouring columns of a tile, of which `left` exist.
template <class T>
static __device__ __forceinline__ void store_up(const up_product &p, int64_t row, int64_t column,
                                                int left, float2 g, float2 u)
{
    const int64_t at = row * p.columns + column;
    if (left <= 0) return;
    store_pair((T *)p.g + at, left, g.x, g.y, false);
    store_pair((T *)p.u + at, left, u.x, u.y, false);
    if (!p.a) return;
    const float2 a = swiglu_pair<T>(slot_weight(p.weight, p.slot, row), g, u);
    store_pair((T *)p.a + at, left, a.x, a.y, false);
}

// ---- back: da' (R, columns) = dy W_down for the rows of tokens dy[token[r]], of which only SwiGLU's gradients are kept

struct token_work : work {
    const int32_t *token;
    int64_t row, column; // the tile's first
};

struct dhidden_product {
    template <int> using work_of = token_work;
    const char *dy;
    const char *g, *u;              // (R, columns)
    char *dg, *du, *a;              // the same, or where g and u lie; NULL: not wanted
    void *const *bank;              // (depth, columns)
    const int32_t *offsets, *token; // token: of each row
    const int32_t *slot;            // of each row, an index into weight
    const float *weight;            // NULL: 1
    float *dots; // (R, parts): <da', silu(g) u> over the columns of a part; NULL: not wanted
    int parts;
    int groups, rows, columns, depth;
    int dy_size, w_size;
};

static __device__ __forceinline__ token_operand operand_a(const token_work &w)
{
    return {w.a, w.lda, w.token};
}

static __device__ __forceinline__ bool find_work(token_work &w, const dhidden_product &p,
                                                 int height, int width, int t)
{
    const int across = div_up(p.columns, width);
    found f;
    if (!find_group(f, p.offsets, p.groups, p.rows, height, across, t)) return false;
    int i, j;
    place_tile(f.tile, div_up(f.rows, height), across, i, j);
    w.row = f.begin + (int64_t)i * height;
    w.column = (int64_t)j * width;
    w.m = min(height, f.rows - i * height);
    w.n = min(width, p.columns - j * width);
    w.k = p.depth;
    w.lda = p.depth;
    w.a = p.dy;
    w.token = p.token + w.row;
    w.ldb = p.columns;
    w.b = (const char *)p.bank[f.group] + w.column * p.w_size;
    return true;
}

// Two neighbours of a row, of which `left` exist.
template <class T>
static __device__ __forceinline__ float2 load_pair(const T *c, int left)
{
    if (left > 1 && (uintptr_t)c % (2 * sizeof(T)) == 0) return read_pair(c);
    return make_float2(read_element(c), left > 1 ? read_element(c + 1) : 0);
}

// da' of one row and two neighbouring columns, of which `left` exist, as T would keep it. Returns their share of the
// dot product.
template <class T>
static __device__ __forceinline__ float store_gradients(const dhidden_product &p, int64_t row,
                                                        int64_t column, int left, float weight,
                                                        float2 da)
{
    const int64_t at = row * p.columns + column;
    if (left <= 0) return 0;
    const float2 g = load_pair((const T *)p.g + at, left), u = load_pair((const T *)p.u + at, left);
    const swiglu_gradient x = swiglu_gradients(weight, rounded<T>(da.x), g.x, u.x);
    const swiglu_gradient y = swiglu_gradients(weight, rounded<T>(da.y), g.y, u.y);
    if (p.dg) store_pair((T *)p.dg + at, left, x.dg, y.dg, false);
    if (p.du) store_pair((T *)p.du + at, left, x.du, y.du, false);
    if (p.a) store_pair((T *)p.a + at, left, x.a, y.a, false);
    return left > 1 ? x.dot + y.dot : x.dot;
}
