// ops/cpu/few_rows_bf16.c - few_rows.h for BF16 rows, with the processor's own instruction for products of BF16 pairs.
#include "ops/cpu/few_rows.h"

#include <stddef.h>
#include <stdlib.h>

#if defined(__x86_64__)
#include <immintrin.h>

enum { LANES = 32, SIDE = 4 };

#define WITH_BF16 __attribute__((target("avx512f,avx512bw,avx512bf16")))
#define INLINE static inline __attribute__((always_inline)) WITH_BF16

// The n values at p, 0 beyond.
INLINE __m512bh load(const uint16_t *p, int64_t n)
{
    const __mmask32 some = n >= LANES ? 0xffffffffU : (1U << n) - 1U;
    return (__m512bh)_mm512_maskz_loadu_epi16(some, p);
}

INLINE __m512bh load_all(const uint16_t *p)
{
    return (__m512bh)_mm512_loadu_si512(p);
}

// R and J are constants where this is inlined, and the sums stay in registers.
INLINE void tile(float *y, int64_t ldy, const uint16_t *x, const uint16_t *w, int64_t depth,
                 const int R, const int J, bool accumulate)
{
    __m512 sum[SIDE][SIDE];
    __m512bh b[SIDE];
    for (int r = 0; r < R; r++) {
        for (int j = 0; j < J; j++) {
            sum[r][j] = _mm512_setzero_ps();
        }
    }
    int64_t k = 0;
    for (; k + LANES <= depth; k += LANES) {
        for (int j = 0; j < J; j++) {
            b[j] = load_all(w + j * depth + k);
        }
        for (int r = 0; r < R; r++) {
            const __m512bh a = load_all(x + r * depth + k);
            for (int j = 0; j < J; j++) {
                sum[r][j] = _mm512_dpbf16_ps(sum[r][j], a, b[j]);
            }
        }
    }
    for (int r = 0; r < R; r++) {
        for (int j = 0; j < J; j++) {
            if (k < depth) {
                sum[r][j] = _mm512_dpbf16_ps(sum[r][j], load(x + r * depth + k, depth - k),
                                             load(w + j * depth + k, depth - k));
            }
            const float before = accumulate ? y[r * ldy + j] : 0;
            y[r * ldy + j] = before + _mm512_reduce_add_ps(sum[r][j]);
        }
    }
}

INLINE void strip(float *y, int64_t ldy, const uint16_t *x, const uint16_t *w, int64_t rows,
                  int64_t depth, const int J, bool accumulate)
{
    int64_t r = 0;
    for (; r + SIDE <= rows; r += SIDE) {
        tile(y + r * ldy, ldy, x + r * depth, w, depth, SIDE, J, accumulate);
    }
    if (rows - r == 3) tile(y + r * ldy, ldy, x + r * depth, w, depth, 3, J, accumulate);
    if (rows - r == 2) tile(y + r * ldy, ldy, x + r * depth, w, depth, 2, J, accumulate);
    if (rows - r == 1) tile(y + r * ldy, ldy, x + r * depth, w, depth, 1, J, accumulate);
}

WITH_BF16
void few_rows_product_bf16(float *y, const void *x, const void *w, int64_t rows, int64_t columns,
                           int64_t depth, bool accumulate)
{
    const uint16_t *at = w;
    int64_t j = 0;
    for (; j + SIDE <= columns; j += SIDE) {
        strip(y + j, columns, x, at + j * depth, rows, depth, SIDE, accumulate);
    }
    for (; j < columns; j++) {
        strip(y + j, columns, x, at + j * depth, rows, depth, 1, accumulate);
    }
}
#else
// Never called: cpu_bf16_instructions() is false.
void few_rows_product_bf16(float *y, const void *x, const void *w, int64_t rows, int64_t columns,
                           int64_t depth, bool accumulate)
{
    (void)y, (void)x, (void)w, (void)rows, (void)columns, (void)depth, (void)accumulate;
    abort();
}
#endif
