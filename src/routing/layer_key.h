// routing/layer_key.h - the keys by which the released files name MoE layers, and the walk over such a
// file: every MoE layer of the model once, and nothing else.
#pragma once
#include "io/json.h"
#include "model/config.h"

// "model.layers.N.mlp" or "model.layers.N.mlp.gate" (DeepSeek), with or without "base_model.model." in
// front (LoRA runs of the released code) -> N, or -1.
int64_t layer_key_parse(const char *key);
void layer_key_write(char *out, size_t size, int64_t layer);

// Calls fn(user, layer, value) for each entry. An entry that names no MoE layer of the model, a layer
// named twice, or a layer that is missing is an error.
typedef bool (*layer_entry)(void *user, int64_t layer, const json_t *value, struct error *err);
bool layer_entries_visit(const json_t *object, const struct model_config *c, const char *where,
                         layer_entry fn, void *user, struct error *err);
