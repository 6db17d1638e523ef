// base/clip.h - what a step's gradients are multiplied by, and whether they may be used at all: the one copy, which
// is compiled for devices too.
#pragma once
#include "base/device.h"

#include <math.h>

// From the sum of the gradients' squares and the loss. The norm becomes at most clip (0: no limit), as
// torch.nn.utils.clip_grad_norm_ does it. NaN where the loss or the norm is not finite, or a float cannot hold the
// squares of what is left (1e38 < FLT_MAX): a step would leave infinite moments.
ON_DEVICE_TOO
static inline float clip_factor(double squares, double loss, double clip)
{
    const double norm = sqrt(squares), by = clip > 0 ? clip / (norm + 1e-6) : 1;
    const double scale = by < 1 ? by : 1;
    const int finite = loss - loss == 0 && norm - norm == 0;
    return finite && norm * scale < 1e19 ? (float)scale : NAN;
}
