// ops/cuda/product.cuh - which products an op makes, and how a block of threads finds the tile of its number.
// Group sizes are known on the device only: the host asks for as many tiles as there can be, and numbers
// beyond the last find nothing.
#pragma once
#include "ops/cuda/tile.cuh"

// y (R, columns) from rows x (R, depth) and a matrix for each group; or, with x_bank, from a matrix x of
// `rows` rows for each group.
struct rows_product {
    const char *x;
    char *y;
    void *const *x_bank, *const *bank; // device memory
    const int32_t *offsets;            // NULL: every group has `rows` rows
    int groups, rows, columns, depth;
    int x_size, w_size, y_size; // bytes of an element
    bool transposed;            // matrices are stored (columns, depth)
    bool accumulate;
    template <int> using work_of = work;
};

// dw_g (rows, columns) += dy^T x over the rows of g
struct weight_product {
    const char *dy, *x;
    void *const *bank;
    const int32_t *offsets; // NULL: one group of `count` rows
    int groups, count, rows, columns;
    int dy_size, x_size;
    // With few tiles, the rows of a group are cut in parts of `step`, whose sums lie apart until they are added
    // up: (parts; groups; rows, columns). NULL: one part, added to dw.
    float *partial;
    int parts, step;
    template <int> using work_of = work;
};

// The same where row r of dy, or else of x, is that of token[r].
template <bool OF_DY> struct token_weight_work : work {
    const int32_t *token; // of the first row
};
template <bool OF_DY> struct token_weight_product : weight_product {
    template <int> using work_of = token_weight_work<OF_DY>;
    const int32_t *token;
};
static __device__ __forceinline__ token_operand operand_a(const token_weight_work<true> &w)
{
    return {w.a, w.lda, w.token};
}
static __device__ __forceinline__ token_operand operand_b(const token_weight_work<false> &w)
{
    return {w.b, w.ldb, w.token};
}

static __host__ __device__ __forceinline__ int div_up(int a, int b)
{
    return (a + b - 1) / b;
}

// Of so many rows in groups, tiles of `height` rows at most: every group may end in one that is not full.
static inline int most_tiles(int rows, int groups, int height)
{
    return rows / height + (groups < rows ? groups : rows);
}

constexpr int FEW_ROWS = 32; // of all groups: these are multiplied by dot products

struct found {
    int group, begin, rows, tile; // tile: counted within the group
};

// Tile number t of those of `height` rows by 1 / across of the columns. All lanes of the warp call it alike;
// it reads 32 group sizes at a time.
static __device__ __forceinline__ bool find_group(found &f, const int32_t *offsets, int groups,
                                                  int rows, int height, int across, int t)
{
    const int lane = threadIdx.x % 32;
    const int each = div_up(rows, height) * across;
    if (!offsets) {
        f = {t / (each ? each : 1), 0, rows, t % (each ? each : 1)};
        f.begin = f.group * rows;
        return f.group < groups && each > 0;
    }
    int before = 0;
    for (int first = 0; first < groups; first += 32) {
        const int g = first + lane;
        const int begin = g < groups ? offsets[g] : 0, end = g < groups ? offsets[g + 1] : 0;
        const int tiles = div_up(end - begin, height) * across;
        int sum = tiles;
        for (int step = 1; step < 32; step *= 2) {
            const int other = __shfl_up_sync(0xFFFFFFFFU, sum, step);
            if (lane >= step) sum += other;
        }
        const unsigned reached = __ballot_sync(0xFFFFFFFFU, t < before + sum);
        if (reached) {
            const int in = __ffs((int)reached) - 1;
            f.group = first + in;
            f.begin = __shfl_sync(0xFFFFFFFFU, begin, in);
            f.rows = __shfl_sync(0xFFFFFFFFU, end, in) - f.begin;
            f.tile = t - before - __shfl_sync(0xFFFFFFFFU, sum - tiles, in);
            return true;
        }
        before += __shfl_sync(0xFFFFFFFFU, sum, 31);
    }
    return false;
}

