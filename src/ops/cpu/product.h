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
};
void product_f32(const struct product *p, float scale); // scale times A B
void product_bf16(const struct product *p);             // A and B BF16, sums in F32

// How many of `left` rows (at most `most`) a BF16 product takes at once where their number differs from step to step,
// as an expert's does: all of them below 16, else a multiple of 16 with three leading bits. For every shape that occurs
// code is made and kept (about 30 KB), so that memory stops growing only when few shapes can occur: 31 up to 512 rows.
int64_t product_rows(int64_t left, int64_t most);

bool product_bf16_works(void);   // the library has such a product for this processor
bool product_bf16_is_fast(void); // and the processor has instructions for it

// Threads of every product from now on, for bench's yardstick only: 1 but there. Not to be changed once a
// product of the same shape has been made.
void product_threads(int threads);
