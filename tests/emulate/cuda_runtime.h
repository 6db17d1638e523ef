// tests/emulate/cuda_runtime.h - stands where CUDA's own header stands, so that src/ops/cuda/*.cu compile as C++
// and run on a CPU. A launch runs one block after another; within a block each thread is a fiber that runs
// until it waits, so barriers and exchanges in a warp behave as on the device. It finds what a GPU would not
// forgive:
//   - host code that touches device memory, and kernels that reach beyond an allocation: device memory is
//     only accessible while a kernel or a copy runs, and each allocation ends at a page nobody may touch;
//   - missing barriers: emulate_set_order changes the order in which threads and blocks run;
//   - threads that wait for each other for ever: it stops with the kernel's name.
// It does not find what depends on real concurrency or on how the machine stores memory.
#pragma once
#define CUDA_EMULATED 1
#include "emulated.h"

#include <stddef.h>
#include <stdint.h>

#include <cmath>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __shared__ static // one block at a time
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __grid_constant__

// ---- indices

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    template <typename X> dim3(X a) : x((unsigned)a), y(1), z(1)
    {
    }
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c)
    {
    }
    dim3(const dim3 &) = default;
    dim3 &operator=(const dim3 &) = default;
};
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
enum { warpSize = 32 };

// ---- launches and waiting (emulate.cpp)

void *emulate_dynamic_shared(void);
void emulate_named_barrier(int id, int count, bool wait);
// Lets the other threads of the block run: what a loop that polls memory calls.
void emulate_yield(void);
// The calling thread gives `bytes` (at most EMULATE_EXCHANGE) to the lanes of its warp in `mask`, which all
// call this; returns what they gave, entry i at i * EMULATE_EXCHANGE, valid until the thread's next wait.
enum { EMULATE_EXCHANGE = 64 };
const unsigned char *emulate_exchange(unsigned mask, const void *mine, size_t bytes);
void __syncthreads(void);
static inline void __syncwarp(unsigned mask = 0xffffffffU)
{
    emulate_exchange(mask, nullptr, 0);
}
static inline void __threadfence(void)
{
}
static inline void __threadfence_block(void)
{
}
static inline void __nanosleep(unsigned)
{
    emulate_yield();
}

