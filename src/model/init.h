// model/init.h - a random checkpoint of any shape, in the Hugging Face layout: for benchmarks, tests and
// training from nothing. Written tensor by tensor; no weight is ever held in memory.
#pragma once
#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct model_init_options {
    const char *config; // path of a config.json
    const char *out;    // folder; created, and refused if it holds a model
    const char *dtype;  // "bf16", "f16", "f32"; NULL: the config's, or bf16
    uint64_t seed;
    bool fused;          // experts fused over one tensor, as transformers 5 may save them
    int64_t shard_bytes; // largest shard; 0: 5 GB. A tensor that is larger has one of its own
    bool overwrite;      // replace the model in `out`
};

// Matrices are normal with the config's initializer_range, norms are 1, biases 0. A value depends on the
// seed, the tensor's per-expert name and the place in it: both layouts, any sharding, number of threads
// and machine give the same model. config.json is copied; where its dtype is another, that is changed.
bool model_init(const struct model_init_options *o, struct error *err);
