// ops/cuda/expert.cu - the ops that join what is done to experts' rows (expert.cuh): by mma.sync or in F32 here, by
// wgmma in expert_hopper.cu.
#include "ops/cuda/engine.cuh"
#include "ops/cuda/expert.cuh"
#include "ops/cuda/matmul.h"

static __global__ void tokens_kernel(int32_t *token, const int32_t *slot, const int32_t *last,
                                     int rows, int per)
{
    const int r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r < min(*last, rows)) token[r] = slot[r] / per;
}

const int32_t *cuda_tokens(const struct dispatch *d, int rows)
{
    const int64_t E = tensor_count(d->offsets) - 1;
    int32_t *token = (int32_t *)cuda_scratch(CUDA_SCRATCH_TOKENS, (size_t)rows * sizeof *token);
    if (!token) return NULL;
    LAUNCH(tokens_kernel, (unsigned)div_up(rows, THREADS), THREADS, 0, token,
           data<int32_t>(d->slot), data<int32_t>(d->offsets) + E, rows, (int)d->row.dim[1]);
    return token;
}

template <class E, class T>
static __global__ void __launch_bounds__(E::THREADS, 1)
    up_kernel(up_product p, int x_type, int w_type)
{
    DYNAMIC_SHARED(char, memory);
    up_work<E::EACH> w;
    if (!find_work(w, p, E::SIDE, E::SIDE, blockIdx.x)) return;
    E tile(memory, x_type, w_type);
    tile.template multiply<true, true>(w);
    tile.each_pair([&](int row, int column, float2 g, float2 u) {
        if (row < w.m) store_up<T>(p, w.row + row, w.column + column, w.n - column, g, u);
    });
}

template <class E> static void run_up(const up_product &p, enum dtype x, enum dtype w, enum dtype y)
{
    const int tiles = most_tiles(p.rows, p.groups, E::SIDE) * div_up(p.columns, E::SIDE / 2);
    const auto kernel = y == DTYPE_F32 ? up_kernel<E, float> : up_kernel<E, uint16_t>;
    LAUNCH(kernel, tiles, E::THREADS, E::SHARED, p, (int)x, (int)w);
}

// Few rows cost the reading of the matrices, which the ops one by one do faster.
static void few_up(const struct expert_hidden *out, struct tensor x, const struct matrices *gate,
                   const struct matrices *up, struct tensor weight, const struct dispatch *d)
{
    struct tensor rows = tensor_2d(NULL, x.dtype, out->g.dim[0], x.dim[1]);
    rows.data = cuda_scratch(CUDA_SCRATCH_ROWS, tensor_bytes(rows));
    if (!rows.data) return;
    cuda_gather_tokens(rows, x, d);
    cuda_matmul_forward(out->g, rows, gate, d->offsets, false);
    cuda_matmul_forward(out->u, rows, up, d->offsets, false);
    if (out->a.data) cuda_swiglu_forward(out->a, out->g, out->u, weight, d);
}

void cuda_expert_up(const struct expert_hidden *out, struct tensor x, const struct matrices *gate,
                    const struct matrices *up, struct tensor weight, const struct dispatch *d)
{
    up_product p = {};
    p.rows = (int)min(out->g.dim[0], tensor_count(d->slot));
    p.columns = (int)gate->rows;
    if (p.rows == 0 || p.columns == 0) return;
    if (p.rows <= FEW_ROWS) {
        few_up(out, x, gate, up, weight, d);
        return;
    }
    assert(gate->dtype == up->dtype);
    p.x = (const char *)x.data;
    p.g = (char *)out->g.data;
    p.u = (char *)out->u.data;
    p.a = (char *)out->a.data;
    p.gate = gate->data;
    p.up = up->data;
    p.offsets = data<int32_t>(d->offsets);
    p.token = cuda_tokens(d, p.rows);
    p.slot = data<int32_t>(d->slot);
    p.weight = data<float>(weight);
    p.groups = (int)gate->groups;
    p.depth = (int)gate->cols;
    p.x_size = (int)dtype_size(x.dtype);
    p.w_size = (int)dtype_size(gate->dtype);
    if (!p.token) return;
    const bool bf16 = x.dtype == DTYPE_BF16 && gate->dtype == DTYPE_BF16;
    if (bf16 && cuda_wgmma()) {
        hopper_up(p);
    } else if (bf16) {
        run_up<bf16_engine>(p, x.dtype, gate->dtype, out->g.dtype);
    } else {
        run_up<f32_engine>(p, x.dtype, gate->dtype, out->g.dtype);
    }
}

