// base/rng.c - see rng.h.
#include "base/rng.h"

#include <math.h>

uint64_t rng_at(uint64_t seed, uint64_t stream, uint64_t counter)
{
    uint32_t x[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), (uint32_t)stream,
                     (uint32_t)(stream >> 32)};
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)x[0] * 0xD2511F53U, p1 = (uint64_t)x[2] * 0xCD9E8D57U;
        const uint32_t y0 = (uint32_t)(p1 >> 32) ^ x[1] ^ k0, y2 = (uint32_t)(p0 >> 32) ^ x[3] ^ k1;
        x[0] = y0, x[1] = (uint32_t)p1, x[2] = y2, x[3] = (uint32_t)p0;
        k0 += 0x9E3779B9U, k1 += 0xBB67AE85U;
    }
    return (uint64_t)x[1] << 32 | x[0];
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
