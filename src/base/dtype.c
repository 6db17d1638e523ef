// base/dtype.c - see dtype.h.
#include "base/dtype.h"

#include <assert.h>
#include <math.h>

static const struct {
    size_t size;
    const char *name;
} types[] = {
    [DTYPE_F32] = {4, "F32"}, [DTYPE_BF16] = {2, "BF16"}, [DTYPE_F16] = {2, "F16"},
    [DTYPE_F64] = {8, "F64"}, [DTYPE_I32] = {4, "I32"},   [DTYPE_I64] = {8, "I64"},
    [DTYPE_U8] = {1, "U8"},
};

size_t dtype_size(enum dtype t)
{
    return types[t].size;
}

const char *dtype_name(enum dtype t)
{
    return types[t].name;
}

float f32_from_f16(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000U) << 16, exponent = (h >> 10) & 0x1fU;
    const uint32_t mantissa = h & 0x3ffU;
    if (exponent == 0x1f) return f32_from_bits(sign | 0x7f800000U | (mantissa << 13));
    if (exponent) return f32_from_bits(sign | ((exponent + 112U) << 23) | (mantissa << 13));
    const float subnormal = (float)mantissa * 0x1p-24f;
    return sign ? -subnormal : subnormal;
}

uint16_t f16_from_f32(float f)
{
    const uint32_t u = f32_bits(f), sign = (u >> 16) & 0x8000U, magnitude = u & 0x7fffffffU;
    if (magnitude > 0x7f800000U) return (uint16_t)(sign | 0x7e00U);
    if (magnitude >= 0x477ff000U) return (uint16_t)(sign | 0x7c00U); // rounds to 65536 or more
    if (magnitude < 0x38800000U) { // subnormal: adding 0.5 leaves the rounded value in the low bits
        const uint32_t low = f32_bits(f32_from_bits(magnitude) + 0.5f) - 0x3f000000U;
        return (uint16_t)(sign | low);
    }
    const uint32_t rounded = magnitude + 0xfffU + ((magnitude >> 13) & 1U);
    return (uint16_t)(sign | ((rounded - 0x38000000U) >> 13));
}

static float load(const void *src, enum dtype t, int64_t i)
{
    switch (t) {
    case DTYPE_F32:
        return ((const float *)src)[i];
    case DTYPE_BF16:
        return f32_from_bf16(((const uint16_t *)src)[i]);
    case DTYPE_F16:
        return f32_from_f16(((const uint16_t *)src)[i]);
    case DTYPE_F64:
        return (float)((const double *)src)[i];
    default:
        assert(0 && "not a floating type");
        return 0;
    }
}

static void store(void *dst, enum dtype t, int64_t i, float f)
{
    switch (t) {
    case DTYPE_F32:
        ((float *)dst)[i] = f;
        break;
    case DTYPE_BF16:
        ((uint16_t *)dst)[i] = bf16_from_f32(f);
        break;
    case DTYPE_F16:
        ((uint16_t *)dst)[i] = f16_from_f32(f);
        break;
    case DTYPE_F64:
        ((double *)dst)[i] = (double)f;
        break;
    default:
        assert(0 && "not a floating type");
    }
}

void dtype_convert(void *dst, enum dtype to, const void *src, enum dtype from, int64_t n)
{
    if (to == from) {
        memcpy(dst, src, (size_t)n * dtype_size(to));
    } else if (to == DTYPE_F32 && from == DTYPE_BF16) { // the two that weights and activations use
        for (int64_t i = 0; i < n; i++) {
            ((float *)dst)[i] = f32_from_bf16(((const uint16_t *)src)[i]);
        }
    } else if (to == DTYPE_BF16 && from == DTYPE_F32) {
        for (int64_t i = 0; i < n; i++) {
            ((uint16_t *)dst)[i] = bf16_from_f32(((const float *)src)[i]);
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            store(dst, to, i, load(src, from, i));
        }
    }
}

bool dtype_finite(const void *src, enum dtype type, int64_t n)
{
    const uint16_t *half = src;
    bool finite = true; // all exponent bits set: NaN or infinity
    if (type == DTYPE_F32) {
        for (int64_t i = 0; i < n; i++) {
            finite &= (f32_bits(((const float *)src)[i]) & 0x7f800000U) != 0x7f800000U;
        }
        return finite;
    }
    assert(type == DTYPE_BF16 || type == DTYPE_F16);
    const unsigned exponent = type == DTYPE_BF16 ? 0x7f80U : 0x7c00U;
    for (int64_t i = 0; i < n; i++) {
        finite &= (half[i] & exponent) != exponent;
    }
    return finite;
}

// From here on a magnitude rounds to infinity: half a unit beyond the largest number.
static float overflow_of(enum dtype t)
{
    return t == DTYPE_F16 ? 65520.0F : t == DTYPE_BF16 ? 0x1.ffp127F : INFINITY;
}

bool dtype_holds(enum dtype to, const float *values, int64_t n, float *lost)
{
    const float limit = overflow_of(to);
    for (int64_t i = 0; i < n; i++) {
        const float magnitude = fabsf(values[i]);
        if (magnitude < limit || !(magnitude < INFINITY)) continue;
        *lost = values[i];
        return false;
    }
    return true;
}
