// ops/cuda/sums.cu - sums over whole arrays, in double. The array is cut in parts that depend on its length
// only; a block sums a part, one more block adds the parts up.
#include "ops/cuda/adamw.cuh"

constexpr int64_t PARTS = 1024, LEAST = 16 * THREADS;

struct just_sum {
    const float *x;
    __device__ double operator()(int64_t i) const
    {
        return (double)x[i];
    }
};
template <typename T> struct square_sum {
    const T *x;
    __device__ double operator()(int64_t i) const
    {
        const double value = (double)to_float(x[i]);
        return value * value;
    }
};
struct product_sum {
    const float *x, *y;
    __device__ double operator()(int64_t i) const
    {
        return (double)x[i] * (double)y[i];
    }
};

template <typename F>
static __global__ void sum_parts(double *part, F value, int64_t count, int64_t size)
{
    const int64_t first = blockIdx.x * size, end = first + size < count ? first + size : count;
    double sum[4] = {0, 0, 0, 0}; // additions that do not wait for each other
    int64_t i = first + threadIdx.x;
    for (; i + 3 * THREADS < end; i += 4 * THREADS) {
        for (int k = 0; k < 4; k++) {
            sum[k] += value(i + k * THREADS);
        }
    }
    for (; i < end; i += THREADS) {
        sum[0] += value(i);
    }
    const double total = block_sum(sum[0] + sum[1] + (sum[2] + sum[3]));
    if (threadIdx.x == 0) part[blockIdx.x] = total;
}

static __global__ void add_parts(double *out, const double *part, int parts, double a)
{
    double sum = 0;
    for (int i = (int)threadIdx.x; i < parts; i += THREADS) {
        sum += part[i];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) *out += a * sum;
}

template <typename F> static void add_sum(struct tensor out, int64_t count, F value, double a)
{
    assert(out.dtype == DTYPE_F64);
    const int64_t even = ceil_div(count, PARTS), size = even > LEAST ? even : LEAST;
    const int64_t parts = ceil_div(count, size);
    double *part = (double *)cuda_scratch(CUDA_SCRATCH_A, PARTS * sizeof(double));
    if (!part || !parts) return;
    LAUNCH(sum_parts<F>, (unsigned)parts, THREADS, 0, part, value, count, size);
    LAUNCH(add_parts, 1, THREADS, 0, data<double>(out), part, (int)parts, a);
}

void cuda_sum(struct tensor out, struct tensor x)
{
    assert(x.dtype == DTYPE_F32);
    add_sum(out, tensor_count(x), just_sum{data<float>(x)}, 1.0);
}

void cuda_sum_squares(struct tensor out, struct tensor x)
{
    with_activation(x.dtype, [&](auto zero) {
        using T = decltype(zero);
        add_sum(out, tensor_count(x), square_sum<T>{data<T>(x)}, 1.0);
    });
}

void cuda_dot(struct tensor out, struct tensor x, struct tensor y, double a)
{
    add_sum(out, tensor_count(x), product_sum{data<float>(x), data<float>(y)}, a);
}

// Of the leaves' gradients: each block takes `size` chunks that follow each other.
static __global__ void leaf_parts(double *part, leaf_rows l, int64_t size)
{
    const int64_t first = blockIdx.x * size,
                  end = first + size < l.chunks ? first + size : l.chunks;
    double sum[4] = {0, 0, 0, 0};
    for (int64_t c = first; c < end; c++) {
        const leaf_chunk of = chunk_of(l, c);
        const square_sum<float> value = {(const float *)of.leaf->grad.data};
        int64_t i = of.first + threadIdx.x;
        for (; i + 3 * THREADS < of.end; i += 4 * THREADS) {
            for (int k = 0; k < 4; k++) {
                sum[k] += value(i + k * THREADS);
            }
        }
        for (; i < of.end; i += THREADS) {
            sum[0] += value(i);
        }
    }
    const double total = block_sum(sum[0] + sum[1] + (sum[2] + sum[3]));
    if (threadIdx.x == 0) part[blockIdx.x] = total;
}

void cuda_grad_squares(struct tensor out, const struct leaf_list *l)
{
    const int64_t even = ceil_div(l->chunks, PARTS), size = even ? even : 1;
    const int64_t parts = ceil_div(l->chunks, size);
    double *part = (double *)cuda_scratch(CUDA_SCRATCH_A, PARTS * sizeof(double));
    if (!part || !parts) return;
    const leaf_rows rows = {l->leaf, l->count, l->chunks};
    LAUNCH(leaf_parts, (unsigned)parts, THREADS, 0, part, rows, size);
    LAUNCH(add_parts, 1, THREADS, 0, data<double>(out), part, (int)parts, 1.0);
}
