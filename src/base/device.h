// base/device.h - marks the few small functions that the CPU and a GPU share.
#pragma once
#ifdef __CUDACC__
#define ON_DEVICE_TOO __host__ __device__
#else
#define ON_DEVICE_TOO
#endif
