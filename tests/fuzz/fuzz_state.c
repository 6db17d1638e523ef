// tests/fuzz/fuzz_state.c - the files that hold a routing's state. The first byte of an input says which: 0
// moe_bias_states.json, 1 forced_experts_records.json, 2 routing.json, 3 a safetensors file whose tensors hold both
// states, as the released code leaves them among a model's weights.
#include "base/mem.h"
#include "folder.h"
#include "routing/bias_state.h"
#include "routing/condenser_choice.h"

#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LAYERS = 3, EXPERTS = 4 };
static const struct model_config config = {.n_layers = LAYERS,
                                           .n_experts = EXPERTS,
                                           .experts_per_tok = 2,
                                           .moe_layer = {false, true, true}};

static void check_bias(float *values, const struct error *err)
{
    assert(values || *err->msg);
    for (int i = 0; values && i < 2 * LAYERS * EXPERTS; i++) {
        assert(isfinite(values[i]));
    }
    mem_free(values);
}

static void check_experts(struct condensers *s, bool read, const struct error *err)
{
    assert(read || *err->msg);
    for (int64_t l = 0; read && l < LAYERS; l++) {
        assert(s->count[l] <= EXPERTS && (l > 0 || !s->count[l]));
        for (int64_t i = 0; i < s->count[l]; i++) { // ascending, so none is there twice
            assert(s->expert[l][i] > (i ? s->expert[l][i - 1] : -1) && s->expert[l][i] < EXPERTS);
        }
    }
    condensers_free(s);
}

static void read_tensors(const uint8_t *data, size_t size)
{
    struct error err = {0};
    char where[SOURCE_PATH];
    struct checkpoint_shard shard = {.st = {.path = "fuzz"}};
    const struct checkpoint checkpoint = {.dir = folder, .shard = &shard, .n_shards = 1};
    static struct condensers s;
    if (safetensors_parse(&shard.st, data, size, &err)) {
        struct routing_source from;
        const bool known = routing_source_find(&from, "/nowhere", &checkpoint, &err);
        assert(known);
        check_bias(bias_source_read(&from, &config, &err), &err);
        err.msg[0] = 0;
        check_experts(&s, condensers_read_from(&s, &from, where, &config, &err), &err);
    }
    safetensors_close(&shard.st);
}

static void read_description(void)
{
    struct error err = {0};
    const struct routing *r = NULL;
    struct routing_options o = {0};
    bool described;
    const struct routing_source from = {.dir = folder};
    const bool ok = routing_described(&r, &o, &described, &from, &err);
    assert(ok ? r != NULL : *err.msg);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int bias, experts, routing;
    static char path[2][sizeof folder + 64];
    static struct condensers s;
    struct error err = {0};
    if (!*folder) {
        folder_make();
        bias = folder_file(bias_states_name, "", 0);
        experts = folder_file(experts_records_name, "", 0);
        routing = folder_file(routing_json_name, "", 0);
        snprintf(path[0], sizeof path[0], "%s/%s", folder, bias_states_name);
        snprintf(path[1], sizeof path[1], "%s/%s", folder, experts_records_name);
    }
    if (!size) return 0;
    switch (folder_kind(*data, 4)) {
    case 0:
        folder_put(bias, data + 1, size - 1);
        check_bias(bias_file_read(path[0], &config, &err), &err);
        break;
    case 1:
        folder_put(experts, data + 1, size - 1);
        check_experts(&s, condensers_read(&s, path[1], &config, &err), &err);
        break;
    case 2:
        folder_put(routing, data + 1, size - 1);
        read_description();
        break;
    default:
        read_tensors(data + 1, size - 1);
    }
    return 0;
}
