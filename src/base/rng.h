// base/rng.h - random numbers that depend on a seed and a position only (Philox 4x32-10, Salmon et
// al. 2011), so that a resumed run, another thread count or another backend draws the same ones.
#pragma once
#include <stdint.h>

struct rng {
    uint64_t seed;
    uint64_t stream;  // one per purpose (shuffle, init of a tensor, dropout of a layer, ...)
    uint64_t counter; // advances by one per draw; saved with a checkpoint
};

uint64_t rng_at(uint64_t seed, uint64_t stream, uint64_t counter); // 64 random bits, stateless
uint64_t rng_next(struct rng *r);
double rng_uniform(struct rng *r);                      // [0, 1), 53 bits
double rng_normal(struct rng *r);                       // Box-Muller; uses two counters
int64_t rng_below(struct rng *r, int64_t n);            // [0, n), unbiased
void rng_shuffle(struct rng *r, int64_t *x, int64_t n); // Fisher-Yates

// n normal draws at places first, first + 1, ... of a stream, deviation `std`; first is even. Only IEEE
// arithmetic in a fixed order, no call to libm: the same values on every machine.
void rng_fill_normal(float *out, int64_t n, float std, uint64_t seed, uint64_t stream,
                     uint64_t first);
// The same for uniform draws in (-bound, bound), two of each counter; first is even.
void rng_fill_uniform(float *out, int64_t n, float bound, uint64_t seed, uint64_t stream,
                      uint64_t first);
// out[i] = rng_at(seed, stream, first + i)
void rng_fill(uint64_t *out, int64_t n, uint64_t seed, uint64_t stream, uint64_t first);
