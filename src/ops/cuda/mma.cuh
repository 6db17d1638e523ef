// ops/cuda/mma.cuh - the instructions that the matrix kernels are made of, each an inline function:
// asynchronous copies, loads of fragments, products of a warp (mma.sync, sm_80 on) and of four warps
// (wgmma, sm_90a), barriers in shared memory. Layouts are those of the PTX ISA. Shared memory is
// addressed by its 32-bit address. Under CUDA_EMULATED the same functions are plain C++ (mma_emulated.cuh).
#pragma once
#include "ops/cuda/cuda.h"

#include <stdint.h>

#ifdef CUDA_EMULATED
#define NEVER_INLINE
#include "ops/cuda/mma_emulated.cuh"
#else
#define NEVER_INLINE __noinline__

static __device__ __forceinline__ float float_of_bits(uint32_t bits)
{
    return __uint_as_float(bits);
}

static __device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

static __device__ __forceinline__ void store_shared(uint32_t to, uint4 v)
{
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z),
                 "r"(v.w)
                 : "memory");
}

// 16 bytes from global to shared memory, both aligned; those beyond `bytes` become 0.
static __device__ __forceinline__ void copy_async(uint32_t to, const void *from, uint32_t bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
                 : "memory");
}

static __device__ __forceinline__ void copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Until at most N of the thread's latest groups are under way.
template <int N> static __device__ __forceinline__ void copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// Four 8x8 matrices of 16 bits; lane l names row l % 8 of matrix l / 8 and receives, of each matrix, elements
// 2 (l % 4) and the next of row l / 4. Transposed: of column l / 4.
static __device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}

static __device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], uint32_t row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}

// d (16,8) += a (16,16) b (16,8), BF16 with F32 sums. With i = lane / 4 and j = 2 (lane % 4) a lane holds
//   d: (i, j) (i, j+1) (i+8, j) (i+8, j+1)
//   a: pairs from (i, j), (i+8, j), (i, j+8), (i+8, j+8);   b: pairs down column i from row j, j+8
static __device__ __forceinline__ void multiply_bf16(float (&d)[4], const uint32_t (&a)[4],
                                                     uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Barriers in shared memory (8 bytes each): `count` arrivals complete a phase; waiting for parity p waits
// until the phase of that parity (the first has 0) is complete.
static __device__ __forceinline__ void barrier_init(uint32_t barrier, uint32_t count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

static __device__ __forceinline__ void barrier_arrive(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

static __device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra finished;\n"
                 "bra again;\n"
                 "finished:\n"
                 "}" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}
#endif
