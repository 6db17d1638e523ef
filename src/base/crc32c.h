// base/crc32c.h - the Castagnoli checksum that guards checkpoints.
#pragma once
#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(uint32_t crc, const void *bytes, size_t n); // start with 0; chainable

// The same by tables alone, of the inverted sum: where the processor has no instruction, and for tests.
uint32_t crc32c_table(uint32_t inverted, const unsigned char *bytes, size_t n);
