// ops/cuda/block_scores.cu - what a choice of blocks is made by. A gradient is formed a tile at a time
// in registers, reduced block by block in a fixed order and forgotten.
#include "ops/cuda/engine.cuh"

struct scores {
    double *sums; // (groups, blocks of a matrix by row)
    const char *dy, *x;
    const int32_t *offsets;
    int groups, count, rows, columns, size, dy_type, x_type;
    enum block_sum kind;
};

static __device__ __forceinline__ double term(float v, enum block_sum kind)
{
    const double d = (double)v;
    return kind == BLOCK_SUM ? d : kind == BLOCK_SUM_ABS ? fabs(d) : d * d;
}

// The gradient's tile at (i, j) of group g, and how much of it there is.
static __device__ work gradient_tile(const scores &p, int g, int i, int j, int height, int width)
{
    const int begin = p.offsets ? p.offsets[g] : 0;
    work w = {};
    w.a = p.dy + ((int64_t)begin * p.rows + i) * (p.dy_type == DTYPE_F32 ? 4 : 2);
    w.b = p.x + ((int64_t)begin * p.columns + j) * (p.x_type == DTYPE_F32 ? 4 : 2);
    w.lda = p.rows;
    w.ldb = p.columns;
    w.m = min(height, p.rows - i);
    w.n = min(width, p.columns - j);
    w.k = (p.offsets ? p.offsets[g + 1] : p.count) - begin;
    return w;
}

// Blocks as large as a tile or larger: blockIdx is (across, down, group), and a block of threads sums one.
template <class E>
static __global__ void __launch_bounds__(E::THREADS, 1) large_scores_kernel(scores p)
{
    DYNAMIC_SHARED(char, memory);
    const int g = blockIdx.z, top = blockIdx.y * p.size, left = blockIdx.x * p.size;
    const int bottom = min(top + p.size, p.rows), right = min(left + p.size, p.columns);
    double sum = 0;
    for (int i = top; i < bottom; i += E::SIDE) {
        for (int j = left; j < right; j += E::SIDE) {
            const work w = gradient_tile(p, g, i, j, min((int)E::SIDE, bottom - i),
                                         min((int)E::SIDE, right - j));
            if (w.k == 0) return;
            E tile(memory, p.dy_type, p.x_type);
            tile.template multiply<false, false>(w);
            tile.each([&](int row, int column, float v) {
                if (row < w.m && column < w.n) sum += term(v, p.kind);
            });
        }
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        p.sums[((int64_t)g * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x] += sum;
}

// Smaller ones: a tile holds several whole ones. It goes to shared memory, and each warp sums one after another.
template <class E>
static __global__ void __launch_bounds__(E::THREADS, 1) small_scores_kernel(scores p)
{
    DYNAMIC_SHARED(char, memory);
    const int fit = E::SIDE / p.size, side = fit * p.size, across = div_up(p.columns, p.size);
    const int g = blockIdx.z, top = blockIdx.y * side, left = blockIdx.x * side;
    const work w = gradient_tile(p, g, top, left, side, side);
    if (w.k == 0) return;
    E tile(memory, p.dy_type, p.x_type);
    tile.template multiply<false, false>(w); // ends with a barrier: its memory is free
    float *values = (float *)memory;
    tile.each([&](int row, int column, float v) { values[row * E::SIDE + column] = v; });
    __syncthreads();
    for (int b = threadIdx.x / WARP; b < fit * fit; b += E::THREADS / WARP) {
        const int i = b / fit * p.size, j = b % fit * p.size;
        const int rows = min(p.size, w.m - i), columns = min(p.size, w.n - j);
        if (rows <= 0 || columns <= 0) continue; // the same for the whole warp
        double sum = 0;
        for (int e = threadIdx.x % WARP; e < rows * columns; e += WARP) {
            sum += term(values[(i + e / columns) * E::SIDE + j + e % columns], p.kind);
        }
        sum = warp_sum(sum);
        if (threadIdx.x % WARP) continue;
        const int64_t at = (int64_t)((top + i) / p.size) * across + (left + j) / p.size;
        p.sums[(int64_t)g * div_up(p.rows, p.size) * across + at] += sum;
    }
}

template <class E> static void run_scores(const scores &p)
{
    const bool large = p.size >= E::SIDE;
    const int side = large ? p.size : E::SIDE / p.size * p.size;
    const dim3 grid(div_up(p.columns, side), div_up(p.rows, side), p.groups);
    const auto kernel = large ? large_scores_kernel<E> : small_scores_kernel<E>;
    LAUNCH(kernel, grid, E::THREADS, E::SHARED, p);
}

void cuda_block_scores(struct tensor sums, struct tensor dy, struct tensor x, struct tensor offsets,
                       int64_t size, enum block_sum kind)
{
    scores p = {};
    p.sums = data<double>(sums);
    p.dy = (const char *)dy.data;
    p.x = (const char *)x.data;
    p.offsets = (const int32_t *)offsets.data;
    p.groups = (int)sums.dim[0];
    p.count = (int)min(dy.dim[0], x.dim[0]);
    p.rows = (int)dy.dim[1];
    p.columns = (int)x.dim[1];
    p.size = (int)size;
    p.dy_type = dy.dtype;
    p.x_type = x.dtype;
    p.kind = kind;
    if (both_bf16(dy, x)) {
        run_scores<bf16_engine>(p);
    } else {
        run_scores<f32_engine>(p);
    }
}
