// io/folders.h - what a folder holds: for the line that says why it is not what was asked for.
#pragma once
#include "base/error.h"

// False, always: `dir` has no config.json, or no adapter of a known kind. Says what it is instead, and where what is wanted
// may lie. `adapter`: it holds one (tuning_of_adapter).
bool folder_is_no_model(const char *dir, bool adapter, struct error *err);
bool folder_is_no_adapter(const char *dir, struct error *err);

bool is_weights_file(const char *name); // as a model's are named, or their index
bool is_model_file(const char *name);   // that, or config.json
// A folder for a new model; it need not exist. False, naming what it holds, if there is one already.
bool folder_has_no_model(const char *dir, struct error *err);
