// ops/cuda/cuda.h - what the files of the CUDA backend share: the stream, launches, types, and the
// functions behind the table. Kernels are plain CUDA C++ for sm_80 and up; the same sources also compile as
// C++ against tests/emulate, which runs every thread of a block as a fiber, so that they are tested where
// no GPU is. What the two differ in is in this file: LAUNCH, DYNAMIC_SHARED, named barriers.
//
// All work goes to one stream, in the order of calls. No op waits for the device: counts and offsets that
// the device computed stay there, a grid is made for the most rows there can be, and blocks beyond them
// return. Every sum has a fixed order, and nothing floating is added atomically, so two runs agree bit for bit.
#pragma once
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <assert.h>

extern "C" {
#include "base/error.h"
#include "ops/ops.h"
}

using bf16 = __nv_bfloat16;
using f16 = __half;

// ---- the device, device.cu

extern "C" {
extern const struct ops cuda_ops;
}
cudaStream_t cuda_stream(void);
int cuda_processors(void); // multiprocessors
int cuda_generation(void); // 10 * major + minor of the device's compute capability: 80, 90
bool cuda_has_wgmma(void); // of this build, on this device
// The name of the op that is called, for messages; cuda.cu.
void cuda_enter(const char *op);
// Keeps the first failure of the device; from then on results mean nothing, nothing is launched, and check() says so.
void cuda_note(const char *what, cudaError_t result);
struct cuda_place { // of a launch
    const char *kernel, *file;
    int line;
};
void cuda_note_launch(const struct cuda_place *at, cudaError_t result);
// Is there that much shared memory for a block? Noted if not.
bool cuda_fits(const struct cuda_place *at, size_t shared);
bool cuda_failed(void);
cudaError_t cuda_open_copies(void); // memory.cu
// Device memory for one op, at least `bytes` long, 256-byte aligned, not zeroed: the same block for every
// call of the same use (ops follow each other on one stream). It grows, waiting for the device, the first
// times it is asked for more; NULL (and a noted failure) when it cannot.
enum cuda_scratch_use {
    CUDA_SCRATCH_A,
    CUDA_SCRATCH_B,
    CUDA_SCRATCH_C,
    CUDA_SCRATCH_ROWS,
    CUDA_SCRATCH_TOKENS,
    CUDA_SCRATCH_USES
};
void *cuda_scratch(enum cuda_scratch_use use, size_t bytes);

// Blocks for a loop over `count` elements that strides by the grid: enough to fill the device.
static inline unsigned cuda_grid(int64_t count, int threads)
{
    const int64_t blocks = (count + threads - 1) / threads, most = (int64_t)cuda_processors() * 16;
    return (unsigned)(blocks < most ? blocks : most);
}

// ---- launches

// LAUNCH((kernel<float>), grid, block, bytes of dynamic shared memory, arguments ...). A name with a comma
// stands in parentheses. A grid with a 0 is no work. DYNAMIC_SHARED(type, name) in a kernel is that memory,
// 128-byte aligned.
#define LAUNCH(kernel, grid, block, shared, ...)                                                   \
    cuda_launch({#kernel, __FILE__, __LINE__}, kernel, dim3(grid), dim3(block), (size_t)(shared),  \
                __VA_ARGS__)

#if defined(CUDA_EMULATED) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define WGMMA_COMPILED 1
#else
#define WGMMA_COMPILED 0
#endif

#ifdef CUDA_EMULATED
#define DYNAMIC_SHARED(type, name) type *name = (type *)emulate_dynamic_shared()

template <typename... P, typename... A>
cudaError_t cuda_start(void (*kernel)(P...), const char *name, dim3 grid, dim3 block, size_t shared,
                       A... args)
{
    return emulate_launch(name, grid, block, shared, [=] { kernel(args...); });
}

// count threads (a multiple of 32) of the block meet at barrier id, 1 to 15; arrive does not wait.
static inline void named_barrier(int id, int count)
{
    emulate_named_barrier(id, count, true);
}
static inline void named_barrier_arrive(int id, int count)
{
    emulate_named_barrier(id, count, false);
}
#else
#define DYNAMIC_SHARED(type, name)                                                                 \
    extern __shared__ __align__(128) unsigned char dynamic_shared[];                               \
    type *name = reinterpret_cast<type *>(dynamic_shared)

template <typename... P, typename... A>
cudaError_t cuda_start(void (*kernel)(P...), const char *, dim3 grid, dim3 block, size_t shared,
                       A... args)
{
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = cuda_stream();
    cudaError_t e = cudaSuccess;
    if (shared > 48 << 10) {
        e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    }
    return e == cudaSuccess ? cudaLaunchKernelEx(&config, kernel, args...) : e;
}

static __device__ inline void named_barrier(int id, int count)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(count) : "memory");
}
static __device__ inline void named_barrier_arrive(int id, int count)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(count) : "memory");
}
#endif

