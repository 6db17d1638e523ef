// ops/cuda/matmul.h - products of BF16 on Hopper, apart because they are compiled for sm_90a alone.
#pragma once
#include "ops/cuda/product.cuh"

struct up_product; // expert.cuh
struct dhidden_product;

// False: this device has no wgmma, or the product is better made another way; nothing is done then.
bool hopper_rows(const rows_product &p, int y_type);
bool hopper_weight(const weight_product &p);
bool hopper_weight(const token_weight_product<true> &p);
bool hopper_weight(const token_weight_product<false> &p);
// Where cuda_wgmma() alone. In how many parts a row's dot product is summed depends on the columns.
void hopper_up(const up_product &p);
void hopper_dhidden(const dhidden_product &p);
int hopper_dhidden_parts(int columns);

// Which kernels multiply BF16, for tests and bench: those for the device at hand, or those for any.
enum cuda_products { CUDA_PRODUCTS_AUTO, CUDA_PRODUCTS_PORTABLE };
extern "C" void cuda_configure_products(enum cuda_products products);
bool cuda_wgmma(void); // is wgmma to be used?

// The token of each of the first `rows` rows of a dispatch, on the device until the next call; NULL: no memory.
const int32_t *cuda_tokens(const struct dispatch *d, int rows);
