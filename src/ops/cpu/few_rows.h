// ops/cpu/few_rows.h - products of a few rows, where the time is that of reading the weights: generation, and experts that
// few tokens reach.
#pragma once
#include "base/dtype.h"

#include <stdbool.h>
#include <stdint.h>

// y[r][j] = <x[r], w[j]>, or += if accumulate, for `rows` rows of x (depth, F32) and `columns` rows of w (depth, of type t,
// at any byte), y being `columns` wide. Each weight is read from memory once. Sums in F32, in an order that depends on
// depth alone: not on t, so that weights of one value give one result in whatever type they are stored.
void few_rows_product(float *y, const float *x, const void *w, enum dtype t, int64_t rows,
                      int64_t columns, int64_t depth, bool accumulate);
// The same for rows and weights of BF16, where cpu_bf16_instructions(); both aligned to their elements. Another order.
void few_rows_product_bf16(float *y, const void *x, const void *w, int64_t rows, int64_t columns,
                           int64_t depth, bool accumulate);
