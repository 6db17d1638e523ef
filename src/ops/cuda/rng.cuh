// ops/cuda/rng.cuh - base/rng.h's generator on the device, bit for bit.
#pragma once
#include "ops/cuda/cuda.h"

static __device__ inline uint64_t rng_on_device(uint64_t seed, uint64_t stream, uint64_t counter)
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

// bf16_from_f32_random (base/dtype.h) with the bits of element i: four elements share a word.
static __device__ inline uint16_t round_random(float f, uint64_t seed, uint64_t stream, int64_t i)
{
    const uint32_t random =
        (uint32_t)(rng_on_device(seed, stream, (uint64_t)i / 4) >> (i % 4 * 16)) & 0xffffU;
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    const uint32_t nan = (u >> 16) | 0x40U;
    return (uint16_t)((u & 0x7fffffffU) > 0x7f800000U ? nan : (u + random) >> 16);
}
