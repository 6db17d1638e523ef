// ops/cuda/wgmma.cuh - products of a warpgroup (sm_90a): d (64, N) += a (64, 16) b (16, N), BF16 with F32
// sums, both operands in shared memory, which a descriptor describes. Lane l of warp w of the four holds
// rows 16 w + l / 4 and 8 below, of columns 8 j + 2 (l % 4) and the next: d[4 j], d[4 j + 1] above and
// d[4 j + 2], d[4 j + 3] below.
#pragma once
#include "ops/cuda/mma.cuh"

enum { WGMMA_K_MAJOR = 0, WGMMA_MN_MAJOR = 1 };

// Operands in slabs of 64 elements (128 bytes), swizzled as tile.cuh lays them out, which begin at multiples
// of 1024 bytes. K-major: a row is an m or n, rows follow each other. MN-major: a row is a k, and the next
// 64 of m or n lie `slab` bytes further. The two strides of the ISA: of 8 rows, and of a slab.
static __device__ __forceinline__ uint64_t wgmma_operand(uint32_t address, uint32_t slab)
{
    const uint64_t swizzle_128 = 1, eight_rows = 1024;
    return (uint64_t)((address & 0x3FFFF) >> 4) | (uint64_t)((slab & 0x3FFFF) >> 4) << 16 |
           (eight_rows >> 4) << 32 | swizzle_128 << 62;
}

#ifdef CUDA_EMULATED
// Element (r, k) of an operand, r along m or n.
static inline float wgmma_element(uint64_t operand, int mn_major, int r, int k)
{
    const uint32_t start = (uint32_t)(operand & 0x3FFF) << 4;
    const uint32_t leading = (uint32_t)(operand >> 16 & 0x3FFF) << 4;
    const uint32_t stride = (uint32_t)(operand >> 32 & 0x3FFF) << 4;
    EMULATED_CHECK(operand >> 62 == 1 && (operand >> 49 & 7) == 0); // 128 bytes, no base offset
    const int at = mn_major ? r % 64 * 2 + r / 64 * (int)leading + k % 8 * 128 + k / 8 * (int)stride
                            : r % 8 * 128 + r / 8 * (int)stride + k * 2;
    const uint32_t address = start + (uint32_t)at, swizzled = address ^ (address >> 7 & 7) << 4;
    uint16_t bits;
    memcpy(&bits, emulated_at(swizzled, 2), 2);
    return emulated_half(bits, 0);
}

// Each thread computes what it holds: nothing has to be exchanged.
template <int A_MAJOR, int B_MAJOR, int HELD>
static inline void wgmma(float (&d)[HELD], uint64_t a, uint64_t b)
{
    float *held = d;
    const int thread = emulated_thread() % 128;
    emulated_begin(emulated_products(), [=]() {
        const int row = thread / 32 * 16 + thread % 32 / 4;
        float above[16], below[16];
        for (int k = 0; k < 16; k++) {
            above[k] = wgmma_element(a, A_MAJOR, row, k);
            below[k] = wgmma_element(a, A_MAJOR, row + 8, k);
        }
        for (int i = 0; i < HELD / 2; i++) {
            const int column = i / 2 * 8 + thread % 4 * 2 + i % 2, at = i / 2 * 4 + i % 2;
            for (int k = 0; k < 16; k++) {
                const float v = wgmma_element(b, B_MAJOR, column, k);
                held[at] += above[k] * v;
                held[at + 2] += below[k] * v;
            }
        }
    });
}

static inline void wgmma_fence()
{
}

static inline void wgmma_commit()
{
    emulated_commit(emulated_products());
}

template <int N> static inline void wgmma_wait()
{
    emulated_wait(emulated_products(), N);
}

static inline void fence_before_wgmma()
{
}

template <int N> static inline void lower_registers()
{
}

template <int N> static inline void raise_registers()
{
}

template <int HELD> static inline void wgmma_pin(float (&)[HELD])
{
}
#else

// Before the first product that reads or writes registers that other instructions have touched.
static __device__ __forceinline__ void wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ __forceinline__ void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Until at most N of the latest groups are under way.
template <int N> static __device__ __forceinline__ void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

// What the thread has written to shared memory is seen by products that come after a barrier.
static __device__ __forceinline__ void fence_before_wgmma()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// A warpgroup gives registers back, or takes what others gave.
template <int N> static __device__ __forceinline__ void lower_registers()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

template <int N> static __device__ __forceinline__ void raise_registers()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

// Holds the compiler from moving reads or writes of sums across the products under way.
template <int HELD> static __device__ __forceinline__ void wgmma_pin(float (&d)[HELD])
{
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        asm volatile("" : "+f"(d[i])::"memory");
    }
}

template <int A_MAJOR, int B_MAJOR>
static __device__ __forceinline__ void wgmma(float (&d)[128], uint64_t a, uint64_t b)
{
    asm volatile(
        "{\n.reg .pred add;\nsetp.eq.u32 add, 1, 1;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, "
        "%111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, "
        "%127"
        "}, %128, %129, add, 1, 1, %130, %131;\n}"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
          "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
          "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
          "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
          "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]),
          "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
          "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),
          "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
          "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]),
          "+f"(d[63]), "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]),
          "+f"(d[70]), "+f"(d[71]), "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]),
          "+f"(d[77]), "+f"(d[78]), "+f"(d[79]), "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]),
          "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87]), "+f"(d[88]), "+f"(d[89]), "+f"(d[90]),
          "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95]), "+f"(d[96]), "+f"(d[97]),
          "+f"(d[98]), "+f"(d[99]), "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), "+f"(d[103]),
          "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107]), "+f"(d[108]), "+f"(d[109]),
          "+f"(d[110]), "+f"(d[111]), "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115]),
          "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119]), "+f"(d[120]), "+f"(d[121]),
          "+f"(d[122]), "+f"(d[123]), "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])
        : "l"(a), "l"(b), "n"(A_MAJOR), "n"(B_MAJOR));
}

template <int A_MAJOR, int B_MAJOR>
static __device__ __forceinline__ void wgmma(float (&d)[64], uint64_t a, uint64_t b)
{
    asm volatile("{\n.reg .pred add;\nsetp.eq.u32 add, 1, 1;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
                 "}, %64, %65, add, 1, 1, %66, %67;\n}"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]),
                   "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),
                   "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]),
                   "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
                   "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),
                   "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]),
                   "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
                   "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
                   "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]),
                   "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]),
                   "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
                 : "l"(a), "l"(b), "n"(A_MAJOR), "n"(B_MAJOR));
}

#endif
