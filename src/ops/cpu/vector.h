// ops/cpu/vector.h - arithmetic in a form that compilers turn into vector instructions: an exponential,
// dot products, and blocks of F32 values loaded from and stored to tensors of any floating type. A sum
// is split over the lanes of a vector, so its rounding depends on the build, but on nothing else.
#pragma once
#include "base/clones.h"
#include "base/tensor.h"

#include <math.h>

enum { BLOCK = 2048 };

// e^x for x <= 88 (softmax and sigmoid need x <= 0), relative error below 2e-7, exact at 0; results
// below 1.6e-38 are 0, NaN stays NaN.
// x = n ln 2 + r with |r| <= ln(2)/2; e^r by a polynomial (Cephes' coefficients), 2^n by its bits.
static inline float exp_f32(float x)
{
    const float magic = 0x1.8p23f; // adding it rounds to an integer in the low bits
    const float in = x < -87.0f ? -87.0f : x;
    const float shifted = __builtin_fmaf(in, 1.44269504f, magic);
    const float n = shifted - magic;
    const float high = __builtin_fmaf(n, -0.693359375f, in);
    const float r = __builtin_fmaf(n, 2.12194440e-4f, high);
    float p = 1.9875691500e-4f;
    p = __builtin_fmaf(p, r, 1.3981999507e-3f);
    p = __builtin_fmaf(p, r, 8.3334519073e-3f);
    p = __builtin_fmaf(p, r, 4.1665795894e-2f);
    p = __builtin_fmaf(p, r, 1.6666665459e-1f);
    p = __builtin_fmaf(p, r, 5.0000001201e-1f);
    const float e = __builtin_fmaf(p, r * r, r) + 1.0f;
    const float power =
        f32_from_bits((f32_bits(shifted) << 23) + 0x3f800000U); // magic's bits drop out
    return x < -87.0f ? 0.0f : e * power;
}

// 1 / (1 + e^-x) without overflow, accurate for negative x too.
static inline float sigmoid_f32(float x)
{
    const float e = exp_f32(-fabsf(x));
    const float numerator = x >= 0.0f ? 1.0f : e;
    return (x != x ? x : numerator) / (1.0f + e);
}

// The n values at src as F32. src may lie at any byte.
static inline void to_f32(float *restrict dst, const void *src, enum dtype from, int64_t n)
{
    const char *bytes = src;
    if (from == DTYPE_F32) {
        memcpy(dst, src, (size_t)n * sizeof *dst);
    } else if (from == DTYPE_BF16) {
        for (int64_t i = 0; i < n; i++) {
            uint16_t h;
            memcpy(&h, bytes + 2 * i, sizeof h);
            dst[i] = f32_from_bf16(h);
        }
    } else {
        // Exponent and mantissa moved into place and rescaled: exact, subnormals included.
        for (int64_t i = 0; i < n; i++) {
            uint16_t h;
            memcpy(&h, bytes + 2 * i, sizeof h);
            const uint32_t magnitude = h & 0x7fffU, sign = (uint32_t)(h & 0x8000U) << 16;
            const uint32_t finite = f32_bits(f32_from_bits(magnitude << 13) * 0x1p112f);
            const uint32_t special = 0x7f800000U | (magnitude << 13);
            dst[i] = f32_from_bits((magnitude >= 0x7c00U ? special : finite) | sign);
        }
    }
}

static inline void from_f32(void *dst, enum dtype to, const float *src, int64_t n)
{
    if (to == DTYPE_BF16) {
        uint16_t *restrict out = dst;
        for (int64_t i = 0; i < n; i++) {
            out[i] = bf16_from_f32(src[i]);
        }
    } else {
        dtype_convert(dst, to, src, DTYPE_F32, n);
    }
}

static inline const char *element_at(struct tensor x, int64_t i)
{
    return (const char *)x.data + (size_t)i * dtype_size(x.dtype);
}

// Elements [first, first + n) of x as F32: in place where they are that already, else in `buffer`.
static inline const float *block_load(float *buffer, struct tensor x, int64_t first, int64_t n)
{
    const char *at = element_at(x, first);
    if (x.dtype == DTYPE_F32 && (uintptr_t)at % sizeof(float) == 0)
        return (const float *)(const void *)at;
    to_f32(buffer, at, x.dtype, n);
    return buffer;
}

// Where to compute elements [first, ...) of y: in place if it is F32, else in `buffer`.
static inline float *block_target(float *buffer, struct tensor y, int64_t first)
{
    return y.dtype == DTYPE_F32 ? data_f32(y) + first : buffer;
}

static inline void block_store(struct tensor y, int64_t first, const float *values, int64_t n)
{
    if (y.dtype == DTYPE_F32 && values == data_f32(y) + first) return;
    from_f32((char *)y.data + (size_t)first * dtype_size(y.dtype), y.dtype, values, n);
}

// Four stretches side by side: one sum would wait for its own last addition.
static inline float dot_f32(const float *a, const float *b, int64_t n)
{
    const int64_t h = n / 4;
    float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
    for (int64_t i = 0; i < h; i++) {
        s0 += a[i] * b[i];
        s1 += a[h + i] * b[h + i];
        s2 += a[2 * h + i] * b[2 * h + i];
        s3 += a[3 * h + i] * b[3 * h + i];
    }
    for (int64_t i = 4 * h; i < n; i++) {
        s0 += a[i] * b[i];
    }
    return (s0 + s1) + (s2 + s3);
}

// The largest of n values, -infinity for none; NaN if there is a positive NaN. Compared as integers in
// the order of floats, which compilers vectorise without being told that there is no NaN.
static inline float max_f32(const float *x, int64_t n)
{
    int32_t max = INT32_MIN + 0x7fffff; // -infinity
#pragma omp simd reduction(max : max)
    for (int64_t i = 0; i < n; i++) {
        const int32_t bits = (int32_t)f32_bits(x[i]);
        const int32_t key = bits ^ ((bits >> 31) & INT32_MAX);
        max = key > max ? key : max;
    }
    return f32_from_bits((uint32_t)(max ^ ((max >> 31) & INT32_MAX)));
}

// y <- e^(x - shift), y may be x; returns the sum. In stretches, because a float sum of thousands drifts.
static inline float exp_sum_f32(float *y, const float *x, float shift, int64_t n)
{
    const int64_t stretch = 256;
    double total = 0;
    for (int64_t first = 0; first < n; first += stretch) {
        const int64_t end = first + stretch < n ? first + stretch : n;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = first; i < end; i++) {
            y[i] = exp_f32(x[i] - shift);
            sum += y[i];
        }
        total += (double)sum;
    }
    return (float)total;
}
