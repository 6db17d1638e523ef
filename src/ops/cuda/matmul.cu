// ops/cuda/matmul.cu - products over banks. Two BF16 operands go to the tensor cores, by wgmma (matmul_hopper.cu)
// where the device has it and by mma.sync elsewhere; any other types are multiplied in F32. A tile of the
// output is computed by one block over all of k in order, so that results depend on shapes only.
#include "ops/cuda/engine.cuh"
#include "ops/cuda/matmul.h"

#ifdef CUDA_EMULATED
bool emulated_late;
extern "C" void cuda_emulate(bool late, unsigned order)
{
    emulated_late = late;
    emulate_set_order(order);
}
#endif

static enum cuda_products chosen;

void cuda_configure_products(enum cuda_products products)
{
    chosen = products;
}

bool cuda_wgmma(void)
{
    return chosen == CUDA_PRODUCTS_AUTO && cuda_has_wgmma();
}

template <bool A_ALONG_K, bool B_ALONG_K, class T, class P>
static __global__ void __launch_bounds__(TILE_THREADS, 1) bf16_kernel(P p)
{
    DYNAMIC_SHARED(char, memory);
    const uint32_t shared = (shared_address(memory) + 1023) & ~1023U;
    typename P::template work_of<1> w;
    if (!find_work(w, p, TILE, TILE, blockIdx.x) || (w.k == 0 && adds(p))) return;
    tile_sums sums;
    clear_sums(sums);
    multiply_tile<A_ALONG_K, B_ALONG_K>(sums, w, shared);
    store_tile<T>(w, sums, adds(p));
}

template <bool A_ALONG_K, bool B_ALONG_K, class T, class P>
static __global__ void __launch_bounds__(F32_THREADS) f32_kernel(P p, int a_type, int b_type)
{
    __shared__ f32_shared shared;
    typename P::template work_of<1> w;
    if (!find_work(w, p, F32_TILE, F32_TILE, blockIdx.x) || (w.k == 0 && adds(p))) return;
    float sums[4][4] = {};
    multiply_f32<A_ALONG_K, B_ALONG_K>(sums, w, a_type, b_type, shared);
    store_f32<T>(w, sums, adds(p));
}

// A warp takes COLUMNS_EACH columns of y one after the other, for up to FEW rows at a time: the time is that of
// reading the matrix, 16 bytes a lane where it is BF16 and lies well.
constexpr int FEW = 8;
constexpr int FEW_THREADS = 256;
constexpr int COLUMNS_EACH = 4;
constexpr int FEW_COLUMNS = FEW_THREADS / 32 * COLUMNS_EACH;

static __device__ __forceinline__ float2 pair_of(uint32_t bits)
{
    return make_float2(float_of_bits(bits << 16), float_of_bits(bits & 0xFFFF0000U));
}

static __device__ __forceinline__ void add_eight(float &sum, uint4 a, uint4 b)
{
    const uint32_t x[4] = {a.x, a.y, a.z, a.w}, y[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float2 p = pair_of(x[i]), q = pair_of(y[i]);
        sum = fmaf(p.x, q.x, fmaf(p.y, q.y, sum));
    }
}

static __device__ void few_dots(float (&sum)[FEW], const char *x, const char *row, int rows,
                                int depth, int x_type, int w_type)
{
    const int lane = threadIdx.x % 32;
    const bool fast = x_type == DTYPE_BF16 && w_type == DTYPE_BF16 && is_aligned16(x, depth) &&
                      is_aligned16(row, depth);
    if (fast) {
        for (int k = lane * 8; k < depth; k += 256) {
            const uint4 v = *(const uint4 *)(row + (int64_t)k * 2);
#pragma unroll
            for (int r = 0; r < FEW; r++) {
                if (r < rows)
                    add_eight(sum[r], v, *(const uint4 *)(x + ((int64_t)r * depth + k) * 2));
            }
        }
        return;
    }
    for (int k = lane; k < depth; k += 32) {
        const float v = load_unaligned(row, k, w_type);
#pragma unroll
        for (int r = 0; r < FEW; r++) {
            if (r < rows) sum[r] = fmaf(v, load_value(x, (int64_t)r * depth + k, x_type), sum[r]);
        }
    }
}

