// tests/ops/cuda_test.h - what the tests of the CUDA backend's products and attention share: tensors on the
// device, and modes in which each test runs. On a machine without a GPU the tests are linked with kernels
// compiled for the CPU (tests/emulate); with neither they are skipped.
#pragma once
#include "../cuda/run.h"
#include "ops_test.h"

#include <stdio.h>

enum cuda_products { CUDA_PRODUCTS_AUTO, CUDA_PRODUCTS_PORTABLE };
void cuda_configure_products(enum cuda_products products);

// In an emulation: when asynchronous work is done (late: when it is waited for), and in which order threads run.
__attribute__((weak)) void cuda_emulate(bool late, unsigned order);

enum { MODES = 3 };
static inline int modes(void)
{
    return cuda_emulate ? MODES : 1;
}
static inline void set_mode(int mode)
{
    const unsigned order[MODES] = {0, 1, 12345};
    if (cuda_emulate) cuda_emulate(mode % 2, order[mode]);
}

static struct {
    void *data;
    size_t bytes;
} device_pool[POOL];
static int device_pooled;
static const struct ops *device;

static inline bool open_device(void)
{
    struct error err = {0};
    device = cuda_open(&err);
    if (!device) printf("skipped: %s\n", err.msg);
    cpu_configure(2, CPU_PRODUCTS_F32);
    return device != NULL;
}

static inline int release_device(void **state)
{
    while (device_pooled > 0) {
        device_pooled--;
        device->release(device_pool[device_pooled].data, device_pool[device_pooled].bytes);
    }
    set_mode(0);
    return release_all(state);
}

static inline void *device_bytes(const void *from, size_t bytes)
{
    assert_true(device_pooled < POOL);
    void *p = device->allocate(bytes);
    assert_non_null(p);
    device_pool[device_pooled].data = p;
    device_pool[device_pooled++].bytes = bytes;
    if (bytes) device->upload(p, from, bytes);
    return p;
}

// A copy on the device, `shift` bytes from where it would lie.
static inline struct tensor shifted_on_device(struct tensor x, size_t shift)
{
    const size_t bytes = tensor_bytes(x);
    if (!x.data) return x;
    char *p = device_bytes(x.data, bytes + shift);
    if (shift) device->upload(p + shift, x.data, bytes);
    x.data = p + shift;
    return x;
}

static inline struct tensor on_device(struct tensor x)
{
    return shifted_on_device(x, 0);
}

static inline struct tensor from_device(struct tensor x)
{
    const struct tensor y = make(x.dtype, 1, tensor_count(x));
    device->download(y.data, x.data, tensor_bytes(x));
    return tensor_make(y.data, x.dtype, x.rank, x.dim);
}

// G matrices, on the host and on the device; matrix `absent` (or -1) is NULL.
enum { MOST_GROUPS = 16 };
struct two_banks {
    struct matrices host, device;
    void *at[MOST_GROUPS], *device_at[MOST_GROUPS];
};

static inline void make_banks(struct two_banks *b, enum dtype t, int64_t G, int64_t rows,
                              int64_t cols, size_t shift, int64_t absent)
{
    assert_true(G <= MOST_GROUPS);
    for (int64_t g = 0; g < G; g++) {
        const struct tensor w = random_tensor(t, rows, cols, 77U + (uint32_t)g);
        b->at[g] = w.data;
        b->device_at[g] = shifted_on_device(w, shift).data;
    }
    if (absent >= 0) b->at[absent] = b->device_at[absent] = NULL;
    b->host = (struct matrices){G, rows, cols, t, b->at};
    b->device = b->host;
    b->device.data = device_bytes(b->device_at, (size_t)G * sizeof *b->device_at);
}

// Offsets of groups with these sizes.
static inline struct tensor offsets_of(const int *sizes, int64_t G)
{
    const struct tensor offsets = make(DTYPE_I32, 1, G + 1);
    for (int64_t g = 0; g < G; g++) {
        data_i32(offsets)[g + 1] = data_i32(offsets)[g] + sizes[g];
    }
    return offsets;
}

static inline double rounding_of(enum dtype t)
{
    return t == DTYPE_BF16 ? 4e-3 : 2e-6;
}
