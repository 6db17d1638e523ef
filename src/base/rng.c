// base/rng.c - see rng.h.
#include "base/rng.h"

#include "base/clones.h"
#include "base/dtype.h"
#include "base/philox.h"

#include <math.h>

uint64_t rng_at(uint64_t seed, uint64_t stream, uint64_t counter)
{
    return philox(seed, stream, counter);
}

uint64_t rng_next(struct rng *r)
{
    return rng_at(r->seed, r->stream, r->counter++);
}

double rng_uniform(struct rng *r)
{
    return (double)(rng_next(r) >> 11) * 0x1p-53;
}

double rng_normal(struct rng *r)
{
    const double u = 1.0 - rng_uniform(r), v = rng_uniform(r); // u in (0, 1]
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

int64_t rng_below(struct rng *r, int64_t n)
{
    const uint64_t m = (uint64_t)n, limit = UINT64_MAX - (UINT64_MAX % m + 1) % m;
    uint64_t x = rng_next(r);
    while (x > limit) {
        x = rng_next(r);
    }
    return (int64_t)(x % m);
}

void rng_shuffle(struct rng *r, int64_t *x, int64_t n)
{
    for (int64_t i = n - 1; i > 0; i--) {
        const int64_t j = rng_below(r, i + 1), t = x[i];
        x[i] = x[j];
        x[j] = t;
    }
}

enum { BLOCK = 64, DRAWS = 2 * BLOCK }; // pairs at a time, so that the loops become vector code

// log u for u in (0, 1): u = m 2^e with m in [sqrt 1/2, sqrt 2), log m = 2 atanh((m - 1) / (m + 1)).
static inline float log_of(float u)
{
    const uint32_t bits = f32_bits(u), shifted = bits - 0x3f3504f3U; // the bits of sqrt 1/2
    const int32_t e = (int32_t)shifted >> 23;
    const float m = f32_from_bits(bits - ((uint32_t)e << 23));
    const float s = (m - 1) / (m + 1), z = s * s;
    const float series = 1 + z * (1.0f / 3 + z * (1.0f / 5 + z * (1.0f / 7 + z * (1.0f / 9))));
    return (float)e * 0.69314718f + 2 * s * series;
}

// Box-Muller on a block: x = r cos(2 pi v), y = r sin(2 pi v), r = std sqrt(-2 log u). The angle is a
// quarter turn q and a rest within an eighth of a turn, where Taylor's series are short.
static void normal_pairs(float *x, float *y, float std, const uint32_t *low, const uint32_t *high)
{
    for (int i = 0; i < BLOCK; i++) {
        const float u = ((float)(int32_t)(low[i] >> 9) + 0.5f) * 0x1p-23f;
        const float quarters = (float)(int32_t)(high[i] >> 8) * 0x1p-22f; // [0, 4)
        const int32_t q = (int32_t)(quarters + 0.5f);
        const float a = (quarters - (float)q) * 1.57079633f, z = a * a;
        const float sine =
            a * (1 - z * (1.0f / 6) *
                         (1 - z * (1.0f / 20) * (1 - z * (1.0f / 42) * (1 - z * (1.0f / 72)))));
        const float cosine =
            1 - z * 0.5f * (1 - z * (1.0f / 12) * (1 - z * (1.0f / 30) * (1 - z * (1.0f / 56))));
        const float r = std * sqrtf(-2 * log_of(u));
        // cosine and sine of the whole angle, without a branch: an odd q swaps them, signs follow.
        const uint32_t C = f32_bits(cosine), S = f32_bits(sine), turn = (uint32_t)q;
        const uint32_t swap = (C ^ S) & (0 - (turn & 1U));
        x[i] = r * f32_from_bits((C ^ swap) ^ ((turn + 1) & 2U) << 30);
        y[i] = r * f32_from_bits((S ^ swap) ^ (turn & 2U) << 30);
    }
}

void rng_fill_normal(float *out, int64_t n, float std, uint64_t seed, uint64_t stream,
                     uint64_t first)
{
    uint32_t low[BLOCK], high[BLOCK];
    float x[BLOCK], y[BLOCK];
    for (int64_t at = 0; at < n; at += DRAWS) {
        const uint64_t counter = (first + (uint64_t)at) / 2;
        for (int i = 0; i < BLOCK; i++) {
            const uint64_t bits = philox(seed, stream, counter + (uint64_t)i);
            low[i] = (uint32_t)bits, high[i] = (uint32_t)(bits >> 32);
        }
        normal_pairs(x, y, std, low, high);
        float pairs[DRAWS];
        for (int64_t i = 0; i < BLOCK; i++) {
            pairs[2 * i] = x[i], pairs[2 * i + 1] = y[i];
        }
        const int64_t left = n - at < DRAWS ? n - at : DRAWS;
        memcpy(out + at, pairs, (size_t)left * sizeof *out);
    }
}

// The middle of one of 2^24 equal parts of (-bound, bound).
static inline float uniform_of(uint32_t bits, float bound)
{
    return ((float)(int32_t)(bits >> 8) * 0x1p-23f - (1 - 0x1p-24f)) * bound;
}

void rng_fill_uniform(float *out, int64_t n, float bound, uint64_t seed, uint64_t stream,
                      uint64_t first)
{
    for (int64_t i = 0; i < n; i += 2) {
        const uint64_t bits = philox(seed, stream, (first + (uint64_t)i) / 2);
        out[i] = uniform_of((uint32_t)bits, bound);
        if (i + 1 < n) out[i + 1] = uniform_of((uint32_t)(bits >> 32), bound);
    }
}

// In lanes of 64 bits, which become vector products of 32 x 32 bits.
VECTOR_CLONES
static void fill(uint64_t *out, int64_t n, uint64_t seed, uint64_t stream, uint64_t first)
{
    const uint64_t low = UINT32_MAX;
    for (int64_t i = 0; i < n; i++) {
        const uint64_t counter = first + (uint64_t)i;
        uint64_t x0 = counter & low, x1 = counter >> 32, x2 = stream & low, x3 = stream >> 32;
        uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
        for (int round = 0; round < 10; round++) {
            const uint64_t p0 = x0 * 0xD2511F53U, p1 = x2 * 0xCD9E8D57U;
            x0 = (p1 >> 32) ^ x1 ^ k0, x2 = (p0 >> 32) ^ x3 ^ k1;
            x1 = p1 & low, x3 = p0 & low;
            k0 += 0x9E3779B9U, k1 += 0xBB67AE85U;
        }
        out[i] = x1 << 32 | x0;
    }
}

// Apart from its variants: clang 14 gives a function that has them no name for other files.
void rng_fill(uint64_t *out, int64_t n, uint64_t seed, uint64_t stream, uint64_t first)
{
    fill(out, n, seed, stream, first);
}
