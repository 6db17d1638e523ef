// tests/emulate/emulate.h - between emulate.cpp (kernels) and runtime.cpp (memory).
#pragma once
#include <cuda_runtime.h>

cudaError_t
emulate_open_memory(void); // device memory becomes accessible, unless something is wrong
void emulate_close_memory(void);
