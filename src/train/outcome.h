// train/outcome.h - what a run says of itself when it is over, for those who look at its folder later:
// result.json, how it ended; changes.json, what moved and how far.
#pragma once
#include "train/train.h"

double monotonic_now(void); // seconds

// result.json: how it ended. Removed while a run goes on (and changes.json, which is made at the end), so that a folder
// without it and without a lock is one whose run was killed.
bool outcome_clear(const char *out, struct error *err);
bool outcome_write(const char *out, const struct train_result *r, bool ok, struct error *err);

// changes.json: of each module and layer, and of each expert, the norm of the difference between what the model is
// now and what its folder stores over the norm of that, for all that differs (adapters merged). The differences are
// exact: float32 values against stored ones, summed in float64 in the order of the elements. Takes memory for one
// matrix.
bool changes_write(const struct model *m, const char *out, struct error *err);
