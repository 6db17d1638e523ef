// ops/cuda/swiglu.cuh - SwiGLU of one element and its gradients (Shazeer 2020), for a kernel of its own and for the
// ends of products.
#pragma once
#include "ops/cuda/cuda.h"

static __device__ __forceinline__ float sigmoid(float x)
{
    const float e = expf(-fabsf(x));
    return (x >= 0.0f ? 1.0f : x != x ? x : e) / (1.0f + e);
}

// w silu(g) u
static __device__ __forceinline__ float swiglu(float w, float g, float u)
{
    return w * (g * sigmoid(g) * u);
}

// da' is the gradient of the weighted a, da = w da'; silu' = s (1 + g (1 - s)).
struct swiglu_gradient {
    float dg, du, a, dot; // dot: da' silu(g) u
};

static __device__ __forceinline__ swiglu_gradient swiglu_gradients(float w, float da, float g,
                                                                   float u)
{
    const float s = sigmoid(g), silu = g * s, grad = w * da;
    return {grad * u * (s * (1.0f + g * (1.0f - s))), grad * silu, w * (silu * u), da * (silu * u)};
}
