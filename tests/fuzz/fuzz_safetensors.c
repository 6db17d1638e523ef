// Any bytes as a safetensors file: refused with a line, or every tensor lies within them and is found.
#include "io/safetensors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    struct safetensors st = {.path = "fuzz"};
    if (!safetensors_parse(&st, data, size, &err)) {
        if (!*err.msg || strchr(err.msg, '\n')) abort();
        safetensors_close(&st);
        return 0;
    }
    unsigned sum = 0;
    size_t total = st.header_size;
    for (int64_t i = 0; i < st.count; i++) {
        const struct st_entry *e = &st.entry[i];
        if (safetensors_find(&st, e->name) != e) abort();
        if (tensor_bytes(e->tensor) != e->end - e->begin) abort();
        if ((uintptr_t)e->tensor.data % dtype_size(e->tensor.dtype) != 0) abort();
        for (size_t k = 0; k < tensor_bytes(e->tensor); k++) { // every byte can be read
            sum += ((const uint8_t *)e->tensor.data)[k];
        }
        total += e->end - e->begin;
    }
    if (total != size || sum > 255U * size) abort();
    safetensors_close(&st);
    return 0;
}
