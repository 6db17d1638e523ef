// ops/cuda/columns.cu - ops that sum down columns: biases, and what adapters and choices of columns need.
#include "ops/cuda/columns.cuh"

struct add_to_f32 { // out (G,C) += the sum
    float *out;
    int64_t C;
    __device__ void operator()(int64_t g, int64_t c, double sum, int64_t) const
    {
        out[g * C + c] += (float)sum;
    }
};

template <typename T> struct element {
    typedef float type;
    const T *x;
    int64_t C;
    __device__ float operator()(int64_t r, int64_t c) const
    {
        return to_float(x[r * C + c]);
    }
};

void cuda_bias_backward(struct tensor db, struct tensor dy)
{
    const int64_t N = dy.dim[0], C = dy.dim[1];
    assert(tensor_count(db) == C);
    with_activation(dy.dtype, [&](auto zero) {
        using T = decltype(zero);
        column_sums(element<T>{data<T>(dy), C}, add_to_f32{data<float>(db), C}, tensor_absent(), 1,
                    N, C);
    });
}

template <typename T, typename U> struct product_of {
    typedef float type;
    const T *x;
    const U *y;
    int64_t C;
    __device__ float operator()(int64_t r, int64_t c) const
    {
        return to_float(x[r * C + c]) * to_float(y[r * C + c]);
    }
};
struct add_scaled { // d (G,C) += a * the sum
    float *d;
    const float *a;
    int64_t C;
    __device__ void operator()(int64_t g, int64_t c, double sum, int64_t) const
    {
        d[g * C + c] += (float)((double)a[g * C + c] * sum);
    }
};

void cuda_dot_columns(struct tensor d, struct tensor a, struct tensor x, struct tensor y,
                      struct tensor offsets)
{
    const int64_t C = x.dim[1], G = d.dim[0];
    assert(y.dim[1] == C && d.dim[1] == C && a.dim[0] == G && a.dim[1] == C);
    assert(offsets.data ? tensor_count(offsets) == G + 1 : G == 1);
    with_activation(x.dtype, [&](auto zero) {
        using T = decltype(zero);
        with_activation(y.dtype, [&](auto other) {
            using U = decltype(other);
            column_sums(product_of<T, U>{data<T>(x), data<U>(y), C},
                        add_scaled{data<float>(d), data<float>(a), C}, offsets, G, x.dim[0], C);
        });
    });
}

template <typename T> struct score_of {
    typedef double type;
    const T *x;
    int64_t C;
    enum block_sum kind;
    __device__ double operator()(int64_t r, int64_t c) const
    {
        const double v = (double)to_float(x[r * C + c]);
        return kind == BLOCK_SUM ? v : kind == BLOCK_SUM_ABS ? fabs(v) : v * v;
    }
};
struct add_score { // sums (G,C) += the sum, divided by the number of rows if mean
    double *sums;
    int64_t C;
    bool mean;
    __device__ void operator()(int64_t g, int64_t c, double sum, int64_t rows) const
    {
        if (rows > 0) sums[g * C + c] += mean ? sum / (double)rows : sum;
    }
};

void cuda_column_scores(struct tensor sums, struct tensor x, struct tensor offsets,
                        enum block_sum kind, bool mean)
{
    const int64_t C = x.dim[1];
    assert(sums.dtype == DTYPE_F64 && sums.dim[1] == C);
    with_activation(x.dtype, [&](auto zero) {
        using T = decltype(zero);
        column_sums(score_of<T>{data<T>(x), C, kind}, add_score{data<double>(sums), C, mean},
                    offsets, sums.dim[0], x.dim[0], C);
    });
}