template <typename... P, typename... A>
void cuda_launch(const struct cuda_place &at, void (*kernel)(P...), dim3 grid, dim3 block,
                 size_t shared, A... args)
{
    if (!grid.x || !grid.y || !grid.z || cuda_failed() || !cuda_fits(&at, shared)) return;
    cuda_note_launch(&at, cuda_start(kernel, at.kernel, grid, block, shared, args...));
}

// ---- types

// f(zero of the element type): with_activation(x.dtype, [&](auto zero) { using T = decltype(zero); ... });
template <typename F> void with_activation(enum dtype t, F f)
{
    assert(t == DTYPE_F32 || t == DTYPE_BF16);
    if (t == DTYPE_BF16) {
        f(bf16{});
    } else {
        f(float{});
    }
}

template <typename F> void with_floating(enum dtype t, F f)
{
    if (t == DTYPE_F16) {
        f(f16{});
    } else {
        with_activation(t, f);
    }
}

template <typename T> T *data(struct tensor x)
{
    return static_cast<T *>(x.data);
}

static __host__ __device__ inline float to_float(float x)
{
    return x;
}
static __host__ __device__ inline float to_float(bf16 x)
{
    return __bfloat162float(x);
}
static __host__ __device__ inline float to_float(f16 x)
{
    return __half2float(x);
}
static __host__ __device__ inline float to_float(double x)
{
    return (float)x;
}

template <typename T> __host__ __device__ T from_float(float x);
template <> __host__ __device__ inline float from_float<float>(float x)
{
    return x;
}
template <> __host__ __device__ inline bf16 from_float<bf16>(float x)
{
    return __float2bfloat16_rn(x);
}
template <> __host__ __device__ inline f16 from_float<f16>(float x)
{
    return __float2half_rn(x);
}
template <> __host__ __device__ inline double from_float<double>(float x)
{
    return (double)x;
}

static __host__ __device__ inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

// ---- parts of kernels

constexpr int WARP = 32,
              THREADS = 256; // THREADS: of a block, where nothing speaks for another number

// Sum over a warp, in all its lanes; the order of the additions is fixed.
template <typename T> static __device__ inline T warp_sum(T x)
{
    for (int lane = WARP / 2; lane > 0; lane /= 2) {
        x += __shfl_xor_sync(0xffffffffU, x, lane);
    }
    return x;
}

static __device__ inline float warp_max(float x)
{
    for (int lane = WARP / 2; lane > 0; lane /= 2) {
        x = fmaxf(x, __shfl_xor_sync(0xffffffffU, x, lane));
    }
    return x;
}

// Sum over a block of whole warps, in all threads. All threads call it; it may be called again at once.
template <typename T> static __device__ inline T block_sum(T x)
{
    __shared__ T part[WARP];
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    const int warps = (int)blockDim.x / WARP;
    x = warp_sum(x);
    __syncthreads();
    if (lane == 0) part[warp] = x;
    __syncthreads();
    return warp_sum(lane < warps ? part[lane] : T(0));
}

static __device__ inline float block_max(float x)
{
    __shared__ float part[WARP];
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    const int warps = (int)blockDim.x / WARP;
    x = warp_max(x);
    __syncthreads();
    if (lane == 0) part[warp] = x;
    __syncthreads();
    return warp_max(lane < warps ? part[lane] : part[0]);
}

// The group of row r: the last whose rows begin at or before it and that has any. offset (G+1); NULL: 0.
static __device__ inline int group_of(const int32_t *offset, int64_t G, int64_t r)
{
    if (!offset) return 0;
    int64_t low = 0, high = G; // offset[low] <= r < offset[high]
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        if (offset[middle] <= r) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return (int)low;
}

// V elements at once, as float: one or two accesses of 16 bytes where V = WIDE. Kernels have V as a parameter:
// WIDE where rows and pointers allow (wide_rows), else 1.
constexpr int WIDE = 8;
template <typename T, int V> struct alignas(V * sizeof(T) < 16 ? V * sizeof(T) : 16) many {
    T value[V];
};

template <int V, typename T>
static __device__ __forceinline__ void load_many(float (&out)[V], const T *from)
{
    const many<T, V> m = *reinterpret_cast<const many<T, V> *>(from);
    for (int i = 0; i < V; i++) {
        out[i] = to_float(m.value[i]);
    }
}

template <int V, typename T>
static __device__ __forceinline__ void store_many(T *to, const float (&x)[V])
{
    many<T, V> m;
    for (int i = 0; i < V; i++) {
        m.value[i] = from_float<T>(x[i]);
    }
    *reinterpret_cast<many<T, V> *>(to) = m;
}

