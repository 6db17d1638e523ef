// tests/fuzz/fuzz_http.c - a request, whole and cut: never more than a status, and a prefix of one that is not whole
// is not whole either.
#include "io/http.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = calloc(size ? size : 1, 1); // so that a byte too far is seen
    if (!text) return 0;
    if (size) memcpy(text, data, size);
    const enum http_answer a = http_request(text, size, 8765);
    assert(*http_reason(a));
    for (size_t n = 0; a == HTTP_MORE && n < size; n++) {
        assert(http_request(text, n, 8765) == HTTP_MORE);
    }
    free(text);
    return 0;
}
