// ops/cuda/blocks.cu - the share that blocks of a bank's matrices have in a linear. The lists of blocks lie on
// the device, so a grid is made for what they can be; a block of threads sums all that writes one tile of the
// output, in the order of the list.
#include "ops/cuda/engine.cuh"

// y (R, ..) += x (R, ..) times the blocks, or their transposes in the forward pass.
struct share {
    char *y;
    const char *x, *delta;
    const struct matrix_block *block; // in the order of the columns of y that they write
    const int32_t *offsets;           // NULL: one group with all rows
    int count, first_group, rows, y_columns, x_columns;
    int y_size, x_size, delta_size, x_type, delta_type;
};

struct columns {
    int64_t first, count;
};

static __device__ columns down(const struct matrix_block &b)
{
    return {b.row, b.rows};
}
static __device__ columns across(const struct matrix_block &b)
{
    return {b.column, b.columns};
}

template <bool FORWARD> static __device__ columns written(const struct matrix_block &b)
{
    return FORWARD ? down(b) : across(b);
}

// Do blocks i and j write the same columns for the same rows?
template <bool FORWARD> static __device__ bool same_strip(const share &p, int i, int j)
{
    const struct matrix_block &a = p.block[i], &b = p.block[j];
    return a.group == b.group && written<FORWARD>(a).first == written<FORWARD>(b).first;
}

// sums of one tile of the output: rows from `row` on, `n` columns from `column` on within the strip's.
template <class E, bool FORWARD>
static __device__ void sum_strip(E &tile, const share &p, int first, int end, int64_t row, int m,
                                 int column, int n)
{
    for (int i = first; i < end; i++) {
        const struct matrix_block &b = p.block[i];
        const columns read = FORWARD ? across(b) : down(b);
        work w = {};
        w.a = p.x + (row * p.x_columns + read.first) * p.x_size;
        w.b = p.delta + (b.at + (FORWARD ? column * b.columns : column)) * p.delta_size;
        w.lda = p.x_columns;
        w.ldb = b.columns;
        w.m = m;
        w.n = n;
        w.k = (int)read.count;
        tile.template multiply<true, FORWARD>(w);
    }
}

// blockIdx.x: the first block of a strip (others have nothing to do); blockIdx.y strides over tiles of rows.
template <class E, bool FORWARD, class T>
static __global__ void __launch_bounds__(E::THREADS, 1) share_kernel(share p)
{
    DYNAMIC_SHARED(char, memory);
    const int first = blockIdx.x;
    if (first > 0 && same_strip<FORWARD>(p, first - 1, first)) return;
    int end = first + 1;
    while (end < p.count && same_strip<FORWARD>(p, first, end)) {
        end++;
    }
    const columns to = written<FORWARD>(p.block[first]);
    const int g = (int)p.block[first].group - p.first_group;
    const int begin = p.offsets ? p.offsets[g] : 0,
              rows = (p.offsets ? p.offsets[g + 1] : p.rows) - begin;
    for (int i = blockIdx.y * E::SIDE; i < rows; i += gridDim.y * E::SIDE) {
        for (int j = 0; j < to.count; j += E::SIDE) {
            E tile(memory, p.x_type, p.delta_type);
            work w = {};
            w.m = min((int)E::SIDE, rows - i);
            w.n = min((int)E::SIDE, (int)to.count - j);
            w.c = p.y + ((int64_t)(begin + i) * p.y_columns + to.first + j) * p.y_size;
            w.ldc = p.y_columns;
            sum_strip<E, FORWARD>(tile, p, first, end, begin + i, w.m, j, w.n);
            tile.template add_to<T>(w);
        }
    }
}

template <class E, bool FORWARD> static void run_share(const share &p, enum dtype y)
{
    constexpr int MOST_PARTS = 64;
    const dim3 grid(p.count, min(div_up(p.rows, E::SIDE), (int)MOST_PARTS));
    const auto kernel =
        y == DTYPE_F32 ? share_kernel<E, FORWARD, float> : share_kernel<E, FORWARD, uint16_t>;
    LAUNCH(kernel, grid, E::THREADS, E::SHARED, p);
}

template <bool FORWARD>
static void add_share(struct tensor y, struct tensor x, struct tensor delta,
                      const struct matrix_blocks *b, struct tensor offsets)
{
    share p = {};
    p.y = (char *)y.data;
    p.x = (const char *)x.data;
    p.delta = (const char *)delta.data;
    p.block = FORWARD ? b->by_row : b->by_column;
    p.offsets = (const int32_t *)offsets.data;
    p.count = (int)b->count;
    p.first_group = (int)b->first_group;
    p.rows = (int)min(y.dim[0], x.dim[0]);
    p.y_columns = (int)y.dim[1];
    p.x_columns = (int)x.dim[1];
    p.y_size = (int)dtype_size(y.dtype);
    p.x_size = (int)dtype_size(x.dtype);
    p.delta_size = (int)dtype_size(delta.dtype);
    p.x_type = x.dtype;
    p.delta_type = delta.dtype;
    if (both_bf16(x, delta)) {
        run_share<bf16_engine, FORWARD>(p, y.dtype);
    } else {
        run_share<f32_engine, FORWARD>(p, y.dtype);
    }
}

