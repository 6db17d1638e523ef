// ops/cuda/rng.cuh - stochastic rounding on the device, with the bits that ops.h prescribes.
#pragma once
#include "ops/cuda/cuda.h"

extern "C" {
#include "base/philox.h"
}

// Element i of a leaf: four elements share a word.
static __device__ inline uint16_t round_random(float f, uint64_t seed, uint64_t stream, int64_t i)
{
    const uint64_t word = philox(seed, stream, (uint64_t)i / 4);
    return bf16_from_f32_random(f, (uint32_t)(word >> (i % 4 * 16)) & 0xffffU);
}
