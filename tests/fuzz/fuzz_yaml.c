// fuzz_yaml.c - options_read_yaml on any bytes, for the command with the most options: an error or a
// config whose every value is in range, never anything else.
#include "cli/options.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct options defaults; // what holds memory of its own is empty in it
    static bool made;
    struct error err;
    if (!made) options_defaults(&defaults, COMMAND_TRAIN);
    made = true;
    struct options o = defaults;
    if (options_read_yaml(&o, (const char *)data, size, "fuzz.yaml", &err)) {
        json_t *all = options_json(&o, false);
        if (!all || o.config.train.lr < 0 || o.config.dataset.max_length < 2) abort();
        json_decref(all);
    } else if (!*err.msg) {
        abort();
    }
    options_close(&o);
    return 0;
}