void cuda_blocks_forward(struct tensor y, struct tensor x, struct tensor delta,
                         const struct matrix_blocks *b, struct tensor offsets)
{
    add_share<true>(y, x, delta, b, offsets);
}

void cuda_blocks_dinput(struct tensor dx, struct tensor dy, struct tensor delta,
                        const struct matrix_blocks *b, struct tensor offsets)
{
    add_share<false>(dx, dy, delta, b, offsets);
}

struct block_weights {
    float *dvalue;
    const char *dy, *x;
    const struct matrix_block *block;
    const int32_t *offsets;
    int first_group, rows, dy_columns, x_columns, dy_size, x_size, dy_type, x_type;
};

// blockIdx.x: a block of the list; blockIdx.y strides over its tiles.
template <class E>
static __global__ void __launch_bounds__(E::THREADS, 1) block_weights_kernel(block_weights p)
{
    DYNAMIC_SHARED(char, memory);
    const struct matrix_block b = p.block[blockIdx.x];
    const int g = (int)b.group - p.first_group, wide = div_up((int)b.columns, E::SIDE);
    const int begin = p.offsets ? p.offsets[g] : 0,
              rows = (p.offsets ? p.offsets[g + 1] : p.rows) - begin;
    if (rows == 0) return;
    for (int t = blockIdx.y; t < div_up((int)b.rows, E::SIDE) * wide; t += gridDim.y) {
        const int i = t / wide * E::SIDE, j = t % wide * E::SIDE;
        E tile(memory, p.dy_type, p.x_type);
        work w = {};
        w.a = p.dy + ((int64_t)begin * p.dy_columns + b.row + i) * p.dy_size;
        w.b = p.x + ((int64_t)begin * p.x_columns + b.column + j) * p.x_size;
        w.c = (char *)(p.dvalue + b.at + i * b.columns + j);
        w.lda = p.dy_columns;
        w.ldb = p.x_columns;
        w.ldc = b.columns;
        w.m = min((int)E::SIDE, (int)b.rows - i);
        w.n = min((int)E::SIDE, (int)b.columns - j);
        w.k = rows;
        tile.template multiply<false, false>(w);
        tile.template add_to<float>(w);
    }
}

void cuda_blocks_dweight(struct tensor dvalue, struct tensor dy, struct tensor x,
                         const struct matrix_blocks *b, struct tensor offsets)
{
    constexpr int TILES = 4; // of a block of 256 x 256
    block_weights p = {};
    p.dvalue = data<float>(dvalue);
    p.dy = (const char *)dy.data;
    p.x = (const char *)x.data;
    p.block = b->by_row;
    p.offsets = (const int32_t *)offsets.data;
    p.first_group = (int)b->first_group;
    p.rows = (int)min(dy.dim[0], x.dim[0]);
    p.dy_columns = (int)dy.dim[1];
    p.x_columns = (int)x.dim[1];
    p.dy_size = (int)dtype_size(dy.dtype);
    p.x_size = (int)dtype_size(x.dtype);
    p.dy_type = dy.dtype;
    p.x_type = x.dtype;
    const dim3 grid((unsigned)b->count, TILES);
    if (both_bf16(dy, x)) {
        LAUNCH(block_weights_kernel<bf16_engine>, grid, bf16_engine::THREADS, bf16_engine::SHARED,
               p);
    } else {
        LAUNCH(block_weights_kernel<f32_engine>, grid, f32_engine::THREADS, f32_engine::SHARED, p);
    }
}

// blockIdx.x: a block of the list; blockIdx.y strides over its elements.
template <class T>
static __global__ void __launch_bounds__(THREADS)
    delta_kernel(T *delta, const float *value, void *const *bank, int w_type, int64_t cols,
                 const struct matrix_block *blocks, int first_group)
{
    const struct matrix_block b = blocks[blockIdx.x];
    const char *w = (const char *)bank[b.group - first_group];
    for (int64_t i = blockIdx.y * THREADS + threadIdx.x; i < b.rows * b.columns;
         i += gridDim.y * THREADS) {
        const int64_t from = (b.row + i / b.columns) * cols + b.column + i % b.columns;
        delta[b.at + i] = from_float<T>(value[b.at + i] - load_unaligned(w, from, w_type));
    }
}

void cuda_blocks_delta(struct tensor delta, struct tensor value, const struct matrices *w,
                       const struct matrix_blocks *b)
{
    constexpr int PARTS = 16;
    const dim3 grid((unsigned)b->count, PARTS);
    with_activation(delta.dtype, [&](auto zero) {
        using T = decltype(zero);
        LAUNCH(delta_kernel<T>, grid, THREADS, 0, data<T>(delta), data<float>(value), w->data,
               (int)w->dtype, w->cols, b->by_row, (int)b->first_group);
    });
}
