// train/folder.h - a run's folder: whose it is, what in it is a run's, which checkpoints it holds.
#pragma once
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Creates and locks `out`, if it is still free for this run. model_dir must not lie where the run writes.
bool folder_lock(int *lock, const char *out, const char *model_dir, bool resume, bool overwrite,
                 struct error *err);
// Removes what a kill left half-written; with `everything`, all that a run made, and nothing else.
bool folder_clear(const char *out, bool everything, struct error *err);

// Steps of the checkpoints in `out`, newest first; none where there is no `out`. Free with mem_free.
bool folder_checkpoints(int64_t **step, int64_t *count, const char *out, struct error *err);
// Removes those before `step` but the newest `keep` (`step` counts as one, 1 at least) and `best`, where it is older.
bool folder_prune(const char *out, int64_t step, int64_t keep, int64_t best, struct error *err);
bool folder_checkpoint_path(char *path, size_t size, const char *out, int64_t step,
                            struct error *err);
