// tests/cuda/device.h - tensors in pairs, one for each backend, for tests that run something on both and compare.
// Over the emulated device an op runs in several orders of threads and blocks, over a real one twice: the
// results must agree bit for bit.
#pragma once
#include "base/mem.h"
#include "ops/ops.h"
#include "run.h"
#include "support.h"
#ifdef EMULATED
#include "emulated.h"
#endif

#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct ops *device;

// Says why where there is none.
static inline bool device_open(void)
{
    struct error err;
    cpu_configure(1, CPU_PRODUCTS_F32);
    device = cuda_open(&err);
    if (!device) printf("skipped: %s\n", err.msg);
    return device != NULL;
}

static inline void device_order(unsigned order)
{
#ifdef EMULATED
    emulate_set_order(order);
#else
    (void)order;
#endif
}

// Memory of a backend, until release_pool.
enum { POOLED = 512 };
static struct {
    const struct ops *ops;
    void *data;
    size_t bytes;
} pool[POOLED];
static int pooled;

static inline void *pool_allocate(const struct ops *o, size_t bytes)
{
    assert_true(pooled < POOLED);
    void *p = o->allocate(bytes);
    assert_non_null(p);
    pool[pooled].ops = o;
    pool[pooled].data = p;
    pool[pooled++].bytes = bytes;
    return p;
}

static inline void release_pool(void)
{
    while (pooled > 0) {
        pooled--;
        pool[pooled].ops->release(pool[pooled].data, pool[pooled].bytes);
    }
}

// After a test, failed ones too.
static inline int leave_pool(void **state)
{
    (void)state;
    release_pool();
    device_order(0);
    return 0;
}

// A copy of a host's tensor in a backend's memory.
static inline struct tensor copy_to(const struct ops *o, struct tensor host)
{
    if (!host.data) return host;
    struct tensor x = host;
    x.data = pool_allocate(o, tensor_bytes(host));
    o->upload(x.data, host.data, tensor_bytes(host));
    return x;
}

static inline struct tensor copy_back(const struct ops *o, struct tensor x)
{
    if (!x.data) return x;
    struct tensor host = x;
    host.data = pool_allocate(&cpu_ops, tensor_bytes(x));
    o->download(host.data, x.data, tensor_bytes(x));
    return host;
}

// The groups of `all` (G*rows, cols) as a bank in a backend's memory, where `all` lies.
static inline struct matrices bank_in(const struct ops *o, struct tensor all, int64_t groups)
{
    void **table = pool_allocate(o, (size_t)groups * sizeof *table);
    const int64_t rows = all.dim[0] / groups;
    for (int64_t g = 0; g < groups; g++) {
        void *p = tensor_rows(all, g * rows, rows).data;
        o->upload(&table[g], &p, sizeof p);
    }
    return (struct matrices){groups, rows, all.dim[1], all.dtype, table};
}

static inline double value_at(struct tensor x, int64_t i)
{
    double v;
    if (x.dtype == DTYPE_I32) return ((const int32_t *)x.data)[i];
    if (x.dtype == DTYPE_U8) return ((const uint8_t *)x.data)[i];
    dtype_convert(&v, DTYPE_F64, (const char *)x.data + (size_t)i * dtype_size(x.dtype), x.dtype,
                  1);
    return v;
}

// Largest difference, relative to the largest value of `expected`; what is infinite or not a number must be so
// in both. A type with fewer bits allows more.
static inline void check_same(const char *name, struct tensor x, struct tensor expected,
                              double limit)
{
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < tensor_count(x); i++) {
        const double a = value_at(x, i), b = value_at(expected, i);
        if (!isfinite(a) || !isfinite(b)) {
            if (a == b || (isnan(a) && isnan(b))) continue;
            fail_msg("%s: element %lld is %g, expected %g", name, (long long)i, a, b);
        }
        worst = fmax(worst, fabs(a - b));
        largest = fmax(largest, fabs(b));
    }
    if (x.dtype == DTYPE_I32) limit = 0;
    if (x.dtype == DTYPE_BF16) limit = fmax(limit, 8e-3);
    if (x.dtype == DTYPE_U8)
        limit = 1.0 / 255; // a neighbouring code, where a device fuses a product and a sum
    if (x.dtype == DTYPE_F16) limit = fmax(limit, 1e-3);
    if (!(worst <= limit * largest)) {
        fail_msg("%s: differs by %g of %g, at most %g expected", name, worst, largest, limit);
    }
}
