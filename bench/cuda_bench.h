// bench/cuda_bench.h - what the files of cuda_bench share: tensors of random values, times, and comparisons, without
// which no time counts.
#pragma once
#include "ops/cuda/matmul.h"

#include <functional>
#include <vector>

void expect(bool ok, const char *what);                       // ends the program otherwise
double milliseconds(const std::function<void()> &work);       // median, on the backend's stream
struct tensor make(enum dtype t, int64_t rows, int64_t cols); // in [-1, 1)
void drop(struct tensor x);
struct tensor copy_of(struct tensor x, enum dtype t);
void poison(struct tensor x); // what is not written after it is not a number
// Is ||x - want|| at most `limit` of ||want||? Says so if not, and the program will fail.
bool same(const char *what, struct tensor x, struct tensor want, double limit);
int failures(void);

// A bank and its rows: x (R, cols), y (R, rows), dx like x, G matrices (rows, cols) and their gradients.
struct bank {
    int64_t R, G, rows, cols;
    struct tensor x, y, dx, w, dw, offsets, table, dtable;
    std::vector<int32_t> at;
    struct matrices values, grads;
};
void open_bank(struct bank *b, int64_t R, int64_t G, int64_t rows, int64_t cols);
void close_bank(struct bank *b);
struct tensor make_table(struct tensor w, int64_t G); // the addresses of the G matrices in w

// cuda_layer.cu: K of E experts (F, C) for each token, with router and combination; attention; copies.
void measure_experts(int64_t N, int64_t E, int64_t K, int64_t C, int64_t F);
void measure_attention(int64_t N, int64_t T, int64_t H, int64_t G, int64_t D);
void measure_copies(void);
