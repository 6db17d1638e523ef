// ops/cpu/dropped_bf16.c - see dropped.h.
#include "ops/cpu/dropped.h"

#if defined(__x86_64__)
#include "ops/cpu/vector.h"

#include <immintrin.h>

#define BF16_DOTS __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

bool bf16_dots_work(void)
{
    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bf16");
}

// 32 columns of two rows, element beside element, in the order of _mm512_unpack*: 0-3, 8-11, ... and 4-7, 12-15, ...
struct sums {
    __m512 low, high;
};

BF16_DOTS
static inline void add_pair(struct sums *s, __m512i a, __m512i b, __m512i weights)
{
    const __m512bh x = (__m512bh)weights;
    s->low = _mm512_dpbf16_ps(s->low, (__m512bh)_mm512_unpacklo_epi16(a, b), x);
    s->high = _mm512_dpbf16_ps(s->high, (__m512bh)_mm512_unpackhi_epi16(a, b), x);
}

// In the order of columns.
BF16_DOTS
static inline void store_sums(float *to, const struct sums *s)
{
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    _mm512_storeu_ps(to, _mm512_permutex2var_ps(s->low, first, s->high));
    _mm512_storeu_ps(to + 16, _mm512_permutex2var_ps(s->low, second, s->high));
}

BF16_DOTS
void bf16_add_rows(float *sum, const uint16_t *strip, const int32_t *column, const float *x,
                   int64_t n)
{
    struct sums s = {_mm512_setzero_ps(), _mm512_setzero_ps()}, t = s;
    for (int64_t i = 0; i < n; i += 2) {
        const uint16_t *a = strip + (int64_t)column[i] * STRIP;
        const __m512i a0 = _mm512_loadu_si512(a), a1 = _mm512_loadu_si512(a + 32);
        uint32_t pair = f32_bits(x[i]) >> 16;
        __m512i b0 = _mm512_setzero_si512(), b1 = b0;
        if (i + 1 < n) {
            const uint16_t *b = strip + (int64_t)column[i + 1] * STRIP;
            b0 = _mm512_loadu_si512(b);
            b1 = _mm512_loadu_si512(b + 32);
            pair |= f32_bits(x[i + 1]) & 0xffff0000U;
        }
        const __m512i weights = _mm512_set1_epi32((int)pair);
        add_pair(&s, a0, b0, weights);
        add_pair(&t, a1, b1, weights);
    }
    store_sums(sum, &s);
    store_sums(sum + 32, &t);
}

BF16_DOTS
static inline __m512bh values(const uint16_t *p, __mmask32 which)
{
    return (__m512bh)_mm512_maskz_loadu_epi16(which, p);
}

BF16_DOTS
void bf16_two_dots(float sum[2], const uint16_t *a, const uint16_t *b, const uint16_t *c, int64_t n)
{
    __m512 s0 = _mm512_setzero_ps(), s1 = s0, t0 = s0, t1 = s0;
    int64_t i = 0;
    for (; i + 64 <= n; i += 64) {
        const __m512bh x0 = values(a + i, UINT32_MAX), x1 = values(a + i + 32, UINT32_MAX);
        s0 = _mm512_dpbf16_ps(s0, x0, values(b + i, UINT32_MAX));
        s1 = _mm512_dpbf16_ps(s1, x1, values(b + i + 32, UINT32_MAX));
        t0 = _mm512_dpbf16_ps(t0, x0, values(c + i, UINT32_MAX));
        t1 = _mm512_dpbf16_ps(t1, x1, values(c + i + 32, UINT32_MAX));
    }
    for (; i < n; i += 32) {
        const __mmask32 which = n - i >= 32 ? UINT32_MAX : (1U << (n - i)) - 1;
        const __m512bh x = values(a + i, which);
        s0 = _mm512_dpbf16_ps(s0, x, values(b + i, which));
        t0 = _mm512_dpbf16_ps(t0, x, values(c + i, which));
    }
    sum[0] = _mm512_reduce_add_ps(_mm512_add_ps(s0, s1));
    sum[1] = _mm512_reduce_add_ps(_mm512_add_ps(t0, t1));
}

#else

#include <stdlib.h>

bool bf16_dots_work(void)
{
    return false;
}

void bf16_add_rows(float *sum, const uint16_t *strip, const int32_t *column, const float *x,
                   int64_t n)
{
    (void)sum, (void)strip, (void)column, (void)x, (void)n;
    abort();
}

void bf16_two_dots(float sum[2], const uint16_t *a, const uint16_t *b, const uint16_t *c, int64_t n)
{
    (void)sum, (void)a, (void)b, (void)c, (void)n;
    abort();
}
#endif