template <class T>
static __global__ void __launch_bounds__(FEW_THREADS)
    few_kernel(rows_product p, int x_type, int w_type)
{
    const int g = blockIdx.y, lane = threadIdx.x % 32;
    const int begin = p.offsets ? p.offsets[g] : 0, end = p.offsets ? p.offsets[g + 1] : p.rows;
    const int first = blockIdx.x * FEW_COLUMNS + threadIdx.x / 32 * COLUMNS_EACH;
    for (int r0 = begin; r0 < end; r0 += FEW) {
        const int rows = min((int)FEW, end - r0);
        for (int c = first; c < min((int)(first + COLUMNS_EACH), p.columns); c++) {
            float sum[FEW] = {};
            few_dots(sum, p.x + (int64_t)r0 * p.depth * p.x_size,
                     (const char *)p.bank[g] + (int64_t)c * p.depth * p.w_size, rows, p.depth,
                     x_type, w_type);
#pragma unroll
            for (int r = 0; r < FEW; r++) {
                for (int step = 16; step > 0; step /= 2) {
                    sum[r] += __shfl_xor_sync(0xFFFFFFFFU, sum[r], step);
                }
                T *y = (T *)p.y + (int64_t)(r0 + r) * p.columns + c;
                if (r < rows && lane == r) store_pair(y, 1, sum[r], 0, p.accumulate);
            }
        }
    }
}

// dw += the parts of its sum, in their order
static __global__ void add_parts_kernel(weight_product p)
{
    const int64_t size = (int64_t)p.rows * p.columns, all = size * p.groups;
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < all;
         i += (int64_t)gridDim.x * blockDim.x) {
        float *dw = (float *)p.bank[i / size];
        if (!dw) continue;
        float sum = 0;
        for (int part = 0; part < p.parts; part++) {
            sum += p.partial[part * all + i];
        }
        dw[i % size] += sum;
    }
}

static int tiles_down(const rows_product &p, int height)
{
    if (!p.offsets) return p.groups * div_up(p.rows, height);
    return most_tiles(p.rows, p.groups, height);
}

template <bool TRANSPOSED, class T>
static void run_rows(const rows_product &p, int x_type, int w_type)
{
    if (x_type == DTYPE_BF16 && w_type == DTYPE_BF16) {
        const auto kernel = bf16_kernel<true, TRANSPOSED, T, rows_product>;
        LAUNCH(kernel, tiles_down(p, TILE) * div_up(p.columns, TILE), TILE_THREADS, TILE_SHARED, p);
    } else {
        const auto kernel = f32_kernel<true, TRANSPOSED, T, rows_product>;
        LAUNCH(kernel, tiles_down(p, F32_TILE) * div_up(p.columns, F32_TILE), F32_THREADS, 0, p,
               x_type, w_type);
    }
}

static void multiply_rows(const rows_product &p, int x_type, int w_type, int y_type)
{
    if (p.rows == 0 || p.columns == 0) return;
    const bool f32 = y_type == DTYPE_F32;
    if (p.transposed && !p.x_bank && p.rows <= FEW_ROWS) {
        const dim3 grid(div_up(p.columns, FEW_COLUMNS), p.groups);
        const auto kernel = f32 ? few_kernel<float> : few_kernel<uint16_t>;
        LAUNCH(kernel, grid, FEW_THREADS, 0, p, x_type, w_type);
        return;
    }
    if (x_type == DTYPE_BF16 && w_type == DTYPE_BF16 && hopper_rows(p, y_type)) return;
    if (p.transposed) {
        f32 ? run_rows<true, float>(p, x_type, w_type)
            : run_rows<true, uint16_t>(p, x_type, w_type);
    } else {
        f32 ? run_rows<false, float>(p, x_type, w_type)
            : run_rows<false, uint16_t>(p, x_type, w_type);
    }
}

static rows_product rows_of(struct tensor y, struct tensor x, const struct matrices *w,
                            struct tensor offsets, bool accumulate)
{
    rows_product p = {};
    p.x = (const char *)x.data;
    p.y = (char *)y.data;
    p.bank = w->data;
    p.offsets = (const int32_t *)offsets.data;
    p.groups = (int)w->groups;
    p.rows = (int)min(y.dim[0], x.dim[0]);
    p.x_size = (int)dtype_size(x.dtype);
    p.w_size = (int)dtype_size(w->dtype);
    p.y_size = (int)dtype_size(y.dtype);
    p.accumulate = accumulate;
    return p;
}

void cuda_matmul_forward(struct tensor y, struct tensor x, const struct matrices *w,
                         struct tensor offsets, bool accumulate)
{
    rows_product p = rows_of(y, x, w, offsets, accumulate);
    p.columns = (int)w->rows;
    p.depth = (int)w->cols;
    p.transposed = true;
    multiply_rows(p, x.dtype, w->dtype, y.dtype);
}

void cuda_matmul_dinput(struct tensor dx, struct tensor dy, const struct matrices *w,
                        struct tensor offsets, bool accumulate)
{
    rows_product p = rows_of(dx, dy, w, offsets, accumulate);
    p.columns = (int)w->cols;
    p.depth = (int)w->rows;
    multiply_rows(p, dy.dtype, w->dtype, dx.dtype);
}

