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
