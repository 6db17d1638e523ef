// base/tensor.h - a view of an array: a pointer, a type and a shape. Views own nothing, are dense and
// row-major, and are passed by value. `data` may be memory of a device; only ops look into it.
//
// Letters used for dimensions, everywhere:
//   B sequences   T positions   N = tokens (rows)   C width of the residual stream
//   H heads   G key-value heads, or groups of a bank   D width of a head
//   E experts   K experts per token   S slots of a route   F width of an expert's hidden layer
//   R rows sorted by expert   V vocabulary   L layers
#pragma once
#include "base/dtype.h"

#include <stdbool.h>
#include <stdint.h>

enum { TENSOR_MAX_RANK = 4 };

struct tensor {
    void *data; // NULL: absent; an op does not compute an absent output
    enum dtype dtype;
    int rank;
    int64_t dim[TENSOR_MAX_RANK]; // those beyond rank are 1
};

struct tensor tensor_make(void *data, enum dtype t, int rank, const int64_t *dim);
struct tensor tensor_1d(void *data, enum dtype t, int64_t n);
struct tensor tensor_2d(void *data, enum dtype t, int64_t rows, int64_t cols);
struct tensor tensor_absent(void);

int64_t tensor_count(struct tensor t); // elements
size_t tensor_bytes(struct tensor t);
struct tensor tensor_rows(struct tensor t, int64_t first, int64_t n); // rows [first, first + n)
struct tensor tensor_reshape_2d(struct tensor t, int64_t rows, int64_t cols); // same count

// Rows of a host tensor, for ops_cpu and tests.
static inline float *row_f32(struct tensor t, int64_t row)
{
    return (float *)t.data + row * t.dim[1];
}

static inline float *data_f32(struct tensor t)
{
    return (float *)t.data;
}

static inline int32_t *data_i32(struct tensor t)
{
    return (int32_t *)t.data;
}
