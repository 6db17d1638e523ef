// ops/cuda/matmul_hopper.cu - products of BF16 over banks by wgmma (hopper.cuh).
#include "ops/cuda/hopper.cuh"

bool hopper_rows(const rows_product &p, int y_type)
{
    if (!cuda_wgmma()) return false;
    const bool wide = wide_tiles(p.columns);
    if (p.transposed) {
        y_type == DTYPE_F32 ? run_hopper<true, true, float>(p, wide)
                            : run_hopper<true, true, uint16_t>(p, wide);
    } else {
        y_type == DTYPE_F32 ? run_hopper<true, false, float>(p, wide)
                            : run_hopper<true, false, uint16_t>(p, wide);
    }
    return true;
}

template <class P> static bool run_weight(const P &p)
{
    if (!cuda_wgmma()) return false;
    run_hopper<false, false, float>(p, wide_tiles(p.columns));
    return true;
}

bool hopper_weight(const weight_product &p)
{
    return run_weight(p);
}

bool hopper_weight(const token_weight_product<true> &p)
{
    return run_weight(p);
}

bool hopper_weight(const token_weight_product<false> &p)
{
    return run_weight(p);
}
