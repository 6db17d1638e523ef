// base/arena.c - see arena.h.
#include "base/arena.h"

#include <assert.h>

static const char *const names[PURPOSE_COUNT] = {
    [PURPOSE_WEIGHTS] = "weights",     [PURPOSE_GRADIENTS] = "gradients",
    [PURPOSE_OPTIMIZER] = "optimizer", [PURPOSE_ACTIVATIONS] = "activations",
    [PURPOSE_SCRATCH] = "scratch",     [PURPOSE_DATA] = "data",
};

const char *purpose_name(enum purpose p)
{
    return names[p];
}

bool arena_measuring(const struct arena *a)
{
    return !a->base;
}

void *arena_bytes(struct arena *a, size_t bytes)
{
    const size_t padded = (bytes + 63) / 64 * 64, at = a->used;
    a->used += padded;
    a->by_purpose[a->purpose] += padded;
    if (!a->base) return NULL;
    assert(a->used <= a->capacity);
    return a->base + at;
}

struct tensor arena_tensor(struct arena *a, enum dtype t, int rank, const int64_t *dim)
{
    struct tensor x = tensor_make(NULL, t, rank, dim);
    x.data = arena_bytes(a, tensor_bytes(x));
    return x;
}

struct tensor arena_1d(struct arena *a, enum dtype t, int64_t n)
{
    return arena_tensor(a, t, 1, (const int64_t[]){n});
}

struct tensor arena_2d(struct arena *a, enum dtype t, int64_t rows, int64_t cols)
{
    return arena_tensor(a, t, 2, (const int64_t[]){rows, cols});
}
