// ops/cuda/tile.cuh - tiles of BF16 in shared memory and the products of warps over them.
//
// A tile is ROWS rows of a matrix as it lies in memory, cut in slabs of 64 columns: a slab is ROWS rows of
// 128 bytes, whose 16-byte chunks are swizzled by the row (chunk ^ row % 8), so that neither ldmatrix nor
// stores meet in a bank, and wgmma can read it too. Whether rows run along m, n or k is the product's
// business: operands are never transposed in memory.
#pragma once
#include "ops/cuda/mma.cuh"

constexpr int SLAB = 64, SLAB_BYTES = 128;

struct bf16_matrix { // from a tile's first element on
    const uint16_t *data;
    int64_t ld;
    int rows, columns; // that exist; elements beyond are 0
};

static __device__ __forceinline__ bool is_aligned16(const void *p, int64_t ld)
{
    return (uintptr_t)p % 16 == 0 && ld % 8 == 0;
}

template <int ROWS>
static __device__ __forceinline__ uint32_t chunk_address(uint32_t tile, int row, int chunk)
{
    return tile + (uint32_t)(chunk / 8 * ROWS * SLAB_BYTES + row * SLAB_BYTES +
                             (((chunk & 7) ^ (row & 7)) << 4));
}

// With ordinary loads, what no asynchronous copy can: elements at any address.
template <int ROWS, int COLUMNS, int THREADS>
static __device__ NEVER_INLINE void load_tile_unaligned(uint32_t tile, const bf16_matrix m,
                                                        int thread)
{
    constexpr int ACROSS = COLUMNS / 8;
    for (int i = thread; i < ROWS * ACROSS; i += THREADS) {
        const int row = i / ACROSS, chunk = i % ACROSS;
        const int count = row < m.rows ? m.columns - chunk * 8 : 0;
        const uint16_t *from = m.data + row * m.ld + chunk * 8;
        uint32_t e[4] = {0, 0, 0, 0};
#pragma unroll
        for (int k = 0; k < 8; k++) {
            if (k < count) e[k / 2] |= (uint32_t)from[k] << (k % 2 * 16);
        }
        store_shared(chunk_address<ROWS>(tile, row, chunk), make_uint4(e[0], e[1], e[2], e[3]));
    }
}

static __device__ __forceinline__ uint32_t bytes_left(int columns)
{
    return columns <= 0 ? 0U : columns >= 8 ? 16U : (uint32_t)columns * 2;
}

// Begins the load of a tile by THREADS threads, of which this is number `thread`. Where the threads are a
// multiple of a row's chunks, a thread's chunks lie below each other: five instructions each.
template <int ROWS, int COLUMNS, int THREADS>
static __device__ __forceinline__ void load_tile(uint32_t tile, const bf16_matrix m, int thread)
{
    constexpr int ACROSS = COLUMNS / 8, STEP = THREADS / ACROSS, COUNT = ROWS * ACROSS;
    if (!is_aligned16(m.data, m.ld)) {
        load_tile_unaligned<ROWS, COLUMNS, THREADS>(tile, m, thread);
    } else if constexpr (THREADS % ACROSS == 0) {
        static_assert(ROWS % STEP == 0 && (STEP & (STEP - 1)) == 0,
                      "rows are walked in even steps");
        const int first = thread / ACROSS, chunk = thread % ACROSS;
        const uint32_t to = chunk_address<ROWS>(tile, first, chunk);
        const uint32_t bytes = bytes_left(m.columns - chunk * 8);
        const uint16_t *from = m.data + first * m.ld + chunk * 8;
#pragma unroll
        for (int row = 0; row < ROWS; row += STEP) {
            // first < STEP, so the swizzle of row + first is that of both
            copy_async((to ^ (row & 7) << 4) + row * SLAB_BYTES, from,
                       first + row < m.rows ? bytes : 0);
            from += STEP * m.ld;
        }
    } else {
#pragma unroll
        for (int i = thread; i < COUNT; i += THREADS) {
            const int row = i / ACROSS, chunk = i % ACROSS;
            copy_async(chunk_address<ROWS>(tile, row, chunk), m.data + row * m.ld + chunk * 8,
                       row < m.rows ? bytes_left(m.columns - chunk * 8) : 0);
        }
    }
}

// An operand whose stored rows do not follow each other. Row i of it is found first (a number, from memory or not)
// and then has an address; `count` says how many exist.
//
// The rows of tokens: row i is row token[i].
struct token_operand {
    const char *data;
    int64_t ld;
    const int32_t *token;
    __device__ bool exists(int i, int count) const
    {
        return i < count;
    }
    __device__ int find(int i) const
    {
        return token[i];
    }
    __device__ const char *row(int found, int size) const
    {
        return data + found * ld * size;
    }
    __device__ bool aligned() const
    {
        return is_aligned16(data, ld);
    }
};

// Two matrices in turn: EACH rows of the first, as many of the second, and so on. `count`: rows of each.
template <int EACH> struct pair_operand {
    const char *first, *second;
    int64_t ld;
    static __device__ int within(int i)
    {
        return i / (2 * EACH) * EACH + i % EACH;
    }
    __device__ bool exists(int i, int count) const
    {
        return within(i) < count;
    }
    __device__ int find(int i) const
    {
        return i;
    }
    __device__ const char *row(int found, int size) const
    {
        return (found / EACH % 2 ? second : first) + within(found) * ld * size;
    }
    __device__ bool aligned() const
    {
        return is_aligned16(first, ld) && is_aligned16(second, ld);
    }
};

