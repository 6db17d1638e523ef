// base/tensor.c - see tensor.h.
#include "base/tensor.h"

#include <assert.h>

struct tensor tensor_make(void *data, enum dtype t, int rank, const int64_t *dim)
{
    assert(rank >= 0 && rank <= TENSOR_MAX_RANK);
    struct tensor x = {.data = data, .dtype = t, .rank = rank, .dim = {1, 1, 1, 1}};
    for (int i = 0; i < rank; i++) {
        x.dim[i] = dim[i];
    }
    return x;
}

struct tensor tensor_1d(void *data, enum dtype t, int64_t n)
{
    return tensor_make(data, t, 1, (const int64_t[]){n});
}

struct tensor tensor_2d(void *data, enum dtype t, int64_t rows, int64_t cols)
{
    return tensor_make(data, t, 2, (const int64_t[]){rows, cols});
}

struct tensor tensor_absent(void)
{
    return tensor_1d(0, DTYPE_F32, 0);
}

int64_t tensor_count(struct tensor t)
{
    return t.dim[0] * t.dim[1] * t.dim[2] * t.dim[3];
}

size_t tensor_bytes(struct tensor t)
{
    return (size_t)tensor_count(t) * dtype_size(t.dtype);
}

struct tensor tensor_rows(struct tensor t, int64_t first, int64_t n)
{
    assert(first >= 0 && n >= 0 && first + n <= t.dim[0]);
    const size_t row = t.dim[0] ? tensor_bytes(t) / (size_t)t.dim[0] : 0;
    if (t.data) t.data = (char *)t.data + (size_t)first * row;
    t.dim[0] = n;
    return t;
}

struct tensor tensor_reshape_2d(struct tensor t, int64_t rows, int64_t cols)
{
    assert(rows * cols == tensor_count(t));
    return tensor_2d(t.data, t.dtype, rows, cols);
}
