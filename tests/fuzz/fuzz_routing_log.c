// tests/fuzz/fuzz_routing_log.c - a routing log's bytes: what is counted are whole slots and gates of at least 0.
#include "eval/routing_log.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct expert_usage u;
    struct error err = {0};
    if (!expert_usage_open(&u, 2, 12, &err)) return 0;
    const bool ok = routing_log_parse(&u, 1, (const char *)data, size, "fuzz", &err);
    assert(ok || *err.msg);
    assert(!ok || expert_usage_slots(&u, 1) >= 1);
    for (int64_t e = 0; e < 24; e++) {
        assert(u.mass[e] >= 0); // not NaN; a sum may be too large, which the choice refuses
        assert(e >= 12 || u.slots[e] <= 0);
    }
    expert_usage_close(&u);
    return 0;
}
