// ops/cpu/yardstick.c - the matrix library alone, with all threads on one product: what the engine's own
// products are measured against.
#include "ops/cpu/cpu.h"
#include "ops/cpu/product.h"

#include <assert.h>

static void multiply(const void *product, int64_t is_bf16)
{
    if (is_bf16) {
        product_bf16(product);
    } else {
        product_f32(product, 1);
    }
}

bool cpu_library_product(struct tensor y, struct tensor x, struct tensor w)
{
    const bool bf16 = x.dtype == DTYPE_BF16;
    assert(x.dtype == w.dtype && y.dtype == x.dtype && (bf16 || x.dtype == DTYPE_F32));
    if (bf16 && !product_bf16_works()) return false;
    const struct product p = {
        .m = y.dim[0],
        .n = y.dim[1],
        .k = x.dim[1],
        .a = x.data,
        .b = w.data,
        .c = y.data,
        .lda = x.dim[1],
        .ldb = w.dim[1],
        .ldc = y.dim[1],
        .transposed_b = true,
        .c_is_bf16 = bf16,
    };
    product_threads(cpu_threads());
    cpu_attempt(multiply, &p, bf16);
    product_threads(1);
    return true;
}
