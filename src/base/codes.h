// base/codes.h - numbers in 8 bits: a code is the index of a value in a table of 256 ascending ones, and a
// block of elements shares a scale, its largest magnitude. The tables are the dynamic quantisation of
// Dettmers et al. ("8-bit Optimizers via Block-wise Quantization", arXiv 2110.02861, section 2), with the
// block size that their library bitsandbytes has had since 0.43.
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { CODES = 256, CODE_BLOCK = 256 };

// In each decade from 1e-6 to 1 the means of equal parts of [0.1, 1] times the decade, twice as many parts
// as in the decade below; with both signs, or with none and twice the parts; and 0 and 1.
const float *codes_signed(void);
const float *codes_unsigned(void);
