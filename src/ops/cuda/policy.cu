// ops/cuda/policy.cu - the small operations that routing policies are made of besides router.cu: columns of a
// route, statistics of the router, the step of a bias.
#include "ops/cuda/cuda.h"

#define EACH(i, count)                                                                             \
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < (count);                  \
         i += (int64_t)gridDim.x * blockDim.x)

// F32 and I32 alike: four bytes each. (N,k) elements between columns [to, to + k) of rows of Y and columns
// [from, from + k) of rows of X; X 0: one row for all.
static __global__ void copy_columns(uint32_t *y, const uint32_t *x, int64_t N, int64_t k, int64_t Y,
                                    int64_t to, int64_t X, int64_t from)
{
    EACH(i, N * k)
    {
        y[i / k * Y + to + i % k] = x[i / k * X + from + i % k];
    }
}

void cuda_place_columns(struct tensor y, struct tensor x, int64_t first)
{
    const int64_t N = x.dim[0], k = x.dim[1];
    assert(y.dim[0] == N && first >= 0 && first + k <= y.dim[1] && y.dtype == x.dtype);
    LAUNCH(copy_columns, cuda_grid(N * k, THREADS), THREADS, 0, data<uint32_t>(y),
           data<uint32_t>(x), N, k, y.dim[1], first, k, (int64_t)0);
}

void cuda_take_columns(struct tensor y, struct tensor x, int64_t first)
{
    const int64_t N = y.dim[0], k = y.dim[1];
    assert(x.dim[0] == N && first >= 0 && first + k <= x.dim[1] && y.dtype == x.dtype);
    LAUNCH(copy_columns, cuda_grid(N * k, THREADS), THREADS, 0, data<uint32_t>(y),
           data<uint32_t>(x), N, k, k, (int64_t)0, x.dim[1], first);
}

void cuda_repeat_row(struct tensor y, struct tensor row)
{
    const int64_t N = y.dim[0], k = y.dim[1];
    assert(tensor_count(row) == k && y.dtype == row.dtype);
    LAUNCH(copy_columns, cuda_grid(N * k, THREADS), THREADS, 0, data<uint32_t>(y),
           data<uint32_t>(row), N, k, k, (int64_t)0, (int64_t)0, (int64_t)0);
}

static __global__ void put(float *y, const int32_t *index, float value, int64_t N, int64_t k,
                           int64_t E)
{
    EACH(i, N * k)
    {
        y[i / k * E + index[i]] = value;
    }
}

void cuda_put(struct tensor y, struct tensor index, float value)
{
    const int64_t N = index.dim[0], k = index.dim[1];
    LAUNCH(put, cuda_grid(N * k, THREADS), THREADS, 0, data<float>(y), data<int32_t>(index), value,
           N, k, y.dim[1]);
}

// ---- counts: integers, so the order of additions does not matter

static __global__ void count_in_bins(int32_t *bins, const int32_t *index, int64_t slots)
{
    EACH(i, slots)
    {
        atomicAdd(&bins[index[i]], 1);
    }
}

static __global__ void add_bins(float *count, const int32_t *bins, int64_t E)
{
    EACH(e, E)
    {
        count[e] += (float)bins[e];
    }
}

void cuda_count_slots(struct tensor count, struct tensor index)
{
    const int64_t slots = tensor_count(index), E = tensor_count(count);
    int32_t *bins = (int32_t *)cuda_scratch(CUDA_SCRATCH_A, (size_t)E * sizeof *bins);
    if (!bins) return;
    cuda_zero(tensor_1d(bins, DTYPE_I32, E));
    LAUNCH(count_in_bins, cuda_grid(slots, THREADS), THREADS, 0, bins, data<int32_t>(index), slots);
    LAUNCH(add_bins, cuda_grid(E, THREADS), THREADS, 0, data<float>(count), bins, E);
}

static __global__ void count_rows(float *count, const int32_t *offset, int64_t E)
{
    EACH(e, E)
    {
        count[e] += (float)(offset[e + 1] - offset[e]);
    }
}

void cuda_count_rows(struct tensor count, struct tensor offsets)
{
    const int64_t E = tensor_count(count);
    LAUNCH(count_rows, cuda_grid(E, THREADS), THREADS, 0, data<float>(count),
           data<int32_t>(offsets), E);
}

