// ops/cpu/dropped.h - the two inner loops of dropped.c with the processor's own BF16 dot products (AVX512-BF16), where
// it has them: two to four times as fast as in F32.
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { STRIP = 64 }; // columns of a turned strip in the forward pass

bool bf16_dots_work(void); // the processor has them; if not, the functions below must not be called

// sum (STRIP) = rows `column` (n) of a strip, each times its element of x, which holds values of BF16
void bf16_add_rows(float *sum, const uint16_t *strip, const int32_t *column, const float *x,
                   int64_t n);
// <a, b> and <a, c> over n values
void bf16_two_dots(float sum[2], const uint16_t *a, const uint16_t *b, const uint16_t *c,
                   int64_t n);
