// tests/emulate/emulated.h - what a test may ask of the emulated device.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
// 0: threads and blocks in ascending order; 1: descending; else: pseudo-random, seeded by it.
void emulate_set_order(unsigned order);
int64_t emulate_launches(void); // kernels and copies run so far
int64_t emulate_waits(void);    // how often the host has waited for the device so far
// What the host finds: devices, compute capability as 80, memory, the driver's version as 13000.
void emulate_set_device(int count, int generation, size_t bytes, int driver);
// The launch or copy that comes after so many others, and all after it, fail; -1: none.
void emulate_fail_at(int64_t from_now);
// The launch or copy that comes after so many others is refused, and nothing else; -1: none.
void emulate_refuse_at(int64_t from_now);
#ifdef __cplusplus
}
#endif