// May rows of C elements of these arrays be accessed WIDE at a time? NULL counts as aligned.
template <typename... P> static inline bool wide_rows(int64_t C, const P *...p)
{
    return C % WIDE == 0 && ((reinterpret_cast<uintptr_t>(p) % 16 == 0) && ...);
}

// f(width<V>) with V = WIDE or 1: with_width(wide, [&](auto v) { constexpr int V = decltype(v)::value; ... });
template <int V> struct width {
    enum { value = V };
};
template <typename F> void with_width(bool wide, F f)
{
    if (wide) {
        f(width<WIDE>{});
    } else {
        f(width<1>{});
    }
}

// Threads of a block that walks `items`: whole warps, at most THREADS.
static inline unsigned cuda_threads(int64_t items)
{
    const int64_t whole = (items + WARP - 1) / WARP * WARP;
    return (unsigned)(whole < WARP ? WARP : whole < THREADS ? whole : THREADS);
}

// ---- the functions behind the table, as ops.h describes them

extern "C" {
// memory.cu
bool cuda_check(struct error *err);
size_t cuda_free_bytes(void);
size_t cuda_peak_bytes(void);
void cuda_import(struct tensor y, struct tensor host);
void *cuda_allocate(size_t bytes);
void cuda_release(void *p, size_t bytes);
void *cuda_allocate_host(size_t bytes);
void cuda_release_host(void *p, size_t bytes);
void cuda_upload(void *dst, const void *src, size_t bytes);
void cuda_download(void *dst, const void *src, size_t bytes);
void cuda_zero(struct tensor x);
void cuda_convert(struct tensor y, struct tensor x);
// elementwise.cu
void cuda_add(struct tensor y, struct tensor a, struct tensor b);
void cuda_bias_forward(struct tensor y, struct tensor b);
void cuda_bias_backward(struct tensor db, struct tensor dy);
void cuda_clamp_forward(struct tensor y, float limit);
void cuda_clamp_backward(struct tensor dy, struct tensor y, float limit);
void cuda_scale(struct tensor x, float a);
void cuda_sum(struct tensor out, struct tensor x);
void cuda_sum_squares(struct tensor out, struct tensor x);
// embedding.cu
void cuda_embedding_forward(struct tensor y, struct tensor table, struct tensor ids);
void cuda_embedding_backward(struct tensor dtable, struct tensor dy, struct tensor ids);
// rmsnorm.cu
void cuda_rmsnorm_forward(struct tensor y, struct tensor rstd, struct tensor x, struct tensor w,
                          float eps);
void cuda_rmsnorm_backward(struct tensor dx, struct tensor dw, struct tensor dy, struct tensor x,
                           struct tensor w, struct tensor rstd);
// rope.cu
void cuda_rope(struct tensor x, struct tensor positions, struct tensor table, int64_t head_dim,
               bool inverse);
// attention.cu, attention_backward.cu
void cuda_attention_forward(struct tensor o, struct tensor lse, struct tensor q, struct tensor k,
                            struct tensor v, struct tensor span, int64_t head_dim, float scale);
void cuda_attention_backward(const struct attention_grads *d, const struct attention_saved *s,
                             struct tensor span, int64_t head_dim, float scale);
// matmul.cu
void cuda_matmul_forward(struct tensor y, struct tensor x, const struct matrices *w,
                         struct tensor offsets, bool accumulate);
void cuda_matmul_dinput(struct tensor dx, struct tensor dy, const struct matrices *w,
                        struct tensor offsets, bool accumulate);
void cuda_matmul_dweight(const struct matrices *dw, struct tensor dy, struct tensor x,
                         struct tensor offsets);
// blocks.cu, block_scores.cu
void cuda_blocks_forward(struct tensor y, struct tensor x, struct tensor delta,
                         const struct matrix_blocks *b, struct tensor offsets);
void cuda_blocks_dinput(struct tensor dx, struct tensor dy, struct tensor delta,
                        const struct matrix_blocks *b, struct tensor offsets);
void cuda_blocks_dweight(struct tensor dvalue, struct tensor dy, struct tensor x,
                         const struct matrix_blocks *b, struct tensor offsets);
void cuda_blocks_delta(struct tensor delta, struct tensor value, const struct matrices *w,
                       const struct matrix_blocks *b);
void cuda_block_scores(struct tensor sums, struct tensor dy, struct tensor x, struct tensor offsets,
                       int64_t size, enum block_sum kind);
void cuda_column_scores(struct tensor sums, struct tensor x, struct tensor offsets,
                        enum block_sum kind, bool mean);
void cuda_matrices_multiply(struct tensor y, const struct matrices *w, const struct matrices *a);
// low_rank.cu
void cuda_dropout(struct tensor y, struct tensor x, const struct dropout *d, bool accumulate);
void cuda_dropped_forward(struct tensor u, struct tensor y, struct tensor x,
                          const struct matrices *w, const struct dropout *d);
void cuda_dropped_dinput(struct tensor dx, struct tensor dy, const struct matrices *w,
                         const struct dropout *d);
void cuda_scale_columns(struct tensor y, struct tensor x, struct tensor c, struct tensor offsets,
                        bool accumulate);
void cuda_dot_columns(struct tensor d, struct tensor a, struct tensor x, struct tensor y,
                      struct tensor offsets);
void cuda_row_squares(struct tensor s, const struct matrices *w);
void cuda_magnitude_scale(const struct magnitude_scale *out, const struct magnitude_norm *in);
// router.cu
void cuda_softmax_forward(struct tensor p, struct tensor z);
void cuda_softmax_backward(struct tensor dz, struct tensor dp, struct tensor p);
void cuda_topk(struct tensor index, struct tensor key);
void cuda_pick_forward(struct tensor w, struct tensor p, struct tensor index);
void cuda_pick_backward(struct tensor dp, struct tensor dw, struct tensor index);
void cuda_normalize_forward(struct tensor y, struct tensor sum, struct tensor x);
void cuda_normalize_backward(struct tensor dx, struct tensor dy, struct tensor y,
                             struct tensor sum);
void cuda_sigmoid_forward(struct tensor y, struct tensor x);
void cuda_sigmoid_backward(struct tensor dx, struct tensor dy, struct tensor y);
// policy.cu
void cuda_place_columns(struct tensor y, struct tensor x, int64_t first);
void cuda_take_columns(struct tensor y, struct tensor x, int64_t first);
void cuda_repeat_row(struct tensor y, struct tensor row);
void cuda_fill(struct tensor y, float value);
void cuda_put(struct tensor y, struct tensor index, float value);
void cuda_logsumexp(struct tensor lse, struct tensor z);
void cuda_add_scaled_rows(struct tensor y, struct tensor x, struct tensor s, float a);
void cuda_count_slots(struct tensor count, struct tensor index);
void cuda_add_slots(struct tensor sum, struct tensor index, struct tensor weight);
void cuda_count_changed(struct tensor changed, struct tensor all, struct tensor index,
                        struct tensor plain);
void cuda_count_rows(struct tensor count, struct tensor offsets);
void cuda_dot(struct tensor out, struct tensor x, struct tensor y, double a);
void cuda_sign_step(struct tensor b, struct tensor u, float rate, float limit);
void cuda_normalize_backward_through(struct tensor dp, struct tensor dw, struct tensor w,
                                     struct tensor sum);
// dispatch.cu
void cuda_dispatch(const struct dispatch *d, struct tensor expert, struct tensor weight, bool zeros,
                   int64_t first);
void cuda_gather_tokens(struct tensor y, struct tensor x, const struct dispatch *d);
void cuda_combine_slots(struct tensor y, struct tensor ys, const struct dispatch *d,
                        bool accumulate);
void cuda_gather_rows(struct tensor y, struct tensor x, struct tensor index);
void cuda_scatter_rows(struct tensor x, struct tensor y, struct tensor index);
void cuda_place_rows(struct tensor x, struct tensor y, struct tensor index);
// swiglu.cu
void cuda_swiglu_forward(struct tensor a, struct tensor g, struct tensor u, struct tensor weight,
                         const struct dispatch *d);
void cuda_swiglu_backward(const struct swiglu_grads *out, struct tensor da, struct tensor g,
                          struct tensor u, struct tensor weight, const struct dispatch *d);
void cuda_swiglu_dot(struct tensor dweight, struct tensor da, struct tensor g, struct tensor u,
                     const struct dispatch *d);
// expert.cu
void cuda_expert_up(const struct expert_hidden *out, struct tensor x, const struct matrices *gate,
                    const struct matrices *up, struct tensor weight, const struct dispatch *d);
void cuda_expert_dhidden(const struct swiglu_grads *out, struct tensor dy,
                         const struct matrices *down, struct tensor g, struct tensor u,
                         struct tensor weight, const struct dispatch *d);
void cuda_expert_dweight(const struct matrices *dw, struct tensor dy, struct tensor x,
                         const struct dispatch *d, bool dy_is_tokens); // matmul.cu
// cross_entropy.cu
void cuda_cross_entropy(struct tensor loss, struct tensor logits, struct tensor targets,
                        float scale);
// adamw.cu, sums.cu
void cuda_grad_squares(struct tensor out, const struct leaf_list *l);
void cuda_clip_scale(struct tensor scale, struct tensor squares, struct tensor loss, double clip);
void cuda_adamw(const struct leaf_list *l, const struct adamw *p, struct tensor scale,
                uint64_t seed, uint64_t update);
}