// The order of a group's tiles: bands of BAND tiles across, walked down, so that what is under way at one time
// reads few rows of both operands.
constexpr int BAND = 8;
static __device__ __forceinline__ void place_tile(int tile, int down, int across, int &i, int &j)
{
    const int band = tile / (down * BAND), left = across - band * BAND;
    const int width = left < BAND ? left : BAND, in = tile - band * down * BAND;
    i = in / width;
    j = band * BAND + in % width;
}

static __device__ __forceinline__ bool find_work(work &w, const rows_product &p, int height,
                                                 int width, int t)
{
    const int across = div_up(p.columns, width);
    found f;
    if (!find_group(f, p.offsets, p.groups, p.rows, height, across, t)) return false;
    int i, j;
    place_tile(f.tile, div_up(f.rows, height), across, i, j);
    const int64_t row = f.begin + (int64_t)i * height, column = (int64_t)j * width;
    w.m = min(height, f.rows - i * height);
    w.n = min(width, p.columns - j * width);
    w.k = p.depth;
    w.lda = p.depth;
    w.a = p.x_bank ? (const char *)p.x_bank[f.group] + (int64_t)i * height * p.depth * p.x_size
                   : p.x + row * p.depth * p.x_size;
    w.ldb = p.transposed ? p.depth : p.columns;
    w.b = (const char *)p.bank[f.group] + (p.transposed ? column * p.depth : column) * p.w_size;
    w.ldc = p.columns;
    w.c = p.y + (row * p.columns + column) * p.y_size;
    return true;
}

// All but where the rows of the group's part begin, which is row `begin` of dy and of x.
static __device__ __forceinline__ bool find_weight(work &w, int &begin, const weight_product &p,
                                                   int height, int width, int t)
{
    const int down = div_up(p.rows, height), across = div_up(p.columns, width);
    const int in_part = t % (p.groups * down * across), part = t / (p.groups * down * across);
    const int g = in_part / (down * across);
    if (part >= p.parts) return false;
    int i, j;
    place_tile(in_part - g * down * across, down, across, i, j);
    begin = (p.offsets ? p.offsets[g] : 0) + part * p.step;
    const int end = p.offsets ? p.offsets[g + 1] : p.count;
    const int64_t at = (int64_t)i * height * p.columns + (int64_t)j * width;
    w.m = min(height, p.rows - i * height);
    w.n = min(width, p.columns - j * width);
    w.k = max(0, min(p.step, end - begin));
    w.lda = p.rows;
    w.ldb = w.ldc = p.columns;
    w.a = p.dy + (int64_t)i * height * p.dy_size;
    w.b = p.x + (int64_t)j * width * p.x_size;
    w.c = (char *)p.bank[g];
    if (!w.c) { // not wanted
        w.m = w.n = w.k = 0;
    } else if (p.partial) {
        w.c = (char *)(p.partial + ((int64_t)part * p.groups + g) * p.rows * p.columns + at);
    } else {
        w.c += at * 4;
    }
    return true;
}

static __device__ __forceinline__ bool find_work(work &w, const weight_product &p, int height,
                                                 int width, int t)
{
    int begin;
    if (!find_weight(w, begin, p, height, width, t)) return false;
    w.a += (int64_t)begin * p.rows * p.dy_size;
    w.b += (int64_t)begin * p.columns * p.x_size;
    return true;
}

template <bool OF_DY>
static __device__ __forceinline__ bool find_work(token_weight_work<OF_DY> &w,
                                                 const token_weight_product<OF_DY> &p, int height,
                                                 int width, int t)
{
    int begin;
    if (!find_weight(w, begin, p, height, width, t)) return false;
    w.token = p.token + begin;
    if (OF_DY) {
        w.b += (int64_t)begin * p.columns * p.x_size;
    } else {
        w.a += (int64_t)begin * p.rows * p.dy_size;
    }
    return true;
}

// Does a product change c? One that adds, to its own output, nothing: does not.
static __device__ __forceinline__ bool adds(const rows_product &p)
{
    return p.accumulate;
}
static __device__ __forceinline__ bool adds(const weight_product &p)
{
    return !p.partial;
}
