// tests/fuzz/fuzz_index.c - any bytes as model.safetensors.index.json, beside two shards: refused with a line, or every
// tensor is found in the shard that the index says.
#include "folder.h"
#include "io/checkpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void add_shard(const char *file, const char *header)
{
    char bytes[256] = {0};
    const uint64_t n = strlen(header);
    memcpy(bytes, &n, sizeof n);
    memcpy(bytes + sizeof n, header, n);
    folder_file(file, bytes, sizeof n + n + 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int index;
    struct checkpoint c;
    struct error err = {0};
    if (!*folder) {
        folder_make();
        index = folder_file("model.safetensors.index.json", "", 0);
        add_shard("a.safetensors",
                  "{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                  "\"y\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}");
        add_shard("b.safetensors",
                  "{\"z\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}");
    }
    folder_put(index, data, size);
    if (!checkpoint_open(&c, folder, &err)) {
        assert(*err.msg && !strchr(err.msg, '\n'));
        return 0;
    }
    assert(c.n_shards <= 2 && checkpoint_tensors(&c) <= 3);
    for (int64_t i = 0; i < checkpoint_tensors(&c); i++) {
        assert(checkpoint_find(&c, checkpoint_at(&c, i)->name) == checkpoint_at(&c, i));
    }
    checkpoint_close(&c);
    return 0;
}
