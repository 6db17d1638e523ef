// base/crc32c.c - see crc32c.h. The processor's own instruction where the build has it (every x86-64
// with AVX2 does), crc32c_table.c elsewhere.
#include "base/crc32c.h"

#include <string.h>

#ifdef __SSE4_2__
#include <nmmintrin.h>

static uint32_t update(uint32_t crc, const unsigned char *p, size_t n)
{
    uint64_t c = crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        c = _mm_crc32_u64(c, word);
    }
    for (; n; n--, p++) {
        c = _mm_crc32_u8((uint32_t)c, *p);
    }
    return (uint32_t)c;
}
#else
static uint32_t update(uint32_t crc, const unsigned char *p, size_t n)
{
    return crc32c_table(crc, p, n);
}
#endif

uint32_t crc32c(uint32_t crc, const void *bytes, size_t n)
{
    return ~update(~crc, bytes, n);
}
