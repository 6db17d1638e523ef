// base/dtype.h - the element types of tensors and the exact conversions between them.
#pragma once
#include "base/device.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum dtype { DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F64, DTYPE_I32, DTYPE_I64, DTYPE_U8 };

size_t dtype_size(enum dtype t);
const char *dtype_name(enum dtype t); // "F32", as safetensors spells it

static inline float f32_from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

ON_DEVICE_TOO
static inline uint32_t f32_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float f32_from_bf16(uint16_t h)
{
    return f32_from_bits((uint32_t)h << 16);
}

// Round to nearest, ties to even; NaN stays NaN (quiet).
static inline uint16_t bf16_from_f32(float f)
{
    const uint32_t u = f32_bits(f);
    const uint32_t rounded = (u + 0x7fffU + ((u >> 16) & 1U)) >> 16;
    const uint32_t nan = (u >> 16) | 0x40U;
    return (uint16_t)((u & 0x7fffffffU) > 0x7f800000U ? nan : rounded);
}

// Stochastic rounding: up with the probability of the share of the way, for `random` uniform in
// [0, 2^16). The mean is f; what BF16 holds exactly stays. NaN stays NaN (quiet).
ON_DEVICE_TOO
static inline uint16_t bf16_from_f32_random(float f, uint32_t random)
{
    const uint32_t u = f32_bits(f), nan = (u >> 16) | 0x40U;
    return (uint16_t)((u & 0x7fffffffU) > 0x7f800000U ? nan : (u + random) >> 16);
}

float f32_from_f16(uint16_t h);
uint16_t f16_from_f32(float f); // nearest even; overflow gives infinity

// n elements; dst and src do not overlap. F32, BF16, F16 and F64 in any combination.
void dtype_convert(void *dst, enum dtype to, const void *src, enum dtype from, int64_t n);

// Whether n elements of F32, BF16 or F16 hold neither NaN nor infinity.
bool dtype_finite(const void *src, enum dtype type, int64_t n);
// False if a finite value would become infinite in `to`: *lost is then one of them.
bool dtype_holds(enum dtype to, const float *values, int64_t n, float *lost);
