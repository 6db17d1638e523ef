// train/checkpoint.h - a run's state on disk: checkpoint-N/, written beside its place, synced,
// checksummed and renamed, so that it is there whole or not at all. Knows leaves, not what they mean.
//   values.safetensors m.safetensors v.safetensors   a tensor a leaf, under the leaf's name
//   m_scale.safetensors v_scale.safetensors          where moments are 8-bit codes
//   state.json                                       train/state.h
//   (files of the routing)
//   manifest.json                                    every file with its size and CRC32C: train/manifest.h
#pragma once
#include "base/leaf.h"
#include "routing/routing.h"
#include "train/manifest.h"
#include "train/state.h"
#include "tuning/tuning.h"

// What is saved and loaded besides the state.
struct saved {
    const struct ops *ops;
    const struct leaves *leaves;
    const struct routing *routing;
    struct routing_state *routing_state; // NULL: the routing has nothing to save
    const struct tuning *tuning;
    struct tuning_state *tuning_state;
};

// Writes out/checkpoint-N (N: the state's step), replacing one of that number.
bool run_checkpoint_save(const char *out, const struct saved *what, const struct train_state *state,
                         struct error *err);

// Loading, in this order; each step checks what it reads and names the file and the tensor that is not
// as it was written.
bool run_checkpoint_state(const char *path, int64_t step, struct manifest *manifest,
                          struct train_state *state,
                          struct error *err); // step: of the folder's name
bool run_checkpoint_values(const char *path, const struct manifest *manifest,
                           const struct saved *what, struct error *err); // the weights alone
bool run_checkpoint_rest(const char *path, const struct manifest *manifest,
                         const struct saved *what, struct error *err); // moments and routing
bool run_checkpoint_routing(const char *path, const struct manifest *manifest,
                            const struct saved *what, struct error *err); // the routing alone

size_t run_checkpoint_bytes(const struct leaves *l); // on disk, about