template <int ROWS, int COLUMNS, int THREADS, class S>
static __device__ NEVER_INLINE void load_rows_unaligned(uint32_t tile, const S s, int first,
                                                        int count, int column, int columns,
                                                        int thread)
{
    constexpr int ACROSS = COLUMNS / 8;
    for (int i = thread; i < ROWS * ACROSS; i += THREADS) {
        const int row = first + i / ACROSS, chunk = i % ACROSS;
        const int left = s.exists(row, count) ? columns - chunk * 8 : 0;
        const uint16_t *from =
            left > 0 ? (const uint16_t *)s.row(s.find(row), 2) + column + chunk * 8 : nullptr;
        uint32_t e[4] = {0, 0, 0, 0};
#pragma unroll
        for (int k = 0; k < 8; k++) {
            if (k < left) e[k / 2] |= (uint32_t)from[k] << (k % 2 * 16);
        }
        store_shared(chunk_address<ROWS>(tile, row - first, chunk),
                     make_uint4(e[0], e[1], e[2], e[3]));
    }
}

// load_tile of such an operand: its rows from `first` on, of each `columns` columns from `column` (a multiple of
// 8) on. BATCH rows of a thread are found before the first is copied, so that it waits for their reads once.
template <int ROWS, int COLUMNS, int THREADS, class S>
static __device__ __forceinline__ void load_rows(uint32_t tile, const S &s, int first, int count,
                                                 int column, int columns, int thread)
{
    constexpr int ACROSS = COLUMNS / 8, STEP = THREADS / ACROSS, BATCH = 4;
    static_assert(THREADS % ACROSS == 0 && ROWS % (STEP * BATCH) == 0,
                  "rows are walked in even steps");
    if (!s.aligned()) {
        load_rows_unaligned<ROWS, COLUMNS, THREADS>(tile, s, first, count, column, columns, thread);
        return;
    }
    const int mine = thread / ACROSS, chunk = thread % ACROSS;
    const uint32_t bytes = bytes_left(columns - chunk * 8);
#pragma unroll
    for (int at = 0; at < ROWS; at += STEP * BATCH) {
        const int begin = mine + at;
        int found[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            const int row = first + begin + i * STEP;
            found[i] = s.exists(row, count) ? s.find(row) : -1;
        }
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            const bool there = found[i] >= 0 && bytes > 0; // else any address of the operand
            const uint16_t *from = (const uint16_t *)s.row(there ? found[i] : 0, 2);
            copy_async(chunk_address<ROWS>(tile, begin + i * STEP, chunk),
                       there ? from + column + chunk * 8 : from, there ? bytes : 0);
        }
    }
}

// The a-operand (16 x 16) at rows m.. and columns k.. of a tile that is `ALONG_K` (rows run along m) or not.
template <bool ALONG_K, int ROWS>
static __device__ __forceinline__ void load_a(uint32_t (&a)[4], uint32_t tile, int m, int k)
{
    const int lane = threadIdx.x % 32, i = lane % 8, mm = m + (lane / 8 & 1) * 8,
              kk = k + lane / 16 * 8;
    if (ALONG_K) {
        load_matrices(a, chunk_address<ROWS>(tile, mm + i, kk / 8));
    } else {
        load_matrices_transposed(a, chunk_address<ROWS>(tile, kk + i, mm / 8));
    }
}

// Two b-operands (16 x 8): columns n.. in b[0], b[1], and n + 8.. in b[2], b[3].
template <bool ALONG_K, int ROWS>
static __device__ __forceinline__ void load_b(uint32_t (&b)[4], uint32_t tile, int n, int k)
{
    const int lane = threadIdx.x % 32, i = lane % 8, nn = n + lane / 16 * 8,
              kk = k + (lane / 8 & 1) * 8;
    if (ALONG_K) {
        load_matrices(b, chunk_address<ROWS>(tile, nn + i, kk / 8));
    } else {
        load_matrices_transposed(b, chunk_address<ROWS>(tile, kk + i, nn / 8));
    }
}

// What one tile of a product is: c (m, n) from a (m, k) and b (k, n), each beginning at the tile's first.
struct work {
    const char *a, *b;
    char *c;
    int64_t lda, ldb, ldc;
    int m, n, k; // m and n that are left, not more than the tile's; k may be 0
};

// Of other works there are functions of the same names that give what their operands are.
struct plain_operand {
    const char *data;
    int64_t ld;
};
static __device__ __forceinline__ plain_operand operand_a(const work &w)
{
    return {w.a, w.lda};
}
static __device__ __forceinline__ plain_operand operand_b(const work &w)
{
    return {w.b, w.ldb};
}

// An operand's 64 elements of k from k0 on. ALONG_K: its rows run along m or n, `extent` of them.
template <bool ALONG_K, int EXTENT, int THREADS>
static __device__ __forceinline__ void load_operand(uint32_t to, const plain_operand &o, int extent,
                                                    int k0, int k, int thread)
{
    const uint16_t *from = (const uint16_t *)o.data;
    if (ALONG_K) {
        load_tile<EXTENT, SLAB, THREADS>(to, {from + k0, o.ld, extent, k - k0}, thread);
    } else {
        load_tile<SLAB, EXTENT, THREADS>(to, {from + k0 * o.ld, o.ld, k - k0, extent}, thread);
    }
}

template <bool ALONG_K, int EXTENT, int THREADS, class S>
static __device__ __forceinline__ void load_operand(uint32_t to, const S &s, int extent, int k0,
                                                    int k, int thread)
{
    if (ALONG_K) {
        load_rows<EXTENT, SLAB, THREADS>(to, s, 0, extent, k0, k - k0, thread);
    } else {
        load_rows<SLAB, EXTENT, THREADS>(to, s, k0, k, 0, extent, thread);
    }
}
