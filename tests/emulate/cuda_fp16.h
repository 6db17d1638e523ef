// tests/emulate/cuda_fp16.h - half precision as CUDA's header has it, with the conversions of base/dtype.h.
#pragma once
extern "C" {
#include "base/dtype.h"
}

struct __half {
    uint16_t bits;
};

static inline float __half2float(__half x)
{
    return f32_from_f16(x.bits);
}
static inline __half __float2half_rn(float x)
{
    return {f16_from_f32(x)};
}
