// base/philox.h - random bits as a function of a position: the one copy, which is compiled for devices too.
#pragma once
#include "base/device.h"

#include <stdint.h>

// Philox 4x32-10 (Salmon et al. 2011), 64 bits of it.
ON_DEVICE_TOO
static inline uint64_t philox(uint64_t seed, uint64_t stream, uint64_t counter)
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

// Word i of a row that has 64 bits of its own: the row's bits mixed with the number (the constants are
// MurmurHash3's). What dropout draws from, at a fraction of philox's price.
ON_DEVICE_TOO
static inline uint32_t row_word(uint32_t i, uint32_t low, uint32_t high)
{
    uint32_t z = i * 0x9e3779b9U + low;
    z = (z ^ (z >> 16)) * 0x85ebca6bU;
    z = ((z ^ (z >> 13)) + high) * 0xc2b2ae35U;
    return z ^ (z >> 16);
}