static __global__ void count_changed(unsigned long long *total, const int32_t *index,
                                     const int32_t *plain, int64_t N, int64_t S, int64_t K)
{
    unsigned long long mine = 0;
    EACH(i, N * S)
    {
        const int32_t *set = plain + i / S * K;
        bool among = false;
        for (int64_t k = 0; k < K; k++) {
            among = among || set[k] == index[i];
        }
        mine += !among;
    }
    mine = block_sum(mine);
    if (threadIdx.x == 0) atomicAdd(total, mine);
}

static __global__ void add_changed(double *changed, double *all, const unsigned long long *total,
                                   int64_t slots)
{
    *changed += (double)*total;
    *all += (double)slots;
}

void cuda_count_changed(struct tensor changed, struct tensor all, struct tensor index,
                        struct tensor plain)
{
    const int64_t N = index.dim[0], S = index.dim[1];
    auto *total = (unsigned long long *)cuda_scratch(CUDA_SCRATCH_A, sizeof(unsigned long long));
    if (!total) return;
    cuda_zero(tensor_1d(total, DTYPE_I64, 1));
    LAUNCH(count_changed, cuda_grid(N * S, THREADS), THREADS, 0, total, data<int32_t>(index),
           data<int32_t>(plain), N, S, plain.dim[1]);
    LAUNCH(add_changed, 1, 1, 0, data<double>(changed), data<double>(all), total, N * S);
}

// ---- sums by expert, in the order of slots: a block takes a part of them, a thread an expert

constexpr int SLOTS_OF_PART = 1024;

static __global__ void add_slots_parts(double *part, const int32_t *index, const float *weight,
                                       int64_t slots, int64_t E, int64_t parts)
{
    __shared__ int32_t expert[SLOTS_OF_PART];
    __shared__ float share[SLOTS_OF_PART];
    const int64_t first = (int64_t)blockIdx.x * SLOTS_OF_PART;
    const int n = (int)(slots - first < SLOTS_OF_PART ? slots - first : SLOTS_OF_PART);
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) {
        expert[i] = index[first + i];
        share[i] = weight ? weight[first + i] : 1.0f;
    }
    __syncthreads();
    for (int64_t e = threadIdx.x; e < E; e += blockDim.x) {
        double sum = 0;
        for (int i = 0; i < n; i++) {
            if (expert[i] == e) sum += (double)share[i];
        }
        part[e * parts + blockIdx.x] = sum;
    }
}

static __global__ void add_slots_finish(double *sum, const double *part, int64_t parts)
{
    double total = 0;
    for (int64_t i = threadIdx.x; i < parts; i += blockDim.x) {
        total += part[(int64_t)blockIdx.x * parts + i];
    }
    total = block_sum(total);
    if (threadIdx.x == 0) sum[blockIdx.x] += total;
}

void cuda_add_slots(struct tensor sum, struct tensor index, struct tensor weight)
{
    const int64_t slots = tensor_count(index), E = tensor_count(sum);
    const int64_t parts = ceil_div(slots, SLOTS_OF_PART);
    assert(!weight.data || tensor_count(weight) == slots);
    double *part = (double *)cuda_scratch(CUDA_SCRATCH_A, (size_t)(E * parts) * sizeof *part);
    if (!part || !parts) return;
    LAUNCH(add_slots_parts, (unsigned)parts, cuda_threads(E), 0, part, data<int32_t>(index),
           data<float>(weight), slots, E, parts);
    LAUNCH(add_slots_finish, (unsigned)E, THREADS, 0, data<double>(sum), part, parts);
}

// One block.
static __global__ void sign_step(float *b, const float *u, float rate, float limit, int64_t E)
{
    double mean = 0;
    for (int64_t e = threadIdx.x; e < E; e += blockDim.x) {
        mean += (double)u[e];
    }
    mean = block_sum(mean) / (double)E;
    for (int64_t e = threadIdx.x; e < E; e += blockDim.x) {
        const double over = (double)u[e] - mean;
        b[e] += rate * (float)((over > 0) - (over < 0));
        if (limit > 0) b[e] = fminf(fmaxf(b[e], -limit), limit);
    }
}

void cuda_sign_step(struct tensor b, struct tensor u, float rate, float limit)
{
    LAUNCH(sign_step, 1, THREADS, 0, data<float>(b), data<float>(u), rate, limit, tensor_count(b));
}
