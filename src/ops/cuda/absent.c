// ops/cuda/absent.c - stands for the CUDA backend in a build without it.
#include "ops/ops.h"

const struct ops *cuda_open(struct error *err)
{
    fail(err, "device cuda: this build has no CUDA; build with 'make CUDA=1'");
    return NULL;
}

bool cuda_built(void)
{
    return false;
}
