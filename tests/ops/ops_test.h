// tests/ops/ops_test.h - memory and comparisons for the tests of the CPU backend. Every op is tried with
// F32 activations, where only rounding of F32 sums is allowed, and with BF16 ones, whose inputs and
// outputs are rounded to 8 bits.
#pragma once
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector.h"
#include "support.h"

#include <math.h>
#include <string.h>

static const double limit_of[] = {[DTYPE_F32] = 1e-6, [DTYPE_BF16] = 6e-3};

enum { POOL = 1024 };
static struct {
    void *data;
    size_t bytes;
} pool[POOL];
static int pooled;

// Zeroed, and released after the test by release_all.
static inline struct tensor make(enum dtype t, int64_t rows, int64_t cols)
{
    struct tensor x = tensor_2d(NULL, t, rows, cols);
    assert_true(pooled < POOL);
    x.data = cpu_ops.allocate(tensor_bytes(x));
    assert_non_null(x.data);
    pool[pooled].bytes = tensor_bytes(x);
    pool[pooled++].data = x.data;
    return x;
}

static inline int release_all(void **state)
{
    (void)state;
    while (pooled > 0) {
        pooled--;
        cpu_ops.release(pool[pooled].data, pool[pooled].bytes);
    }
    return 0;
}

// A copy of x in another type and of the same shape.
static inline struct tensor as(enum dtype t, struct tensor x)
{
    struct tensor y = make(t, 1, tensor_count(x));
    dtype_convert(y.data, t, x.data, x.dtype, tensor_count(x));
    return tensor_make(y.data, t, x.rank, x.dim);
}

static inline struct tensor like(enum dtype t, struct tensor x)
{
    struct tensor y = make(t, 1, tensor_count(x));
    return tensor_make(y.data, t, x.rank, x.dim);
}

static inline void fill(struct tensor x, float value)
{
    for (int64_t i = 0; i < tensor_count(x); i++) {
        dtype_convert((char *)x.data + (size_t)i * dtype_size(x.dtype), x.dtype, &value, DTYPE_F32,
                      1);
    }
}

// A fixture's tensor as rows: one row if it has one dimension.
static inline struct tensor get(struct fixture *f, const char *name)
{
    struct tensor x = fixture_get(f, name);
    return x.dtype == DTYPE_I32 ? as(DTYPE_I32, x) : as(DTYPE_F32, x);
}

// y - by, in F32: what was added to something that held `by`.
static inline struct tensor minus(struct tensor y, float by)
{
    struct tensor x = as(DTYPE_F32, y);
    for (int64_t i = 0; i < tensor_count(x); i++) {
        data_f32(x)[i] -= by;
    }
    return x;
}

// Values that look random, the same on every machine.
static inline void fill_random(struct tensor x, uint32_t seed)
{
    uint32_t state = seed * 2654435761U + 12345U;
    for (int64_t i = 0; i < tensor_count(x); i++) {
        float sum = -2;
        for (int j = 0; j < 4; j++) {
            state = state * 1664525U + 1013904223U;
            sum += (float)(state >> 8) * 0x1p-24f;
        }
        sum *= 1.7f;
        dtype_convert((char *)x.data + (size_t)i * dtype_size(x.dtype), x.dtype, &sum, DTYPE_F32,
                      1);
    }
}

static inline struct tensor random_tensor(enum dtype t, int64_t rows, int64_t cols, uint32_t seed)
{
    struct tensor x = make(t, rows, cols);
    fill_random(x, seed);
    return x;
}

// One update of one leaf; its gradient is 0 afterwards.
static inline void adamw_one(const struct adamw_leaf *x, const struct adamw *p, float scale,
                             uint64_t seed, uint64_t update)
{
    struct adamw_leaf leaf = *x;
    const struct leaf_list list = {&leaf, 1, ceil_div(tensor_count(x->w), LEAF_CHUNK)};
    cpu_ops.adamw(&list, p, tensor_1d(&scale, DTYPE_F32, 1), seed, update);
}

static inline bool same_bytes(struct tensor a, struct tensor b)
{
    return tensor_bytes(a) == tensor_bytes(b) && memcmp(a.data, b.data, tensor_bytes(a)) == 0;
}