template <class E, class T>
static __global__ void __launch_bounds__(E::THREADS, 1)
    dhidden_kernel(dhidden_product p, int dy_type, int w_type)
{
    DYNAMIC_SHARED(char, memory);
    token_work w;
    if (!find_work(w, p, E::SIDE, E::SIDE, blockIdx.x)) return;
    E tile(memory, dy_type, w_type);
    tile.template multiply<true, false>(w);
    const int first_part = (int)(w.column / E::SIDE) * E::PARTS;
    tile.each_row(
        [&](int row, int column, float2 da) {
            if (row >= w.m) return 0.0f;
            return store_gradients<T>(p, w.row + row, w.column + column, w.n - column,
                                      slot_weight(p.weight, p.slot, w.row + row), da);
        },
        [&](int row, int part, float dot) {
            if (p.dots && row < w.m) p.dots[(w.row + row) * p.parts + first_part + part] = dot;
        });
}

static __global__ void sum_dots_kernel(float *dweight, dhidden_product p)
{
    const int r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= min(p.offsets[p.groups], p.rows)) return;
    float sum = 0;
    for (int part = 0; part < p.parts; part++) {
        sum += p.dots[(int64_t)r * p.parts + part];
    }
    dweight[p.slot[r]] = sum;
}

// The parts in which a row's dot product is summed, and memory for them.
static bool open_dots(dhidden_product &p, int parts)
{
    p.parts = parts;
    p.dots = (float *)cuda_scratch(CUDA_SCRATCH_B, (size_t)p.rows * (size_t)parts * sizeof(float));
    return p.dots;
}

template <class E>
static void run_dhidden(const dhidden_product &p, enum dtype dy, enum dtype w, enum dtype y)
{
    const int tiles = most_tiles(p.rows, p.groups, E::SIDE) * div_up(p.columns, E::SIDE);
    const auto kernel = y == DTYPE_F32 ? dhidden_kernel<E, float> : dhidden_kernel<E, uint16_t>;
    LAUNCH(kernel, tiles, E::THREADS, E::SHARED, p, (int)dy, (int)w);
}

// By wgmma, by mma.sync, or in F32.
static void multiply_dhidden(dhidden_product &p, enum dtype dy, enum dtype w, enum dtype y,
                             bool dots)
{
    const bool bf16 = dy == DTYPE_BF16 && w == DTYPE_BF16, wgmma = bf16 && cuda_wgmma();
    const int parts = wgmma  ? hopper_dhidden_parts(p.columns)
                      : bf16 ? div_up(p.columns, bf16_engine::SIDE) * bf16_engine::PARTS
                             : div_up(p.columns, f32_engine::SIDE) * f32_engine::PARTS;
    if (dots && !open_dots(p, parts)) return;
    if (wgmma) {
        hopper_dhidden(p);
    } else if (bf16) {
        run_dhidden<bf16_engine>(p, dy, w, y);
    } else {
        run_dhidden<f32_engine>(p, dy, w, y);
    }
}

void cuda_expert_dhidden(const struct swiglu_grads *out, struct tensor dy,
                         const struct matrices *down, struct tensor g, struct tensor u,
                         struct tensor weight, const struct dispatch *d)
{
    dhidden_product p = {};
    p.rows = (int)min(g.dim[0], tensor_count(d->slot));
    p.columns = (int)down->cols;
    if (p.rows == 0 || p.columns == 0) return;
    p.dy = (const char *)dy.data;
    p.g = (const char *)g.data;
    p.u = (const char *)u.data;
    p.dg = (char *)out->dg.data;
    p.du = (char *)out->du.data;
    p.a = (char *)out->a.data;
    p.bank = down->data;
    p.offsets = data<int32_t>(d->offsets);
    p.token = cuda_tokens(d, p.rows);
    p.slot = data<int32_t>(d->slot);
    p.weight = data<float>(weight);
    p.groups = (int)down->groups;
    p.depth = (int)down->rows;
    p.dy_size = (int)dtype_size(dy.dtype);
    p.w_size = (int)dtype_size(down->dtype);
    if (!p.token) return;
    multiply_dhidden(p, dy.dtype, down->dtype, g.dtype, out->dweight.data);
    if (!p.dots) return;
    LAUNCH(sum_dots_kernel, (unsigned)div_up(p.rows, THREADS), THREADS, 0,
           data<float>(out->dweight), p);
}
