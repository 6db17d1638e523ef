// tests/emulate/emulate.h - between emulate.cpp (kernels) and runtime.cpp (memory).
#pragma once
#include <cuda_runtime.h>

bool emulate_open_memory(void); // device memory becomes accessible; false: the device is lost
void emulate_close_memory(void);