static inline int emulate_lane(void)
{
    return (int)((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32);
}

template <typename T> T emulate_from_lane(unsigned mask, const T &x, int lane)
{
    static_assert(sizeof(T) <= EMULATE_EXCHANGE, "too large for an exchange");
    T out;
    memcpy((void *)&out, emulate_exchange(mask, &x, sizeof x) + lane * EMULATE_EXCHANGE,
           sizeof out);
    return out;
}

// width: lanes are taken in groups of that many, as on the device.
template <typename T> T __shfl_sync(unsigned mask, T x, int source, int width = 32)
{
    return emulate_from_lane(mask, x, emulate_lane() / width * width + (source & (width - 1)));
}
template <typename T> T __shfl_xor_sync(unsigned mask, T x, int by, int width = 32)
{
    const int lane = emulate_lane(), from = lane ^ by;
    return emulate_from_lane(mask, x, from / width <= lane / width ? from : lane);
}
template <typename T> T __shfl_down_sync(unsigned mask, T x, unsigned by, int width = 32)
{
    const int lane = emulate_lane(), from = lane + (int)by;
    return emulate_from_lane(mask, x, from / width == lane / width ? from : lane);
}
template <typename T> T __shfl_up_sync(unsigned mask, T x, unsigned by, int width = 32)
{
    const int lane = emulate_lane(), from = lane - (int)by;
    return emulate_from_lane(mask, x, from >= lane / width * width ? from : lane);
}
unsigned __ballot_sync(unsigned mask, int predicate);
static inline int __any_sync(unsigned mask, int predicate)
{
    return __ballot_sync(mask, predicate) != 0;
}
static inline int __all_sync(unsigned mask, int predicate)
{
    return __ballot_sync(mask, predicate) == mask;
}

// The lanes of the mask that call with the same x.
template <typename T> unsigned __match_any_sync(unsigned mask, T x)
{
    const unsigned char *all = emulate_exchange(mask, &x, sizeof x);
    unsigned out = 0;
    for (unsigned i = 0; i < 32; i++) {
        if (mask >> i & 1 && !memcmp(all + i * EMULATE_EXCHANGE, &x, sizeof x)) out |= 1U << i;
    }
    return out;
}

// ---- atomics: only one fiber runs at a time

template <typename T, typename U> T atomicAdd(T *at, U by)
{
    const T old = *at;
    *at = (T)(old + (T)by);
    return old;
}
template <typename T, typename U> T atomicMax(T *at, U x)
{
    const T old = *at;
    if ((T)x > old) *at = (T)x;
    return old;
}
template <typename T, typename U> T atomicMin(T *at, U x)
{
    const T old = *at;
    if ((T)x < old) *at = (T)x;
    return old;
}
template <typename T, typename U> T atomicExch(T *at, U x)
{
    const T old = *at;
    *at = (T)x;
    return old;
}
template <typename T, typename U, typename V> T atomicCAS(T *at, U compare, V x)
{
    const T old = *at;
    if (old == (T)compare) *at = (T)x;
    return old;
}

// ---- small functions and vectors

static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
static inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}
static inline float __uint_as_float(unsigned x)
{
    float f;
    memcpy(&f, &x, sizeof f);
    return f;
}
static inline unsigned __float_as_uint(float f)
{
    unsigned x;
    memcpy(&x, &f, sizeof x);
    return x;
}
static inline float __fmul_rn(float a, float b)
{
    return a * b;
}
static inline float __fadd_rn(float a, float b)
{
    return a + b;
}
static inline float __fdiv_rn(float a, float b)
{
    return a / b;
}
static inline float __fsqrt_rn(float a)
{
    return std::sqrt(a);
}
#define __expf emulate_expf // glibc declares functions of these names
#define __logf emulate_logf
#define rsqrtf emulate_rsqrtf // as glibc's math.h does from 2.42 on
static inline float __expf(float x)
{
    return std::exp(x);
}
static inline float __logf(float x)
{
    return std::log(x);
}
static inline float rsqrtf(float x)
{
    return 1.0f / std::sqrt(x);
}
template <typename T> T __ldg(const T *p)
{
    return *p;
}
template <typename T> T min(T a, T b)
{
    return b < a ? b : a;
}
template <typename T> T max(T a, T b)
{
    return a < b ? b : a;
}
static inline size_t __cvta_generic_to_shared(const void *p)
{
    return (size_t)p;
}

#define EMULATE_VECTORS(T, name)                                                                   \
    struct name##2                                                                                 \
    {                                                                                              \
        T x, y;                                                                                    \
    };                                                                                             \
    struct alignas(16) name##4                                                                     \
    {                                                                                              \
        T x, y, z, w;                                                                              \
    };                                                                                             \
    static inline name##2 make_##name##2(T x, T y)                                                 \
    {                                                                                              \
        return {x, y};                                                                             \
    }                                                                                              \
    static inline name##4 make_##name##4(T x, T y, T z, T w)                                       \
    {                                                                                              \
        return {x, y, z, w};                                                                       \
    }
EMULATE_VECTORS(float, float)
EMULATE_VECTORS(int, int)
EMULATE_VECTORS(unsigned, uint)

// ---- the runtime's functions that the backend calls (runtime.cpp)

#define __CUDA_ARCH_LIST__ 800, 900

typedef struct emulated_stream *cudaStream_t;
typedef struct emulated_event *cudaEvent_t;
enum cudaError_t {
    cudaSuccess,
    cudaErrorInvalidValue,
    cudaErrorMemoryAllocation,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorInvalidDeviceFunction = 98,
    cudaErrorNoDevice = 100,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorLaunchOutOfResources = 701,
    cudaErrorLaunchFailure = 719
};
enum cudaMemcpyKind {
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice
};
enum {
    cudaStreamNonBlocking = 1,
    cudaEventDisableTiming = 2,
    cudaHostAllocDefault = 0,
    cudaHostAllocMapped = 2
};
struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlockOptin;
    int major, minor, multiProcessorCount;
};
cudaError_t emulate_launch(const char *name, dim3 grid, dim3 block, size_t shared,
                           const std::function<void()> &body); // emulate.cpp
const char *cudaGetErrorString(cudaError_t e);
cudaError_t cudaGetLastError(void);
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device);
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaMemGetInfo(size_t *available, size_t *total);
cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventSynchronize(cudaEvent_t e);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t s);
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t s);