void cuda_matrices_multiply(struct tensor y, const struct matrices *w, const struct matrices *a)
{
    rows_product p = rows_of(y, y, a, tensor_absent(), false);
    p.x = NULL;
    p.x_bank = w->data;
    p.x_size = (int)dtype_size(w->dtype);
    p.rows = (int)w->rows;
    p.columns = (int)a->rows;
    p.depth = (int)a->cols;
    p.transposed = true;
    multiply_rows(p, w->dtype, a->dtype, y.dtype);
}

// Cuts the rows of few tiles in parts, so that there is work for a whole device: about MANY blocks, each of
// MIN_ROWS rows or more. The number follows from shapes alone.
static void cut_rows(weight_product &p, int tile)
{
    constexpr int MANY = 256, MIN_ROWS = 512, MOST_PARTS = 32, MOST_BYTES = 64 << 20;
    const int tiles = p.groups * div_up(p.rows, tile) * div_up(p.columns, tile);
    const int64_t size = (int64_t)p.groups * p.rows * p.columns * (int64_t)sizeof(float);
    int parts = min(min(MANY / tiles, p.count / MIN_ROWS), (int)MOST_PARTS);
    parts = (int)min((int64_t)parts, (int64_t)MOST_BYTES / size);
    p.parts = 1;
    p.step = p.count;
    if (parts < 2) return;
    p.step = div_up(div_up(p.count, parts), SLAB) * SLAB;
    p.parts = div_up(p.count, p.step);
    p.partial = (float *)cuda_scratch(CUDA_SCRATCH_A, (size_t)p.parts * (size_t)size);
}

static weight_product weights_of(const struct matrices *dw, struct tensor dy, struct tensor x,
                                 struct tensor offsets, int count)
{
    const int tile = both_bf16(dy, x) ? (int)TILE : (int)F32_TILE;
    weight_product p = {};
    p.dy = (const char *)dy.data;
    p.x = (const char *)x.data;
    p.bank = dw->data;
    p.offsets = (const int32_t *)offsets.data;
    p.groups = (int)dw->groups;
    p.count = count;
    p.rows = (int)dw->rows;
    p.columns = (int)dw->cols;
    p.dy_size = (int)dtype_size(dy.dtype);
    p.x_size = (int)dtype_size(x.dtype);
    if (p.count > 0 && p.rows > 0 && p.columns > 0) cut_rows(p, tile);
    return p;
}

template <class P> static void multiply_weights(const P &p, struct tensor dy, struct tensor x)
{
    const bool bf16 = both_bf16(dy, x);
    const int tile = bf16 ? (int)TILE : (int)F32_TILE;
    if (p.count == 0 || p.rows == 0 || p.columns == 0) return;
    const int tiles = p.parts * p.groups * div_up(p.rows, tile) * div_up(p.columns, tile);
    if (bf16 && !hopper_weight(p)) {
        const auto kernel = bf16_kernel<false, false, float, P>;
        LAUNCH(kernel, tiles, TILE_THREADS, TILE_SHARED, p);
    } else if (!bf16) {
        const auto kernel = f32_kernel<false, false, float, P>;
        LAUNCH(kernel, tiles, F32_THREADS, 0, p, (int)dy.dtype, (int)x.dtype);
    }
    if (p.partial) LAUNCH(add_parts_kernel, 256, 256, 0, p);
}

void cuda_matmul_dweight(const struct matrices *dw, struct tensor dy, struct tensor x,
                         struct tensor offsets)
{
    multiply_weights(weights_of(dw, dy, x, offsets, (int)min(dy.dim[0], x.dim[0])), dy, x);
}

template <bool OF_DY>
static void multiply_token_weights(const struct matrices *dw, struct tensor dy, struct tensor x,
                                   const struct dispatch *d)
{
    const int64_t rows = OF_DY ? x.dim[0] : dy.dim[0];
    token_weight_product<OF_DY> p;
    static_cast<weight_product &>(p) =
        weights_of(dw, dy, x, d->offsets, (int)min(rows, tensor_count(d->slot)));
    p.token = cuda_tokens(d, p.count);
    if (p.token) multiply_weights(p, dy, x);
}

void cuda_expert_dweight(const struct matrices *dw, struct tensor dy, struct tensor x,
                         const struct dispatch *d, bool dy_is_tokens)
{
    dy_is_tokens ? multiply_token_weights<true>(dw, dy, x, d)
                 : multiply_token_weights<false>(dw, dy, x, d);
}
