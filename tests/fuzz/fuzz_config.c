// Any bytes as config.json: refused with a line, or the shape keeps the promises that allocations rely on.
#include "model/shapes.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool check_spec(void *user, const struct tensor_spec *s, struct error *err)
{
    (void)err;
    int64_t n = 1;
    for (int i = 0; i < s->rank; i++) {
        if (s->dim[i] <= 0 || __builtin_mul_overflow(n, s->dim[i], &n)) abort();
    }
    if (n > (int64_t)1 << 51 || !*s->name) abort();
    return --*(int *)user > 0; // an honest config can have millions of tensors
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    struct model_config c;
    const struct family *family;
    if (!family_parse_config(&family, &c, (const char *)data, size, "fuzz", &err)) {
        if (!*err.msg || strchr(err.msg, '\n')) abort();
        return 0;
    }
    if (c.n_heads % c.n_kv_heads != 0 || c.head_dim % 2 != 0) abort();
    if (c.n_layers > MAX_LAYERS || c.n_experts > MAX_EXPERTS) abort();
    if (c.n_stop_ids > MAX_STOP_IDS) abort();
    int left = 10000;
    shapes_visit(family, &c, NULL, check_spec, &left, &err);
    return 0;
}
