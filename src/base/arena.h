// base/arena.h - one block of memory, described by one function that runs twice: once to measure
// (base == NULL) and once to place. Each piece has a purpose, so `moetune plan` knows who uses the
// memory before anything is allocated, and an allocation that fails can say who holds what.
#pragma once
#include "base/tensor.h"

#include <stddef.h>

// What a piece of memory is for; the rows of `plan`.
enum purpose {
    PURPOSE_WEIGHTS, // float32 masters and working copies of what learns
    PURPOSE_GRADIENTS,
    PURPOSE_OPTIMIZER,   // moments
    PURPOSE_ACTIVATIONS, // kept from the forward pass for the backward pass
    PURPOSE_SCRATCH,     // lives within one operation or layer
    PURPOSE_DATA,        // batches, tables, routing state
    PURPOSE_COUNT
};
const char *purpose_name(enum purpose p); // "weights"

struct arena {
    char *base; // NULL while measuring
    size_t used, capacity;
    size_t by_purpose[PURPOSE_COUNT];
    enum purpose purpose; // of the pieces that follow
};

// 64-byte aligned. While measuring the result has data == NULL. Placing beyond capacity asserts: the
// measuring run and the placing run must ask for the same.
struct tensor arena_tensor(struct arena *a, enum dtype t, int rank, const int64_t *dim);
struct tensor arena_1d(struct arena *a, enum dtype t, int64_t n);
struct tensor arena_2d(struct arena *a, enum dtype t, int64_t rows, int64_t cols);
void *arena_bytes(struct arena *a, size_t bytes);
bool arena_measuring(const struct arena *a);
