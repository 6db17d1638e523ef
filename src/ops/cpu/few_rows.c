// ops/cpu/few_rows.c - see few_rows.h. Four rows of x meet four of w at a time, so that what is loaded serves four
// products; further rows of x find these weights in the cache.
#include "ops/cpu/few_rows.h"

#include "ops/cpu/cpu.h"
#include "ops/cpu/vector.h"

enum { LANES = 16, SIDE = 4 };

typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef uint32_t words __attribute__((vector_size(LANES * sizeof(uint32_t))));
typedef uint16_t halves __attribute__((vector_size(LANES * sizeof(uint16_t))));

#define INLINE static inline __attribute__((always_inline))

// The next LANES weights at w, of BF16 or F32.
INLINE void load(lanes *out, const char *w, enum dtype t)
{
    if (t == DTYPE_F32) {
        memcpy(out, w, sizeof *out);
    } else {
        halves h;
        memcpy(&h, w, sizeof h);
        const words wide = __builtin_convertvector(h, words) << 16;
        memcpy(out, &wide, sizeof wide);
    }
}

INLINE float load_one(const char *w, enum dtype t)
{
    float f;
    to_f32(&f, w, t, 1);
    return f;
}

// R, J and t are constants where this is inlined, and the sums stay in registers.
INLINE void tile(float *y, int64_t ldy, const float *x, const char *w, enum dtype t, int64_t depth,
                 const int R, const int J)
{
    const int64_t size = t == DTYPE_F32 ? 4 : 2;
    lanes sum[SIDE][SIDE] = {0};
    int64_t k = 0;
    for (; k + LANES <= depth; k += LANES) {
        lanes b[SIDE];
        for (int j = 0; j < J; j++) {
            load(&b[j], w + size * (j * depth + k), t);
        }
        for (int r = 0; r < R; r++) {
            lanes a;
            memcpy(&a, x + r * depth + k, sizeof a);
            for (int j = 0; j < J; j++) {
                sum[r][j] += a * b[j];
            }
        }
    }
    for (int r = 0; r < R; r++) {
        for (int j = 0; j < J; j++) {
            float total = y[r * ldy + j];
            for (int i = 0; i < LANES; i++) {
                total += sum[r][j][i];
            }
            for (int64_t i = k; i < depth; i++) {
                total += x[r * depth + i] * load_one(w + size * (j * depth + i), t);
            }
            y[r * ldy + j] = total;
        }
    }
}

INLINE void strip(float *y, int64_t ldy, const float *x, const char *w, enum dtype t, int64_t rows,
                  int64_t depth, const int J)
{
    int64_t r = 0;
    for (; r + SIDE <= rows; r += SIDE) {
        tile(y + r * ldy, ldy, x + r * depth, w, t, depth, SIDE, J);
    }
    if (rows - r == 3) tile(y + r * ldy, ldy, x + r * depth, w, t, depth, 3, J);
    if (rows - r == 2) tile(y + r * ldy, ldy, x + r * depth, w, t, depth, 2, J);
    if (rows - r == 1) tile(y + r * ldy, ldy, x + r * depth, w, t, depth, 1, J);
}

VECTOR_CLONES
static void add_bf16(float *y, const float *x, const char *w, int64_t rows, int64_t columns,
                     int64_t depth)
{
    int64_t j = 0;
    for (; j + SIDE <= columns; j += SIDE) {
        strip(y + j, columns, x, w + 2 * j * depth, DTYPE_BF16, rows, depth, SIDE);
    }
    for (; j < columns; j++) {
        strip(y + j, columns, x, w + 2 * j * depth, DTYPE_BF16, rows, depth, 1);
    }
}

// `columns` rows of w; y is ldy wide.
VECTOR_CLONES
static void add_f32(float *y, int64_t ldy, const float *x, const char *w, int64_t rows,
                    int64_t columns, int64_t depth)
{
    int64_t j = 0;
    for (; j + SIDE <= columns; j += SIDE) {
        strip(y + j, ldy, x, w + 4 * j * depth, DTYPE_F32, rows, depth, SIDE);
    }
    for (; j < columns; j++) {
        strip(y + j, ldy, x, w + 4 * j * depth, DTYPE_F32, rows, depth, 1);
    }
}

void few_rows_product(float *y, const float *x, const void *w, enum dtype t, int64_t rows,
                      int64_t columns, int64_t depth, bool accumulate)
{
    if (!accumulate) memset(y, 0, (size_t)(rows * columns) * sizeof *y);
    if (t == DTYPE_BF16) {
        add_bf16(y, x, w, rows, columns, depth);
    } else if (t == DTYPE_F32) {
        add_f32(y, columns, x, w, rows, columns, depth);
    } else { // converted, as many rows as a tile has
        float *block = scratch_f32(SCRATCH_B, SIDE * depth);
        for (int64_t j = 0; j < columns; j += SIDE) {
            const int64_t n = min_i64(SIDE, columns - j);
            to_f32(block, (const char *)w + (size_t)(j * depth) * dtype_size(t), t, n * depth);
            add_f32(y + j, columns, x, (const char *)block, rows, n, depth);
        }
    }
}
