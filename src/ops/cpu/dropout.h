// ops/cpu/dropout.h - which elements of a row dropout leaves out.
#pragma once
#include "ops/ops.h"

// 16 random bits an element. A row has 64 from the counter-based generator; word i of the row (base/philox.h) gives
// 16 to element i of each half of the row.
struct row_bits {
    uint32_t low, high, threshold; // of 65536 patterns, those below are left out
    float scale;                   // of what stays
};
struct row_bits row_bits(const struct dropout *d, int64_t r);
int64_t dropout_rows(const struct dropout *d, int64_t rows); // of `rows`, those that d knows

// The columns of a row of C that are left out, in ascending order; returns how many. column (C).
int64_t left_out(int32_t *column, int64_t C, struct row_bits bits);
