// ops/cpu/product.h - the one place that knows oneDNN: a matrix product computed by the calling thread
// alone, in either version of the library.
#pragma once
#include <stdbool.h>
#include <stdint.h>

// C (m,n) = A (m,k) B (k,n), or C += if accumulate; rows of C lie ldc apart. A is stored by rows of k
// (lda apart) or, transposed, by rows of m; B by rows of n or, transposed, by rows of k.
struct product {
    int64_t m, n, k;
    const void *a, *b;
    void *c;
    int64_t lda, ldb, ldc;
    bool transposed_a, transposed_b, accumulate;
    bool c_is_bf16; // bf16 products only; never with accumulate
    // Of a BF16 product whose number of rows (m; k where A is transposed) differs from step to step, as an expert's
    // does: the most that product_rows gives. 0: it does not differ.
    int64_t rows_at_most;
};
void product_f32(const struct product *p, float scale); // scale times A B
// A and B BF16, sums in F32. Code is made and kept for each shape (about 30 KB): with rows_at_most for all numbers of rows
// when the first occurs, so that memory does not grow as rarer ones do. Uses SCRATCH_A, SCRATCH_B and SCRATCH_SUMS.
void product_bf16(const struct product *p);

// How many of `left` rows (at most `most`, 16 or more) such a product takes at once: all of them below 16, which are run as
// 16, else a multiple of 16 with three leading bits. These are 16 numbers up to 512.
int64_t product_rows(int64_t left, int64_t most);

int64_t product_shapes(void); // for tests: how many shapes of BF16 products have been made

bool product_bf16_works(void);   // the library has such a product for this processor
bool product_bf16_is_fast(void); // and the processor has instructions for it

// Threads of every product from now on, for bench's yardstick only: 1 but there. Not to be changed once a
// product of the same shape has been made.
void product_threads(int threads);
