// ops/cuda/columns.cuh - sums down the columns of rows that lie in groups. The rows of a group are cut in
// parts that depend on shapes only; a block sums a strip of columns over a part, 64 rows at a time in float
// and those in double; then each column's parts are added up in order.
#pragma once
#include "ops/cuda/cuda.h"

constexpr int64_t ROWS_IN_FLOAT = 64, MOST_PARTS = 1024, SPREAD = 512;

// Rows [*begin, *end) of part p of group g.
static __device__ inline void rows_of_part(const int32_t *offset, int64_t R, int64_t g, int64_t p,
                                           int64_t parts, int64_t *begin, int64_t *end)
{
    const int64_t first = offset ? offset[g] : 0, last = offset ? offset[g + 1] : R;
    const int64_t size = ceil_div(ceil_div(last - first, parts), ROWS_IN_FLOAT) * ROWS_IN_FLOAT;
    *begin = first + p * size < last ? first + p * size : last;
    *end = *begin + size < last ? *begin + size : last;
}

template <typename F>
static __global__ void column_parts(double *part, F value, const int32_t *offset, int64_t R, int64_t C,
                                    int64_t parts)
{
    const int64_t c = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    int64_t begin, end;
    rows_of_part(offset, R, blockIdx.y, blockIdx.z, parts, &begin, &end);
    if (c >= C) return;
    double total = 0;
    for (int64_t r = begin; r < end; r += ROWS_IN_FLOAT) {
        const int64_t stop = r + ROWS_IN_FLOAT < end ? r + ROWS_IN_FLOAT : end;
        typename F::type sum = 0;
#pragma unroll 8
        for (int64_t i = r; i < stop; i++) {
            sum += value(i, c);
        }
        total += (double)sum;
    }
    part[((int64_t)blockIdx.y * parts + blockIdx.z) * C + c] = total;
}

template <typename F>
static __global__ void column_finish(F finish, const double *part, const int32_t *offset, int64_t R,
                                     int64_t C, int64_t parts)
{
    const int64_t c = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, g = blockIdx.y;
    if (c >= C) return;
    double total = 0;
#pragma unroll 8
    for (int64_t p = 0; p < parts; p++) {
        total += part[(g * parts + p) * C + c];
    }
    finish(g, c, total, offset ? offset[g + 1] - offset[g] : R);
}

// finish(g, c, sum over the rows of g of value(row, c), number of those rows) for all g < G, c < C. offsets
// (G+1) or absent. F::type is the type in which 64 rows are summed.
template <typename F, typename G>
static void column_sums(F value, G finish, struct tensor offsets, int64_t groups, int64_t R, int64_t C)
{
    const int64_t spread = groups < SPREAD ? SPREAD / groups : 1, most = ceil_div(R, ROWS_IN_FLOAT);
    int64_t parts = offsets.data ? spread : MOST_PARTS;
    parts = parts < most ? parts : most ? most : 1;
    const unsigned threads = cuda_threads(C), strips = (unsigned)ceil_div(C, threads);
    double *part = (double *)cuda_scratch(CUDA_SCRATCH_A, (size_t)(groups * parts * C) * sizeof(double));
    if (!part) return;
    const int32_t *offset = data<int32_t>(offsets);
    LAUNCH((column_parts<F>), dim3(strips, (unsigned)groups, (unsigned)parts), threads, 0, part, value,
           offset, R, C, parts);
    LAUNCH((column_finish<G>), dim3(strips, (unsigned)groups), threads, 0, finish, part, offset, R, C,
           parts);
}
